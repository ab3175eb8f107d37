"""CLIPScore and RefCLIPScore (Hessel et al. 2021): how well a caption fits its picture, as a CLIP model sees it.

Numbers of different checkpoints can't be compared; papers use `openai/clip-vit-base-patch32`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.bundle import clear_errors
from captrain.models.device import choose_device
from captrain.models.loading import class_for, load_model, read_config
from captrain.models.located import find_model_folder
from captrain.models.preparation import read_preparation
from captrain.models.vocabulary import load_tokenizer

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
        """Vectors (I, D) of pictures that were prepared by `spec`: uint8 (I, height, width, 3)."""
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
