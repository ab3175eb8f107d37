"""Loading and saving captioners.

What is written, plain transformers or peft can load; `captrain.json` adds what they don't know.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

import captrain.models.families.prefix.model  # makes prefix captioners known to the Auto classes
import captrain.models.layers.vision  # noqa: F401  # makes wrapped encoders known to the Auto classes
from captrain.data.images import ImageSpec
from captrain.disk.reading import POINTER, pointer_at
from captrain.disk.writing import write_text
from captrain.errors import ModelError, nearest
from captrain.models.adapters import (
    SAVED,
    attach_adapter,
    base_of,
    check_saved_whole,
    fetched,
    has_adapter,
    is_adapter,
    missing_base,
)  # fmt: skip
from captrain.models.captioner import CaptionerModel
from captrain.models.checkpoint.archive import is_archive, opened
from captrain.models.checkpoint.image_preparation import has_preparation, read_preparation, write_preparation
from captrain.models.checkpoint.loading import load_with_report, read_config
from captrain.models.checkpoint.located import EXTRAS, find_model_folder, is_cached, not_here, offline
from captrain.models.checkpoint.trusted_code import save_code
from captrain.models.checkpoint.weight_files import read_json
from captrain.models.decoding import Decoding
from captrain.models.vocabulary import has_tokenizer, load_tokenizer
from captrain.models.zoo import name_hint

FAMILIES = {
    "blip": "captrain.models.families.blip:BlipCaptioner",
    "blip-2": "captrain.models.families.blip2:Blip2Captioner",
    "encoder-decoder": "captrain.models.families.encoder_decoder:EncoderDecoderCaptioner",
    "git": "captrain.models.families.git:GitCaptioner",
    "prefix": "captrain.models.families.prefix.captioner:PrefixCaptioner",
}
"""Every family, and where its class is."""

MODEL_TYPES = {
    "blip": ("blip", "captrain.models.families.blip:BlipForConditionalGeneration"),
    "blip-2": ("blip-2", "transformers:Blip2ForConditionalGeneration"),
    "captrain_prefix": ("prefix", "captrain.models.families.prefix.model:PrefixModel"),
    "git": ("git", "captrain.models.families.git:GitForCausalLM"),
    "vision-encoder-decoder": ("encoder-decoder", "transformers:VisionEncoderDecoderModel"),
}
"""For each `model_type` of a config.json: the family, and the class that loads the weights."""

PROCESSORS = {
    "blip": "BlipImageProcessor",
    "blip-2": "BlipImageProcessor",
    "git": "CLIPImageProcessor",
    "crop": "CLIPImageProcessor",
    "squash": "ViTImageProcessor",
}
LONGEST_REASON = 300
LONGEST_PROMPT = 10_000  # characters; no decoder has room for so many


def load_captioner(
    source: str,
    quantize: BitsAndBytesConfig | None = None,
    base: str | None = None,
    *,
    adapter_learns: bool = False,
) -> CaptionerModel:
    """A captioner from a run folder, a model folder, an archive, a hub id or a short name; its config tells the family.

    Args:
        quantize: put the weights on the GPU in few bits (see `memory.quantization`).
        base: of an adapter, the model that it was trained on, in place of the one that it names.
        adapter_learns: let an adapter go on learning; of anything else nothing changes.

    Raises `ModelError` when there is no such checkpoint, when it is incomplete, or when it is of no known family.
    """
    source = find_model_folder(source)
    with clear_errors(source), opened(fetched(source)) as folder, clear_errors(folder):
        if base is not None and not is_adapter(folder):
            raise ModelError(f"{source}: is no adapter, so it has no base; leave --base out")
        if is_adapter(folder):
            captioner = _load_adapter(folder, quantize, base, adapter_learns)
        else:
            captioner = _assembled(*_load_weights(folder, quantize), folder, [folder])
    if is_archive(source):  # the unpacked folder is gone; an adapter's base may have been in it
        captioner.core().name_or_path = "" if has_adapter(captioner) else str(Path(source).absolute())
    return captioner.eval()


def _load_adapter(folder: str, quantize: BitsAndBytesConfig | None, base: str | None, learns: bool) -> CaptionerModel:
    """An adapter on its base. Tokenizer and image preparation are the base's where the adapter's folder has none."""
    named = base_of(folder) if base is None else find_model_folder(base)
    with opened(named) as place:
        if is_adapter(place):
            raise missing_base(folder, named, "is an adapter itself: export it merged, and give that")
        try:
            with offline() if base is None else nullcontext():
                model, family = _load_weights(place, quantize)
        except OSError as error:
            raise missing_base(
                folder, named, f"can't be had ({' '.join(str(error).split())[:LONGEST_REASON]})"
            ) from error
        if is_archive(named):
            model.name_or_path = str(Path(named).absolute())
        captioner = _assembled(model, family, folder if has_tokenizer(folder) else place, [folder, place])
    attach_adapter(captioner, folder, learns=learns)  # last: peft copies modules with the attention chosen for them
    return captioner


def _assembled(model: PreTrainedModel, family: str, words: str, places: Sequence[str]) -> CaptionerModel:
    """A captioner from its weights, the tokenizer in `words`, and what the first of some places says of the rest."""
    specs = (_preparation(place, needed=place == places[-1]) for place in places)
    spec = next(found for found in specs if found is not None)
    extras = next(filter(None, map(read_extras, places)), {})
    captioner = family_class(family)(model, load_tokenizer(words), spec)
    captioner.prompt = str(extras.get("prompt", ""))
    if len(captioner.prompt) > LONGEST_PROMPT:
        raise ModelError(f"{words}: its prompt has {len(captioner.prompt):,} characters, over {LONGEST_PROMPT:,}")
    captioner.decoding = Decoding.from_dict(extras.get("decoding", {}))
    captioner.origins = tuple(map(str, extras.get("origins", ())))
    _check_tokens(captioner, words)
    return captioner


def _check_tokens(captioner: CaptionerModel, source: str) -> None:
    """Raise `ModelError` where a caption would begin or end with a token that the decoder does not have.

    The tokens that no caption has must be numbers: transformers takes them as they are.
    """
    how = captioner.core().generation_config
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        tokens = getattr(how, name, None) or []
        if not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
            raise ModelError(
                f"{source}: generation_config.json has {name} {str(tokens)[:80]!r}; expected a list of numbers"
            )
    entries = int(cast(Any, captioner.decoder.get_input_embeddings()).weight.shape[0])
    for name, token in (("starts", captioner.start_id), ("ends", captioner.end_id)):
        if not 0 <= token < entries:
            raise ModelError(f"{source}: a caption {name} with token {token:,}, but its decoder has {entries:,} tokens")


def _preparation(place: str, needed: bool) -> ImageSpec | None:
    """The image preparation that a folder states, if it does; raises `ModelError` when it does not and is `needed`."""
    extras = read_extras(place)
    if "image_spec" in extras:
        return ImageSpec.from_dict(extras["image_spec"])
    return read_preparation(place) if needed or has_preparation(place) else None


def save_captioner(captioner: CaptionerModel, folder: Path) -> None:
    """Write weights (only the adapter's, if there is one), tokenizer, image preparation and captioning settings.

    The folder loads with `transformers` (or with `peft` on the base model) alone, and with `load_captioner`.
    """
    check_saved_whole(captioner)
    _check_base_has_a_place(captioner)
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = captioner.model
    model.save_pretrained(folder, **(SAVED if has_adapter(captioner) else {}))
    save_code(captioner.core(), folder)
    captioner.tokenizer.save_pretrained(folder)
    processor = PROCESSORS.get(captioner.family) or PROCESSORS[captioner.image_spec.resize]
    if captioner.image_spec.resize == "crop":
        processor = PROCESSORS["crop"]
    write_preparation(folder, captioner.image_spec, processor)
    extras = {
        "family": captioner.family,
        "prompt": captioner.prompt,
        "decoding": captioner.decoding.to_dict(),
        "image_spec": captioner.image_spec.to_dict(),
        **({"origins": list(captioner.origins)} if captioner.origins else {}),
    }
    write_text(folder / EXTRAS, json.dumps(extras, indent=2) + "\n")
    for weights in folder.glob("*.safetensors"):  # the library lets nobody but their owner read them
        weights.chmod(stat.S_IMODE((folder / EXTRAS).stat().st_mode))


def family_class(name: str) -> type[CaptionerModel]:
    """The class of a family, imported when asked for.

    >>> family_class("blip").__name__
    'BlipCaptioner'
    """
    if name not in FAMILIES:
        raise ModelError(f"unknown family '{name}'.{nearest(name, FAMILIES)} Families: {', '.join(FAMILIES)}")
    return cast(type[CaptionerModel], _import(FAMILIES[name]))


def holds_adapter(source: str) -> bool:
    """Whether a run folder, a model folder or an archive holds an adapter; see `load_captioner`."""
    with model_folder(source) as folder:
        return is_adapter(folder)


@contextmanager
def model_folder(source: str) -> Iterator[str]:
    """The folder that a model lies in while this is open, as `load_captioner` finds it; a hub id that is no adapter as it is."""
    with opened(fetched(find_model_folder(source))) as folder:
        yield folder


def read_extras(folder: str) -> dict[str, Any]:
    """What `captrain.json` adds to a checkpoint; nothing for one that captrain did not write."""
    path = Path(folder, EXTRAS)
    return read_json(path) if path.is_file() else {}


@contextmanager
def clear_errors(source: str) -> Iterator[None]:
    """Turn what the libraries raise for missing, broken or foreign checkpoints into one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # of every kind: OSError, KeyError, SafetensorError, validation errors, ...
        if pointer := pointer_at(Path(source)):
            raise ModelError(f"{pointer}: {POINTER}") from None
        if isinstance(error, OSError) and not Path(source).exists() and not is_cached(source):
            raise not_here(source) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if isinstance(error, UnpicklingError):
            reason = "its weights are a pickle that holds more than tensors, and nothing in one is run"
        hint = name_hint(source)
        raise ModelError(f"{source}: can't be loaded as a captioner: {reason[:LONGEST_REASON]}{hint}") from error


def _load_weights(source: str, quantize: BitsAndBytesConfig | None) -> tuple[PreTrainedModel, str]:
    """A checkpoint's model in fp32 (where it is not quantised), and its family. Raises when weights are missing from it."""
    config = read_config(source)
    if config.model_type not in MODEL_TYPES:
        raise ModelError(f"{source}: a '{config.model_type}' is of no known family; families: {', '.join(FAMILIES)}")
    family, place = MODEL_TYPES[config.model_type]
    expected = place.rpartition(":")[2]
    if config.architectures and expected not in config.architectures:
        raise ModelError(f"{source}: a {config.architectures[0]} writes no captions; expected a {expected}")
    how = {} if quantize is None else {"quantization_config": quantize, "device_map": {"": torch.cuda.current_device()}}
    model, info = load_with_report(_import(place), source, config, **how)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: incomplete, {len(missing)} weights are missing, first {missing[0]}; copy or download it again"
        )
    return model, family


def _check_base_has_a_place(captioner: CaptionerModel) -> None:
    """Raise `ModelError` for an adapter whose base is in memory alone: nobody could load what was saved."""
    model: Any = captioner.model
    if has_adapter(captioner) and not all(config.base_model_name_or_path for config in model.peft_config.values()):
        raise ModelError("the adapter's base is on no disk; save the base first, and load it from there")


def _import(place: str) -> Any:
    """An object by `module:name`."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
