"""An image encoder alone: it computes the features that a captioner with this encoder would compute.

And the keys of cached arrays, from everything that decides them: encoder weights, image preparation, picture content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from captrain.data.feature_store.layout import EncoderNote, FeaturesNote
from captrain.data.images import Decode, ImageSpec
from captrain.errors import ModelError
from captrain.models.build import load_vision
from captrain.models.checkpoint.archive import is_archive
from captrain.models.checkpoint.folder import clear_errors, load_captioner
from captrain.models.checkpoint.image_preparation import Resize, adjust, read_preparation
from captrain.models.checkpoint.loading import read_config
from captrain.models.checkpoint.located import find_model_folder
from captrain.models.contract import CaptionerModel
from captrain.models.device import choose_device, choose_precision
from captrain.models.families import family_of_type
from captrain.models.families.prefix.mapper import Vectors
from captrain.models.families.prefix.model import vectors_of
from captrain.models.layers.vision import scale
from captrain.models.parts import plain_name

KINDS: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class Encoder:
    """An image encoder with everything that decides its vectors. `module` maps normalised pixels to (I, N, D)."""

    module: nn.Module
    spec: ImageSpec
    note: EncoderNote
    vectors: Vectors
    normalize: bool
    precision: torch.dtype
    device: torch.device

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Features (I, N, D) of pictures (I, height, width, 3), uint8, on this encoder's device, in its precision or fp32."""
        mean, std = (torch.tensor(values, device=self.device) for values in (self.spec.mean, self.spec.std))
        scaled = scale(pixels.to(self.device, non_blocking=True), mean, std)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            vectors = self.module(scaled)
        return nn.functional.normalize(vectors.float(), dim=-1) if self.normalize else vectors

    def features(self, dtype: str) -> FeaturesNote:
        """The shape of its features, by encoding a black picture."""
        made = self.encode(torch.zeros(1, self.spec.height, self.spec.width, 3, dtype=torch.uint8))
        return FeaturesNote(
            tokens=made.shape[1], width=made.shape[2], dtype=dtype, vectors=self.vectors, normalized=self.normalize
        )


class _ImageHalf(nn.Module):
    """The image encoder of a captioner, or one of transformers, as a module from pixels to vectors."""

    def __init__(self, half: CaptionerModel | PreTrainedModel, vectors: Vectors) -> None:
        super().__init__()
        self.encoder, self.vectors = half, vectors

    def forward(self, pixels: Tensor) -> Tensor:
        if isinstance(self.encoder, CaptionerModel):
            return self.encoder.encode_image(pixels)
        return vectors_of(self.encoder, pixels, self.vectors)


