"""What a training goes by, in small types in which nothing is left open: a `None` in them says something, and is explained.

`resolve` makes them of the settings. What sets up the captioner, its data and its trainer takes these and knows no settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from captrain.data.caption_text import CaptionText
from captrain.features.cache import CacheOptions
from captrain.features.training_images import Views
from captrain.models.build import Mapper, NewDecoder, PreparationChanges
from captrain.models.decoding import Decoding
from captrain.models.families.prefix.mapper import Vectors
from captrain.models.lora import LoraOptions
from captrain.models.what_learns import Quantization
from captrain.training.distributed.strategy import Distribution
from captrain.training.held_out import FinalTest
from captrain.training.loop.batch_size import Batches
from captrain.training.loop.trainer import LearningPlan

# The captioner.


@dataclass(frozen=True, slots=True)
class FromCheckpoint:
    """A captioner that exists: a folder or hub id, and the base of its adapter (None: the one that the adapter names)."""

    source: str
    base: str | None = None


@dataclass(frozen=True, slots=True)
class FromParts:
    """A captioner joined from an encoder and a decoder.

    Attributes:
        decoder: a folder or hub id; None for the `new` one.
        vectors: what the decoder sees of an image, `all` or `pooled`.
        mapper: makes a prefix of the vectors; None where the decoder reads them by cross-attention.
        seed: of the new weights.
    """

    encoder: str
    decoder: str | None
    new: NewDecoder
    vectors: Vectors
    mapper: Mapper | None
    seed: int


@dataclass(frozen=True, slots=True)
class AllWeights:
    """All weights learn, except those of the `frozen` parts."""

    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewAdapters:
    """LoRA adapters learn, and beside them the modules that were never trained."""

    lora: LoraOptions
    fresh_modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """The adapter that the checkpoint has goes on learning."""


WhatLearns = AllWeights | NewAdapters | SavedAdapter


@dataclass(frozen=True, slots=True)
class Placement:
    """The device, the precision of its products, and how many bits frozen weights are stored in (None: as they are)."""

    device: torch.device
    precision: torch.dtype
    quantize: Quantization | None = None


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """How captions become tokens to learn.

    Attributes:
        text: what is done to their words. max_tokens: longer captions are cut.
        needs_room: refuse captions that are longer than the decoder holds, because the limit was asked for.
        accepts_lost_words: go on, however many words the tokenizer loses.
    """

    text: CaptionText
    max_tokens: int
    needs_room: bool = False
    accepts_lost_words: bool = False


@dataclass(frozen=True, slots=True)
class CaptionerStart:
    """The captioner that a run begins with.

    Attributes:
        origin, changes: where it comes from, and changes to its image preparation.
        prompt: None for that of the checkpoint, the data or the family.
        decoding: how it writes. asked_lengths: the names of the lengths in it that were asked for, so that they must fit.
    """

    origin: FromCheckpoint | FromParts
    changes: PreparationChanges
    learns: WhatLearns
    place: Placement
    captions: CaptionRules
    prompt: str | None
    decoding: Decoding
    asked_lengths: tuple[str, ...] = ()

    @property
    def continues(self) -> bool:
        """Whether the checkpoint's adapter goes on learning."""
        return isinstance(self.learns, SavedAdapter)


@dataclass(frozen=True, slots=True)
class Learning:
    """How the captioner learns in its forward pass.

    Attributes:
        what: the weights that learn. seed: of new adapters.
        groups_rows: read the rows of a batch in groups of similar length.
        recomputes: do not store activations for the backward pass. compiles: with torch.compile.
    """

    what: WhatLearns
    seed: int
    label_smoothing: float
    patch_dropout: float = 0.0
    groups_rows: bool = False
    recomputes: bool = False
    compiles: bool = False


# The data.


@dataclass(frozen=True, slots=True)
class DataPlan:
    """How pictures are cached and varied, and which captions they have.

    Attributes:
        captions_an_image: at most so many in an epoch, drawn by `seed`; None for all.
    """

    cache: CacheOptions
    views: Views
    captions: CaptionRules
    captions_an_image: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """Which images an epoch has, in which order.

    Attributes:
        ratios: of several data sets; None where all their images are shown once. length_window: batches sorted together.
    """

    seed: int
    ratios: Sequence[float] | None = None
    length_window: int = 1


# The steps, and what happens around them.


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step is. `log_every` is the number of steps between log lines; norms and shares of 0 turn a thing off."""

    batches: Batches
    seed: int
    max_gradient_norm: float
    word_dropout: float
    log_every: int


@dataclass(frozen=True, slots=True)
class CheckpointTimes:
    """Steps between checkpoints, and epochs between those at the end of epochs."""

    steps: int
    epochs: int


@dataclass(frozen=True, slots=True)
class ValidationPlan:
    """What is measured.

    Attributes:
        every_epochs: epochs between evaluations. limit: of images; None for all. shown: images whose captions are logged.
        metric: the score that chooses the best model. tokenizer: of scores.
        patience: stop after so many evaluations without a better score; None never stops.
    """

    every_epochs: int
    limit: int | None
    shown: int
    metric: str
    tokenizer: str
    patience: int | None


@dataclass(frozen=True, slots=True)
class TrackingPlan:
    """The trackers, the run's place in them, and the settings that they show."""

    trackers: tuple[str, ...]
    project: str
    run_name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The whole training from its first step on: a captioner and its data are there."""

    learning: LearningPlan
    steps: StepPlan
    order: EpochOrder
    checkpoints: CheckpointTimes
    validation: ValidationPlan
    tracking: TrackingPlan
    distribution: Distribution
    test: FinalTest

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        return self.learning.schedule.epochs
