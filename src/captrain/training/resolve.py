"""From the requested settings to those that a run uses: everything left open is decided here, once.

`fill_...` replaces `None` and "auto" by values; a run saves these filled settings. The other functions turn them into plain
values and small types, so that nothing further down knows the settings.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from captrain.data.augment import Augmentation
from captrain.data.caption_text import CaptionText
from captrain.errors import SettingsError
from captrain.models.adapters import lora_of
from captrain.models.contract import PARTS, CaptionerModel
from captrain.models.defaults import learning_rate_of
from captrain.models.device import PRECISIONS
from captrain.models.families import family_named, joined_family
from captrain.settings.schema import DataSettings, ModelSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import asked, frozen_of, method_of
from captrain.settings.schema.optimization import beta2_of, default_rate, schedule_of
from captrain.training.distributed.strategy import Distribution, ZeroSettings
from captrain.training.held_out import FinalTest
from captrain.training.loop.batch_size import Batches, MemorySettings
from captrain.training.loop.trainer import LearningPlan
from captrain.training.optimization.optimizers import Optimization, check_optimizer
from captrain.training.optimization.schedules import LAVIS, Schedule

T = TypeVar("T")


def fill_defaults(settings: Settings, captioner: CaptionerModel) -> Settings:
    """Settings with the model family's defaults filled in.

    Raises `SettingsError` if settings contradict an adapter that continues to learn.
    """
    model, training = settings.model, settings.training
    method = method_of(model)
    own = family_named(captioner.family)
    spec = captioner.image_spec
    return _updated(
        settings,
        model={
            **(_of_adapter(captioner, model) if model.continue_adapter else {}),
            "method": method,
            "freeze": frozen_of(model) if method == "full" else None,
            "image_size": spec.height,
            "resize": spec.resize,
            "decode": spec.decode,
            "image_vectors": model.image_vectors or joined_family(model.join).image_vectors,
            "precision": next(name for name, kind in PRECISIONS.items() if kind == captioner.precision),
        },
        training={
            "learning_rate": training.learning_rate or learning_rate_of(captioner.family, model),
            "label_smoothing": own.label_smoothing if training.label_smoothing is None else training.label_smoothing,
        },
        data={"prompt": captioner.prompt},
    )


def fill_optimizer(filled: Settings, requested: TrainingSettings, device: torch.device) -> Settings:
    """Settings with the optimizer's defaults filled in.

    Args:
        filled: with the family's learning rate where none was asked for. requested: what the user said.

    Raises `SettingsError` if the optimizer is not installed or does not run on the device, or if the rates do not fit.
    """
    training = filled.training
    check_optimizer(training.optimizer, device)
    rate = decided(training.learning_rate)
    filled = _updated(
        filled,
        training={
            "learning_rate": default_rate(training.optimizer, rate) if requested.learning_rate is None else rate,
            "beta2": beta2_of(training),
            "schedule": schedule_of(training),
        },
    )
    learning_rates(filled.training)
    return filled


def fill_batch_size(settings: Settings, images: int) -> Settings:
    """Settings with this batch size."""
    return _updated(settings, training={"batch_size": images})


def fill_tokenizer(settings: Settings, tokenizer: str) -> Settings:
    """Settings with this tokenizer of scores."""
    return _updated(settings, evaluation={"tokenize": tokenizer})


def learning_plan(filled: Settings) -> LearningPlan:
    """How the trainer learns and when it stops."""
    training = filled.training
    return LearningPlan(
        _optimization(filled),
        learning_rates(training),
        _memory(filled),
        metric=filled.evaluation.metric,
        max_bad_steps=training.max_bad_steps,
        average_decay=training.ema,
        target_modules=filled.model.target_modules,
    )


def learning_rates(training: TrainingSettings) -> Schedule:
    """The learning rate over the run. Raises `SettingsError` if it begins or ends above its peak."""
    peak, name = decided(training.learning_rate), decided(training.schedule)
    start = training.warmup_learning_rate
    if start is None:
        start = peak if name in LAVIS else 0.0
    return Schedule(
        name,
        peak,
        training.epochs,
        start=start,
        floor=training.min_learning_rate,
        warmup_steps=training.warmup_steps or 0,
        warmup_share=training.warmup if training.warmup_steps is None else 0.0,
        decay_rate=training.decay_rate,
        decay_epochs=training.decay_epochs,
    )


def batches_of(training: TrainingSettings) -> Batches:
    """The batches of a run whose batch size was decided."""
    if training.batch_size == "auto":
        raise ValueError("batch_size auto: was not filled in")
    return Batches(training.batch_size, training.accumulate)


def distribution_of(settings: Settings) -> Distribution:
    """What decides whether several processes can share the training."""
    training, distributed = settings.training, settings.distributed
    return Distribution(
        distributed.strategy,
        ZeroSettings(distributed.zero_stage, distributed.zero_offload),
        batch_size=0 if training.batch_size == "auto" else training.batch_size,
        optimizer=training.optimizer,
        quantizes=settings.model.quantize is not None,
        compiles=training.compile,
        averages=training.ema > 0,
    )


def final_test(filled: Settings) -> FinalTest:
    """How the best model is tested: without gradients twice as many pictures fit."""
    model, data, evaluation = filled.model, filled.data, filled.evaluation
    size = 2 * batches_of(filled.training).images
    return FinalTest(
        model.device, model.precision, size, data.workers, data.max_pixels, evaluation.metric, evaluation.tokenize
    )


def augmentation(data: DataSettings) -> Augmentation | None:
    """How training pictures are varied; None if they are not."""
    found = Augmentation(crop_scale=data.crop_scale, flip=data.flip, randaugment=data.randaugment)
    return found if found.is_random else None


def caption_text(data: DataSettings) -> CaptionText:
    """What is done to the words of captions."""
    return CaptionText(
        lower_case=data.lower_case,
        strip_punctuation=data.strip_punctuation,
        max_words=data.max_words,
        prefix=data.prefix,
        suffix=data.suffix,
        replace=tuple(_pair(pair) for pair in data.replace),
        remove_words=data.remove_words,
        shuffle_tags=data.shuffle_tags,
        keep_tags=data.keep_tags,
        drop_tags=data.drop_tags,
        drop_captions=data.drop_captions,
    )


def source_ratios(data: DataSettings) -> list[float] | None:
    """The ratios of several data sets; None where all their images are shown once an epoch."""
    ratios = [source.ratio for source in data.sources if source.ratio is not None]
    return ratios or None


def _optimization(filled: Settings) -> Optimization:
    """The optimizer, and the rate and decay of each part."""
    training = filled.training
    return Optimization(
        training.optimizer,
        decided(training.learning_rate),
        (training.beta1, decided(training.beta2)),
        training.weight_decay,
        {part: own for part in PARTS if (own := getattr(training, f"{part}_learning_rate"))},
        filled.model.lora_plus,
        training.vision_layer_decay,
    )


def _memory(filled: Settings) -> MemorySettings:
    """The settings to change when a run is out of memory."""
    model, data, generation = filled.model, filled.data, filled.generation
    return MemorySettings(
        batches_of(filled.training),
        decided(model.image_size),
        model.precision,
        model.checkpoint_activations,
        data.captions_per_image,
        data.max_tokens,
        generation.beams,
        generation.max_new_tokens,
    )


def _of_adapter(captioner: CaptionerModel, model: ModelSettings) -> dict[str, Any]:
    """Settings of an adapter that continues to learn. Raises `SettingsError` if something else was asked for."""
    own = lora_of(captioner)
    for name in asked(model, *own):
        if getattr(model, name) != own[name]:
            raise SettingsError(
                f"{name}: found {getattr(model, name)}, but the adapter of {model.model} has {own[name]}; leave it out, "
                "or leave --continue-adapter out for a new adapter"
            )
    return own


def decided(value: T | None) -> T:
    """A value that filled settings have."""
    if value is None:
        raise ValueError("a setting was not filled in")
    return value


def _updated(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """Settings with other values, by section."""
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()}
    )


def _pair(text: str) -> tuple[str, str]:
    """`old=new` as a pair.

    >>> _pair("dog=hound")
    ('dog', 'hound')
    """
    old, _, new = text.partition("=")
    return old, new
