"""Settings in which every open end is decided: what a run writes into `settings.yaml`, and goes on by.

`fill_...` replaces `None` and "auto" by values as they become known: with the captioner, the device and the data.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from captrain.errors import SettingsError
from captrain.models.adapters import lora_of
from captrain.models.contract import CaptionerModel
from captrain.models.defaults import learning_rate_of
from captrain.models.device import PRECISIONS
from captrain.models.families import family_named, joined_family
from captrain.settings.schema import ModelSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import asked, frozen_of, method_of
from captrain.settings.schema.optimization import beta2_of, default_rate, schedule_of
from captrain.training.optimization.optimizers import check_optimizer
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


def fill_batch_size(settings: Settings, images: int) -> Settings:
    """Settings with this batch size."""
    return _updated(settings, training={"batch_size": images})


def fill_tokenizer(settings: Settings, tokenizer: str) -> Settings:
    """Settings with this tokenizer of scores."""
    return _updated(settings, evaluation={"tokenize": tokenizer})


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


def decided_of(requested: Settings, filled: Settings) -> dict[str, dict[str, Any]]:
    """By section, the settings that were left open and are decided now, as plain values."""
    asked_for, known = requested.model_dump(mode="json"), filled.model_dump(mode="json")
    return {
        name: {leaf: value for leaf, value in section.items() if value != asked_for[name][leaf]}
        for name, section in known.items()
    }
