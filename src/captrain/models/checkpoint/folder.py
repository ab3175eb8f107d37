"""Loading and saving captioners.

Plain transformers or peft can load what is written; `captrain.json` adds what they don't know.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from captrain.data.images import ImageSpec
from captrain.disk.reading import POINTER, pointer_at
from captrain.disk.writing import write_text
from captrain.errors import ModelError
from captrain.models.adapters import (
    SAVED,
    attach_adapter,
    base_of,
    check_saved_whole,
    fetched_adapter,
    has_adapter,
    is_adapter,
    missing_base,
)  # fmt: skip
from captrain.models.checkpoint.archive import is_archive, unpacked
from captrain.models.checkpoint.image_preparation import has_preparation, read_preparation, write_preparation
from captrain.models.checkpoint.loading import load_with_report, read_config
from captrain.models.checkpoint.located import EXTRAS, find_model_folder, is_cached, not_here, offline
from captrain.models.checkpoint.trusted_code import save_code
from captrain.models.checkpoint.weight_files import read_model_json
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.families import FAMILIES, Family, family_named, family_of_type, import_object
from captrain.models.vocabulary import has_tokenizer, load_tokenizer
from captrain.models.zoo import name_hint

CROPPING_PROCESSOR = "CLIPImageProcessor"
"""The image processor of transformers that crops, whatever the family."""
LONGEST_REASON = 300
LONGEST_PROMPT = 10_000  # characters; no decoder has positions for so many


def load_captioner(
    source: str,
    quantize: BitsAndBytesConfig | None = None,
    base: str | None = None,
    *,
    adapter_learns: bool = False,
) -> CaptionerModel:
    """A captioner from a run folder, a model folder, an archive, a hub id or a short name. Its config decides the family.

    Args:
        quantize: load the weights onto the GPU in few bits (see `learning_parts.quantization`).
        base: the model that an adapter was trained on, instead of the one that the adapter names.
        adapter_learns: let an adapter go on learning; it changes nothing for other models.

    Raises `ModelError` if there is no such checkpoint, if it is incomplete, or if it belongs to no known family.
    """
    source = find_model_folder(source)
    with clear_errors(source), unpacked(fetched_adapter(source)) as folder, clear_errors(folder):
        if base is not None and not is_adapter(folder):
            raise ModelError(f"{source}: is not an adapter, so it has no base; leave --base out")
        if is_adapter(folder):
            captioner = _load_adapter(folder, quantize, base, adapter_learns)
        else:
            captioner = _assembled(*_load_weights(folder, quantize), folder, [folder])
    if is_archive(source):  # the unpacked folder is gone; an adapter's base may have been in it
        captioner.core().name_or_path = "" if has_adapter(captioner) else str(Path(source).absolute())
    return captioner.eval()


def _load_adapter(folder: str, quantize: BitsAndBytesConfig | None, base: str | None, learns: bool) -> CaptionerModel:
    """An adapter on its base. If the adapter's folder has no tokenizer or image preparation, those of the base are used."""
    named = base_of(folder) if base is None else find_model_folder(base)
    with unpacked(named) as place:
        if is_adapter(place):
            raise missing_base(folder, named, "is an adapter itself: export it merged, and use the export as the base")
        try:
            with offline() if base is None else nullcontext():
                model, family = _load_weights(place, quantize)
        except OSError as error:
            raise missing_base(
                folder, named, f"can't be loaded ({' '.join(str(error).split())[:LONGEST_REASON]})"
            ) from error
        if is_archive(named):
            model.name_or_path = str(Path(named).absolute())
        captioner = _assembled(model, family, folder if has_tokenizer(folder) else place, [folder, place])
    attach_adapter(captioner, folder, learns=learns)  # last: peft copies modules with the attention chosen for them
    return captioner


def _assembled(model: PreTrainedModel, family: Family, words: str, places: Sequence[str]) -> CaptionerModel:
    """A captioner from its weights, the tokenizer in `words`, and the settings in the first of `places` that has some."""
    specs = (_preparation(place, needed=place == places[-1]) for place in places)
    spec = next(found for found in specs if found is not None)
    extras = next(filter(None, map(read_extras, places)), {})
    captioner: CaptionerModel = family.captioner_class()(model, load_tokenizer(words), spec)
    captioner.prompt = str(extras.get("prompt", ""))
    if len(captioner.prompt) > LONGEST_PROMPT:
        raise ModelError(f"{words}: its prompt has {len(captioner.prompt):,} characters, over {LONGEST_PROMPT:,}")
    captioner.decoding = Decoding.from_dict(extras.get("decoding", {}))
    captioner.origins = tuple(map(str, extras.get("origins", ())))
    _check_tokens(captioner, words)
    return captioner


