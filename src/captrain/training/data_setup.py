"""From settings to training data: splits, features or pixels, captions as tokens, rows, and the rows of each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from captrain.data.dataset import Splits
from captrain.data.recipe_data import load_recipe_data, take_uncaptioned, tell_machine_captions, warn_of_leaks
from captrain.data.samples import Mixture
from captrain.errors import DataError, SettingsError
from captrain.features.cache import GIB, CacheOptions
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import MIRRORED, PLAIN, Images, Views
from captrain.models.contract import CaptionerModel
from captrain.paths import cache_folder
from captrain.settings.schema import DataSettings, Settings
from captrain.settings.schema.conflicts import needing_validation
from captrain.training.captions import MOST_AT_ONCE, StoredCaptions, TokenizedCaptions, VariedCaptions
from captrain.training.distributed.cache import cache_features_together
from captrain.training.distributed.group import here
from captrain.training.loop.batch_size import Batches
from captrain.training.resolve import augmentation, batches_of, caption_text, learning_rates, source_ratios
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


def load_data(settings: Settings, data: str | None) -> Splits:
    """The splits that the settings ask for, from the data set or from their sources. Counts pictures without a caption.

    Raises `SettingsError` if a setting needs validation pictures and there are none.
    """
    splits = load_recipe_data(settings.data, settings.training.seed, data)
    splits.uncaptioned = take_uncaptioned(splits.rejects)
    if not len(splits.validation) and (names := needing_validation(settings)):
        raise SettingsError(
            f"{', '.join(names)}: there is nothing to validate on, the data names no validation split and "
            f"validation_share is {settings.data.validation_share:g}; leave out what needs it, or give --validation-split"
        )
    warn_of_leaks(splits, settings.data)
    tell_machine_captions(splits, settings.data)
    return splits


def cache_images(captioner: CaptionerModel, splits: Splits, data: DataSettings, seed: int) -> dict[str, Images]:
    """Features or pixels of all training and validation pictures; bad pictures are rejected.

    If captions are generated from mirror images too, the mirrored features of validation pictures are cached as well.
    """
    budget = None if data.memory_budget is None else int(data.memory_budget * GIB)
    cache = CacheOptions(data.cache_features, cache_folder() / "kept", budget, data.workers, data.max_pixels)
    mirrors = captioner.decoding.mirror and not captioner.vision_learns()
    views = {"train": Views(data.views, augmentation(data), seed), "validation": MIRRORED if mirrors else PLAIN}
    pictures = {"train": splits.train, "validation": splits.validation}
    images = cache_features_together(here(), captioner, pictures, cache, splits.rejects, views)
    if not len(images["train"]):
        raise DataError(f"none of {len(splits.train)} training pictures can be used: {splits.rejects.summary()}")
    return images


def tokenize_captions(
    captioner: CaptionerModel, images: dict[str, Images], data: DataSettings
) -> dict[str, TokenizedCaptions]:
    """The captions of all images. All are cleaned; only training captions are varied."""
    text = caption_text(data)

    def of_split(images: Images) -> TokenizedCaptions:
        if isinstance(images, StoredImages) and len(images) > MOST_AT_ONCE:
            return StoredCaptions(captioner, images, data.max_tokens, text)
        return TokenizedCaptions(captioner, images.samples, data.max_tokens, text)

    return {name: of_split(images[name]) for name in images}


def prepare_data(captioner: CaptionerModel, splits: Splits, filled: Settings) -> TrainingData:
    """Images with their features or pixels, captions as tokens, and training rows made of both. Each is made once."""
    images = cache_images(captioner, splits, filled.data, filled.training.seed)
    captions = tokenize_captions(captioner, images, filled.data)
    rows = make_rows(filled, captioner, images["train"], captions["train"])
    return TrainingData(images, captions, rows, splits.sources())


def make_mixture(settings: Settings, data: TrainingData) -> Mixture:
    """The rows of each epoch. Raises `SettingsError` for a warm-up longer than the run."""
    images, captions = data.images["train"], data.captions["train"]
    training, batches = settings.training, batches_of(settings.training)
    mixture = Mixture(data.labels[images.taken], source_ratios(settings.data), captions.repeats, training.seed)
    if isinstance(images, StoredImages) and images.blocks is not None:
        mixture = BlockMixture(mixture, images.blocks)
    window, lengths = training.length_window, captions.lengths
    if window > 1 and lengths is not None and settings.data.captions_per_image == "all":
        mixture = LengthMixture(mixture, lengths, batches.step, window)
    learning_rates(training).warmup(steps_an_epoch(batches, mixture) * training.epochs)
    return mixture


def steps_an_epoch(batches: Batches, mixture: Mixture) -> int:
    """Steps of the optimizer in an epoch."""
    return math.ceil(math.ceil(len(mixture) / batches.images) / batches.accumulate)


def make_rows(
    settings: Settings, captioner: CaptionerModel, images: Images, captions: TokenizedCaptions
) -> TrainingRows:
    """Rows of captions. They are tokenised once, or again in each epoch if their words vary."""
    seed = settings.training.seed
    varied = VariedCaptions(captions, captioner, images.samples, seed) if captions.text.is_random else None
    return TrainingRows(varied or captions, settings.data.captions_per_image, seed)


def count(data: TrainingData) -> dict[str, int]:
    """How many images and captions each split has."""
    counts = {f"{split}_images": len(images) for split, images in data.images.items()}
    return counts | {f"{split}_captions": captions.total for split, captions in data.captions.items()}


def left_out(data: TrainingData, splits: Splits) -> dict[str, int]:
    """The number of captions that were cut, and of samples that are not used."""
    cut = sum(captions.cut for captions in data.captions.values())
    return {"cut_captions": cut, "rejected": len(splits.rejects), "uncaptioned": splits.uncaptioned}
