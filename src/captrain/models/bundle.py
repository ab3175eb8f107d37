"""Loading and saving captioners.

What is written, plain transformers or peft can load; `captrain.json` adds what they don't know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel

import captrain.models.prefix.model  # makes prefix captioners known to the Auto classes
import captrain.models.vision  # noqa: F401  # makes wrapped encoders known to the Auto classes
from captrain.data.images import ImageSpec
from captrain.errors import ModelError, nearest
from captrain.models.archive import is_archive, opened
from captrain.models.captioner import Captioner
from captrain.models.decoding import Decoding
from captrain.models.located import EXTRAS, find_model_folder, is_cached, looks_like_path, not_here
from captrain.models.preparation import read_json, read_preparation, write_preparation
from captrain.models.vocabulary import load_tokenizer
from captrain.models.zoo import name_hint
from captrain.records import write_text

FAMILIES = {
    "blip": "captrain.models.blip:BlipCaptioner",
    "blip-2": "captrain.models.blip2:Blip2Captioner",
    "encoder-decoder": "captrain.models.encoder_decoder:EncoderDecoderCaptioner",
    "git": "captrain.models.git:GitCaptioner",
    "prefix": "captrain.models.prefix.captioner:PrefixCaptioner",
}
"""Every family, and where its class is."""

MODEL_TYPES = {
    "blip": ("blip", "captrain.models.blip:BlipForConditionalGeneration"),
    "blip-2": ("blip-2", "transformers:Blip2ForConditionalGeneration"),
    "captrain_prefix": ("prefix", "captrain.models.prefix.model:PrefixModel"),
    "git": ("git", "captrain.models.git:GitForCausalLM"),
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


def load_captioner(source: str, quantize: BitsAndBytesConfig | None = None) -> Captioner:
    """A captioner from a run folder, a model folder, an archive, a hub id or a short name; its config tells the family.

    With `quantize` (see `memory.quantization`) the weights go to the GPU in few bits.

    Raises `ModelError` when there is no such checkpoint, when it is incomplete, or when it is of no known family.
    """
    source = find_model_folder(source)
    with opened(source) as folder, clear_errors(folder):
        captioner = _load_folder(folder, quantize)
    if is_archive(source):
        captioner.core().name_or_path = str(Path(source).absolute())  # the unpacked folder is gone
    return captioner.eval()


def _load_folder(folder: str, quantize: BitsAndBytesConfig | None) -> Captioner:
    """A captioner from a model folder or hub id."""
    adapter = Path(folder, "adapter_config.json")
    with opened(_base_of(adapter) if adapter.is_file() else folder) as base:
        model, family = _load_weights(base, quantize)
        extras = read_extras(folder)
        spec = ImageSpec.from_dict(extras["image_spec"]) if "image_spec" in extras else read_preparation(base)
    captioner = family_class(family)(model, load_tokenizer(folder), spec)
    captioner.prompt = str(extras.get("prompt", ""))
    captioner.decoding = Decoding.from_dict(extras.get("decoding", {}))
    if adapter.is_file():  # last, as peft copies modules with the attention that the captioner chose for them
        _check_adapter_weights(adapter.parent)
        captioner.model = PeftModel.from_pretrained(model, folder)
    return captioner


def save_captioner(captioner: Captioner, folder: Path) -> None:
    """Write weights (only the adapter's, if there is one), tokenizer, image preparation and captioning settings.

    The folder loads with `transformers` (or with `peft` on the base model) alone, and with `load_captioner`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = captioner.model
    adapter = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(folder, **adapter)
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
    }
    write_text(folder / EXTRAS, json.dumps(extras, indent=2) + "\n")


def family_class(name: str) -> type[Captioner]:
    """The class of a family, imported when asked for.

    >>> family_class("blip").__name__
    'BlipCaptioner'
    """
    if name not in FAMILIES:
        raise ModelError(f"unknown family '{name}'.{nearest(name, FAMILIES)} Families: {', '.join(FAMILIES)}")
    return cast(type[Captioner], _import(FAMILIES[name]))


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
        if isinstance(error, OSError) and not Path(source).exists() and not is_cached(source):
            raise not_here(source) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        hint = name_hint(source)
        raise ModelError(f"{source}: can't be loaded as a captioner: {reason[:LONGEST_REASON]}{hint}") from error


def _load_weights(source: str, quantize: BitsAndBytesConfig | None) -> tuple[PreTrainedModel, str]:
    """A checkpoint's model in fp32 (where it is not quantised), and its family. Raises when weights are missing from it."""
    config = AutoConfig.from_pretrained(source)
    if config.model_type not in MODEL_TYPES:
        raise ModelError(f"{source}: a '{config.model_type}' is of no known family; families: {', '.join(FAMILIES)}")
    family, place = MODEL_TYPES[config.model_type]
    expected = place.rpartition(":")[2]
    if config.architectures and expected not in config.architectures:
        raise ModelError(f"{source}: a {config.architectures[0]} writes no captions; expected a {expected}")
    how = {} if quantize is None else {"quantization_config": quantize, "device_map": {"": torch.cuda.current_device()}}
    model, info = _import(place).from_pretrained(source, dtype=torch.float32, output_loading_info=True, **how)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: incomplete, {len(missing)} weights are missing, first {missing[0]}; copy or download it again"
        )
    return model, family


def _base_of(adapter: Path) -> str:
    """The model an adapter was trained on: as its configuration says, or beside it in the run folder."""
    name = read_json(adapter).get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{adapter}: names no base model; expected base_model_name_or_path in it")
    inside, beside = adapter.parent / "base", adapter.parent.parent / "base"
    if name == inside.name and inside.is_dir():  # as exported
        return str(inside)
    if not Path(name).exists() and beside.is_dir():  # as in a run
        return str(beside)
    if not Path(name).exists() and looks_like_path(name):
        raise ModelError(f"{adapter}: its base model {name} is not there; put it back, or change the path in this file")
    return str(name)


def _check_adapter_weights(folder: Path) -> None:
    """Without this, peft would look for the folder's name on the hub."""
    if not any((folder / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise ModelError(f"{folder}: incomplete, adapter_model.safetensors is missing; copy or download it again")


def _import(place: str) -> Any:
    """An object by `module:name`."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