def _check_tokens(captioner: CaptionerModel, source: str) -> None:
    """Raise `ModelError` if a caption would begin or end with a token that the decoder does not have.

    Suppressed tokens must be numbers: transformers does not check them.
    """
    how = getattr(captioner.core(), "generation_config", None)
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        tokens = getattr(how, name, None) or []
        if not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
            raise ModelError(
                f"{source}: generation_config.json has {name} {str(tokens)[:80]!r}; expected a list of numbers"
            )
    entries = int(cast(Any, captioner.decoder.get_input_embeddings()).weight.shape[0])
    for name, token in (("starts", captioner.start_id), ("ends", captioner.end_id)):
        if not 0 <= token < entries:
            raise ModelError(
                f"{source}: a caption {name} with token {token:,}, but its decoder has only {entries:,} tokens"
            )


def _preparation(place: str, needed: bool) -> ImageSpec | None:
    """The image preparation that a folder states. If it states none: None, or `ModelError` if it is `needed`."""
    extras = read_extras(place)
    if "image_spec" in extras:
        return ImageSpec.from_dict(extras["image_spec"])
    return read_preparation(place) if needed or has_preparation(place) else None


def save_captioner(captioner: CaptionerModel, folder: Path) -> None:
    """Write weights (only the adapter's, if there is one), tokenizer, image preparation and captioning settings.

    `transformers` alone (or `peft` on the base model) can load the folder, and so can `load_captioner`.
    """
    check_saved_whole(captioner)
    _check_base_has_a_place(captioner)
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = captioner.model
    model.save_pretrained(folder, **(SAVED if has_adapter(captioner) else {}))
    save_code(captioner.core(), folder)
    captioner.tokenizer.save_pretrained(folder)
    crops = captioner.image_spec.resize == "crop"
    processor = CROPPING_PROCESSOR if crops else family_named(captioner.family).image_processor
    write_preparation(folder, captioner.image_spec, processor)
    extras = {
        "family": captioner.family,
        "prompt": captioner.prompt,
        "decoding": captioner.decoding.to_dict(),
        "image_spec": captioner.image_spec.to_dict(),
        **({"origins": list(captioner.origins)} if captioner.origins else {}),
    }
    write_text(folder / EXTRAS, json.dumps(extras, indent=2) + "\n")
    for weights in folder.glob("*.safetensors"):  # the library makes them readable for their owner only
        weights.chmod(stat.S_IMODE((folder / EXTRAS).stat().st_mode))


def holds_adapter(source: str) -> bool:
    """Whether a run folder, a model folder or an archive holds an adapter; see `load_captioner`."""
    with model_folder(source) as folder:
        return is_adapter(folder)


@contextmanager
def model_folder(source: str) -> Iterator[str]:
    """The folder of a model, as `load_captioner` finds it; a hub id unchanged, unless it is an adapter's."""
    with unpacked(fetched_adapter(find_model_folder(source))) as folder:
        yield folder


def read_extras(folder: str) -> dict[str, Any]:
    """The content of `captrain.json`; empty for a checkpoint that captrain did not write."""
    path = Path(folder, EXTRAS)
    return read_model_json(path) if path.is_file() else {}


@contextmanager
def clear_errors(source: str) -> Iterator[None]:
    """Turn the libraries' errors about missing, broken or foreign checkpoints into a `ModelError` of one line."""
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
            reason = "its weights are a pickle that holds more than tensors, and captrain runs no code from pickles"
        hint = name_hint(source)
        raise ModelError(f"{source}: can't be loaded as a captioner: {reason[:LONGEST_REASON]}{hint}") from error


def _load_weights(source: str, quantize: BitsAndBytesConfig | None) -> tuple[PreTrainedModel, Family]:
    """The model of a checkpoint, in fp32 unless quantised, and its family. Raises `ModelError` if weights are missing."""
    config = read_config(source)
    family = family_of_type(config.model_type)
    if family is None:
        raise ModelError(
            f"{source}: a '{config.model_type}' belongs to no known family; families: {', '.join(FAMILIES)}"
        )
    place = family.checkpoints[config.model_type]
    expected = place.rpartition(":")[2]
    if config.architectures and expected not in config.architectures:
        raise ModelError(f"{source}: a {config.architectures[0]} is not a captioner; expected a {expected}")
    how = {} if quantize is None else {"quantization_config": quantize, "device_map": {"": torch.cuda.current_device()}}
    model, info = load_with_report(import_object(place), source, config, **how)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: incomplete, {len(missing)} weights are missing, first {missing[0]}; copy or download it again"
        )
    return model, family


def _check_base_has_a_place(captioner: CaptionerModel) -> None:
    """Raise `ModelError` for an adapter whose base is only in memory: nobody could load what was saved."""
    model: Any = captioner.model
    if has_adapter(captioner) and not all(config.base_model_name_or_path for config in model.peft_config.values()):
        raise ModelError("the adapter's base is not on disk; save the base first, and load it from there")
