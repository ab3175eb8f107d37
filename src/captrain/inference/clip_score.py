"""CLIPScore and RefCLIPScore (Hessel et al. 2021): how well a caption fits its picture, as a CLIP model sees it.

Pictures are found in a folder by the captions' ids. Scores of different checkpoints can't be compared; papers use
`openai/clip-vit-base-patch32`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import MAX_PIXELS, ImageSpec
from captrain.data.safe_paths import IMAGE_SUFFIXES, Root
from captrain.errors import DataError, ModelError
from captrain.features.stream import batches, stream_pictures
from captrain.metrics.matching import match_ids, some
from captrain.models.checkpoint.folder import clear_errors
from captrain.models.checkpoint.image_preparation import read_preparation
from captrain.models.checkpoint.loading import class_for, load_model, read_config
from captrain.models.checkpoint.located import find_model_folder
from captrain.models.device import choose_device
from captrain.models.vocabulary import load_tokenizer
from captrain.progress import track
from captrain.records import Rejects, Sample

PREFIX = "A photo depicts "
WEIGHT = 2.5
CLIP_TYPES = ("clip", "chinese_clip", "metaclip_2", "altclip", "siglip", "siglip2")
"""Model types of two towers whose vectors are compared by cosine. The weight of 2.5 was chosen for `clip`."""

Array = np.ndarray


@dataclass(frozen=True)
class Clip:
    """A CLIP model in fp32: pictures and captions as vectors of length 1, in one space."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: ImageSpec

    @classmethod
    def load(cls, source: str, device: str = "auto") -> Clip:
        """From a folder or hub id. Raises `ModelError` when it is not there, broken, or no CLIP model."""
        folder = find_model_folder(source)
        with clear_errors(source):
            config = read_config(folder)
            kind = config.model_type
            if kind not in CLIP_TYPES:
                raise ModelError(f"{source}: is a '{kind}', expected a CLIP model ({', '.join(CLIP_TYPES)})")
            model = load_model(class_for(AutoModel, config), folder, config)
            spec = read_preparation(folder, model.config.vision_config.image_size)
            return cls(
                source, model.to(choose_device(device)).eval().requires_grad_(False), load_tokenizer(folder), spec
            )

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Array:
        """Vectors (I, D) of pictures prepared as `spec` says: uint8 (I, height, width, 3)."""
        scaled = pixels.to(self.model.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=scaled.device).view(1, -1, 1, 1) for values in (self.spec.mean, self.spec.std)
        )
        model: Any = self.model
        return _unit(model.get_image_features(pixel_values=(scaled - mean) / std))

    @torch.no_grad()
    def read(self, captions: Sequence[str], batch_size: int = 64) -> Array:
        """Vectors (C, D) of captions, each behind "A photo depicts ". What the model can't hold is cut off."""
        model: Any = self.model
        longest = model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(captions), batch_size):
            texts = [PREFIX + caption for caption in captions[start : start + batch_size]]
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            parts.append(_unit(model.get_text_features(**tokens.to(self.model.device))))
        return np.concatenate(parts)


def clip_scores(pictures: Array, captions: Array) -> Array:
    """2.5 times the cosine of each caption and its picture, not below 0: (I, D), (I, D) -> (I,).

    >>> clip_scores(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.6, 0.8], [-1.0, 0.0]])).tolist()
    [1.5, 0.0]
    """
    return WEIGHT * np.clip((pictures * captions).sum(axis=1), 0, None)


def ref_clip_scores(scores: Array, captions: Array, references: Sequence[Array]) -> Array:
    """The harmonic mean of each CLIPScore and of the caption's cosine with its nearest reference, not below 0.

    Args:
        scores: CLIPScores (I,). captions: their vectors (I, D). references: for each picture, vectors (R, D).

    >>> caption, reference = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.5, 0.0]])
    >>> ref_clip_scores(np.array([1.0]), caption, [reference]).round(4).tolist()
    [0.6667]
    """
    cosines = [float((vectors @ caption).max()) for caption, vectors in zip(captions, references, strict=True)]
    nearest = np.clip(np.array(cosines), 0, None)
    total = scores + nearest
    return np.divide(2 * scores * nearest, total, out=np.zeros_like(total), where=total > 0)


def _unit(features: Any) -> Array:
    """Features as a model gives them (a tensor, or an output that holds one), each of length 1."""
    vectors: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy().astype(np.float64)


def find_pictures(folder: Path, ids: Sequence[str], *, follow_links: bool = False) -> list[Sample]:
    """A picture below a folder for each id, matched as ids of captions are.

    Raises `DataError` when there is no such folder, a picture is missing, or an id fits two.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the folder of the pictures that the captions describe")
    faults = dict(_pictures(Root(folder, follow_links=follow_links)))
    found = match_ids(ids, dict.fromkeys(faults))
    if found.extra:
        raise DataError(
            f"{folder}: {len(found.extra)} of {len(ids)} captions have no picture here ({some(found.extra)})"
        )
    for name in found.pairs.values():
        if faults[name]:
            raise DataError(f"{folder}: '{name}' {faults[name]}")
    return [Sample(id, folder / name, source=str(folder / name)) for id, name in found.pairs.items()]


def score_clip(
    clip: Clip,
    pictures: Sequence[Sample],
    systems: Sequence[Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    rejects: Rejects,
    batch_size: int = 16,
) -> list[dict[str, dict[str, float]]]:
    """For each system `{"clip_score": {id: score}, "ref_clip_score": {id: score}}`, all computed with pictures seen once.

    Pictures that can't be read go to `rejects`, and their ids are missing from the scores.
    """
    ids, seen = _see(clip, pictures, rejects, batch_size)
    if not ids:
        raise DataError(f"none of {len(pictures)} pictures could be read: {rejects.summary()}")
    flat = clip.read([caption for id in ids for caption in references[id]])
    ends = np.cumsum([len(references[id]) for id in ids])
    vectors = np.split(flat, ends[:-1])
    found = []
    for captions in systems:
        written = clip.read([captions[id] for id in ids])
        scores = clip_scores(seen, written)
        with_references = ref_clip_scores(scores, written, vectors)
        found.append(
            {
                name: dict(zip(ids, map(float, values), strict=True))
                for name, values in (("clip_score", scores), ("ref_clip_score", with_references))
            }
        )
    return found


def _see(clip: Clip, pictures: Sequence[Sample], rejects: Rejects, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Ids and vectors of the pictures that can be read."""
    ids: list[str] = []
    vectors = []
    with track("look", len(pictures)) as advance:
        for group, pixels in batches(stream_pictures(pictures, clip.spec, rejects, max_pixels=MAX_PIXELS), batch_size):
            ids += [pictures[picture.index].id for picture in group]
            vectors.append(clip.see(pixels))
            advance(len(group))
    return ids, np.concatenate(vectors) if vectors else np.zeros((0, 0))


def _pictures(root: Root) -> Iterator[tuple[str, str]]:
    """The paths of the pictures below a folder, each with why it can't be read, or ""."""
    folders, left = root.folders(), [""]
    while left:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError as error:
            raise DataError(f"{root.folder / prefix}: can't be listed ({error.strerror})") from None
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        for entry in entries:
            if not entry.is_folder and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield prefix + entry.name, entry.fault
