"""From a plan to training data: splits, features or pixels, captions as tokens, rows, and the rows of each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from captrain.data.dataset import Splits
from captrain.data.samples import Mixture
from captrain.errors import DataError
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import MIRRORED, PLAIN, Images
from captrain.models.contract import CaptionerModel
from captrain.training.captions import MOST_AT_ONCE, Captions, StoredCaptions, TokenizedCaptions, VariedCaptions
from captrain.training.distributed.cache import cache_features_together
from captrain.training.distributed.group import here
from captrain.training.loop.batch_size import Batches
from captrain.training.plan import CaptionRules, DataPlan, TrainingPlan
from captrain.training.rows import BlockMixture, LengthMixture, TrainingRows


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from and is measured on.

    Attributes:
        images, captions: by split ("train", "validation"), in the same order.
        rows: of the training split. labels: for each of its samples the number of its data set (samples,).
    """

    images: dict[str, Images]
    captions: dict[str, TokenizedCaptions]
    rows: TrainingRows
    labels: np.ndarray


def cache_images(captioner: CaptionerModel, splits: Splits, plan: DataPlan) -> dict[str, Images]:
    """Features or pixels of all training and validation pictures; bad pictures are rejected.

    If captions are generated from mirror images too, the mirrored features of validation pictures are cached as well.
    """
    mirrors = captioner.decoding.mirror and not captioner.vision_learns()
    views = {"train": plan.views, "validation": MIRRORED if mirrors else PLAIN}
    pictures = {"train": splits.train, "validation": splits.validation}
    images = cache_features_together(here(), captioner, pictures, plan.cache, splits.rejects, views)
    if not len(images["train"]):
        raise DataError(f"none of {len(splits.train)} training pictures can be used: {splits.rejects.summary()}")
    return images


def tokenize_captions(
    captioner: CaptionerModel, images: dict[str, Images], rules: CaptionRules
) -> dict[str, TokenizedCaptions]:
    """The captions of all images. All are cleaned; only training captions are varied."""

    def of_split(images: Images) -> TokenizedCaptions:
        if isinstance(images, StoredImages) and len(images) > MOST_AT_ONCE:
            return StoredCaptions(captioner, images, rules.max_tokens, rules.text)
        return TokenizedCaptions(captioner, images.samples, rules.max_tokens, rules.text)

    return {name: of_split(images[name]) for name in images}


def prepare_data(captioner: CaptionerModel, splits: Splits, plan: DataPlan) -> TrainingData:
    """Images with their features or pixels, captions as tokens, and training rows made of both. Each is made once."""
    images = cache_images(captioner, splits, plan)
    captions = tokenize_captions(captioner, images, plan.captions)
    shown: Captions = captions["train"]
    if plan.captions.text.is_random:
        shown = VariedCaptions(captions["train"], captioner, images["train"].samples, plan.seed)
    return TrainingData(images, captions, TrainingRows(shown, plan.captions_an_image, plan.seed), splits.sources())


def make_mixture(plan: TrainingPlan, data: TrainingData) -> Mixture:
    """The rows of each epoch. Raises `SettingsError` for a warm-up longer than the run."""
    images, captions = data.images["train"], data.captions["train"]
    order, batches, lengths = plan.order, plan.steps.batches, captions.lengths
    mixture = Mixture(data.labels[images.taken], order.ratios, captions.repeats, order.seed)
    if isinstance(images, StoredImages) and images.blocks is not None:
        mixture = BlockMixture(mixture, images.blocks)
    if order.length_window > 1 and lengths is not None:
        mixture = LengthMixture(mixture, lengths, batches.step, order.length_window)
    plan.learning.schedule.warmup(steps_an_epoch(batches, mixture) * plan.epochs)
    return mixture


def steps_an_epoch(batches: Batches, mixture: Mixture) -> int:
    """Steps of the optimizer in an epoch."""
    return math.ceil(math.ceil(len(mixture) / batches.images) / batches.accumulate)


def count(data: TrainingData) -> dict[str, int]:
    """How many images and captions each split has."""
    counts = {f"{split}_images": len(images) for split, images in data.images.items()}
    return counts | {f"{split}_captions": captions.total for split, captions in data.captions.items()}


def left_out(data: TrainingData, splits: Splits) -> dict[str, int]:
    """The number of captions that were cut, and of samples that are not used."""
    cut = sum(captions.cut for captions in data.captions.values())
    return {"cut_captions": cut, "rejected": len(splits.rejects), "uncaptioned": splits.uncaptioned}