def open_encoder(
    source: str,
    *,
    vectors: Vectors = "all",
    normalize: bool = False,
    image_size: int | None = None,
    resize: Resize | None = None,
    decode: Decode | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Encoder:
    """An encoder from a folder or hub id: an image encoder, or a captioner (run folder, model folder) for its encoder.

    For a captioner, `vectors` is what its own decoder reads. Raises `ModelError` if there is no such encoder.
    """
    folder = find_model_folder(source)
    with clear_errors(folder):
        half: CaptionerModel | PreTrainedModel
        if _holds_captioner(folder):
            captioner = load_captioner(folder)
            config = captioner.core().config
            half, spec = captioner, adjust(captioner.image_spec, image_size, resize, decode)
            weights = weights_digest(vision_weights(captioner))
        else:
            config = read_config(folder)
            spec = adjust(read_preparation(folder, image_size), image_size, resize, decode)
            half = load_vision(folder, vectors, spec)
            weights = weights_digest(_own_weights(half))
    where = choose_device(device)
    module = _ImageHalf(half, vectors).eval().requires_grad_(False)
    module.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    note = EncoderNote(
        name=source, type=config.model_type, revision=getattr(config, "_commit_hash", None), weights=weights
    )
    return Encoder(module, spec, note, vectors, normalize, choose_precision(precision, where), where)


def _holds_captioner(folder: str) -> bool:
    """Whether a folder, archive or hub id is a captioner and not only an encoder. Adapters and archives always are."""
    if is_archive(folder) or Path(folder, "adapter_config.json").is_file():
        return True
    return family_of_type(read_config(folder).model_type) is not None


def on_device(encoder: Encoder, device: str) -> Encoder:
    """A copy of an encoder on another device."""
    import copy

    where = choose_device(device.partition(":")[0]) if device.partition(":")[0] else encoder.device
    place = torch.device(device) if ":" in device else where
    module = copy.deepcopy(encoder.module).to(place)
    return Encoder(module, encoder.spec, encoder.note, encoder.vectors, encoder.normalize, encoder.precision, place)


def vision_weights(captioner: CaptionerModel) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers of a captioner's image encoder, by the encoder's own names."""
    prefixes = sorted(captioner.part_prefixes()["vision"], key=len, reverse=True)
    for name, module in captioner.part_modules("vision"):
        plain = plain_name(name)
        prefix = next(one for one in prefixes if plain == one or plain.startswith(one + "."))
        inner = plain[len(prefix) :].lstrip(".")
        for kind, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            yield f"{inner}.{kind}".lstrip("."), tensor


def encoder_note(captioner: CaptionerModel) -> EncoderNote:
    """The note about a captioner's image encoder, named after the captioner, or if that is new, after its encoder."""
    configs = [module.config for _, module in captioner.part_modules("vision") if isinstance(module, PreTrainedModel)]
    names = [getattr(config, "name_or_path", "") for config in (captioner.core().config, *configs)]
    name = next(filter(None, names), type(captioner.core()).__name__)
    kind = configs[0].model_type if configs else ""
    return EncoderNote(name=name, type=kind, weights=weights_digest(vision_weights(captioner)))


def vectors_read(captioner: CaptionerModel) -> Vectors:
    """Which vectors of its encoder a captioner reads."""
    config = captioner.core().config
    said = getattr(config, "vectors", None) or getattr(getattr(config, "encoder", None), "vectors", None)
    return "pooled" if said == "pooled" else "all"


def _own_weights(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from encoder.named_parameters()
    yield from encoder.named_buffers()


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of weights by name, rounded to bf16, so that an encoder whose frozen weights are in bf16 has the same digest.

    Whole numbers (counters, positions) do not count: transformers versions differ in which of them are buffers.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights, key=lambda weight: weight[0]):
        if not tensor.is_floating_point():
            continue
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous().reshape(-1)
        digest.update(rounded.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_same_encoder(store: str, note: EncoderNote, name: str, weights: str) -> None:
    """Raise `ModelError` unless an encoder's weights are those that a store was made with."""
    if note.weights != weights:
        raise ModelError(
            f"{store}: holds features of {note}, not of {name} (weights {weights[:12]}); use the encoder that the store was "
            "made with, or encode the pictures with this one"
        )


PREPARATION_VERSION = 2
"""Incremented whenever `data.images.prepare` makes other pixels than before, so that no older array is used."""


def pixels_key(spec: ImageSpec) -> str:
    """A key of everything that decides a picture's pixels. Mean and deviation are applied later, by the encoder."""
    pixels = {name: value for name, value in spec.to_dict().items() if name not in ("mean", "std")}
    text = json.dumps([PREPARATION_VERSION, pixels], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def features_key(captioner: CaptionerModel) -> str:
    """A key of everything that decides features: weights, statistics, preparation, precision, and which vectors are used."""
    stated: list[Any] = [PREPARATION_VERSION, captioner.image_spec.to_dict(), str(captioner.precision)]
    if (vectors := vectors_read(captioner)) != "all":  # left out for `all`, so that older keys stay valid
        stated.append(vectors)
    digest = hashlib.blake2b(json.dumps(stated, sort_keys=True).encode(), digest_size=16)
    for name, module in captioner.part_modules("vision"):
        for kind, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            digest.update(f"{plain_name(name)}.{kind} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
