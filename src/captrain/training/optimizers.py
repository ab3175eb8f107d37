"""From settings to an optimizer over a captioner's learning weights: AdamW of torch, others through their libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from transformers.optimization import Adafactor

from captrain.errors import SettingsError
from captrain.models.captioner import Captioner
from captrain.models.groups import parameter_groups
from captrain.models.parts import PARTS
from captrain.settings.schema import Settings, TrainingSettings
from captrain.settings.schema.optimisation import beta2_of, default_rate, schedule_of
from captrain.training.muon import MuonWithAdamW, lists_of_vectors
from captrain.training.schedules import check_ends

Groups = list[dict[str, Any]]
Betas = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """What captrain knows of an optimizer.

    Attributes:
        make: from a captioner, groups of its weights, the rate and betas to the optimizer.
        library: what has to be installed for it.
        devices: kinds of devices that it runs on.
    """

    make: Callable[[Captioner, Groups, float, Betas], Optimizer]
    library: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda", "mps", "xpu")


def _adamw(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Loshchilov and Hutter 2019, with one kernel for all weights where torch has it."""
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=captioner.device.type in ("cpu", "cuda"))


def _muon(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Jordan et al. 2024: matrices of layers take orthogonal steps, all else is AdamW's. Fewer epochs from scratch."""
    return MuonWithAdamW(groups, rate, betas, lists_of_vectors(captioner))


def _adamw_8bit(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Its two memories in 8 bits (Dettmers et al. 2022): a quarter of AdamW's memory. Small weights keep 32."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, lr=rate, betas=betas)


def _adafactor(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Shazeer and Stern 2018, with the rate that is given: a row and a column of memory a matrix, none of gradients."""
    return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)


def _lion(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Chen et al. 2023: steps of one size, half of AdamW's memory."""
    from lion_pytorch import Lion

    return Lion(groups, lr=rate, betas=betas)


def _schedule_free(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Defazio et al. 2024: the mean of all weights so far is what is validated and kept."""
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, lr=rate, betas=betas)


def _prodigy(captioner: Captioner, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Mishchenko and Defazio 2023: finds the rate itself; what is given multiplies it. Safe with a warm-up."""
    from prodigyopt import Prodigy

    return Prodigy(groups, lr=rate, betas=betas, safeguard_warmup=True)


KINDS: dict[str, Kind] = {
    "adamw": Kind(_adamw),
    "muon": Kind(_muon),
    "adamw-8bit": Kind(_adamw_8bit, "bitsandbytes", devices=("cpu", "cuda", "xpu")),
    "adafactor": Kind(_adafactor),
    "lion": Kind(_lion, "lion_pytorch"),
    "schedule-free": Kind(_schedule_free, "schedulefree"),
    "prodigy": Kind(_prodigy, "prodigyopt"),
}


def fill_optimizer(filled: Settings, asked: TrainingSettings, device: torch.device) -> Settings:
    """Settings with everything replaced that is `None` for the optimizer to decide.

    Args:
        filled: with the family's learning rate where none was asked for. asked: what the user said.

    Raises `SettingsError` where the optimizer is not installed or does not run on the device, or where the rates do not fit.
    """
    training = filled.training
    _check(KINDS[training.optimizer], training.optimizer, device)
    rate = float(training.learning_rate or 0)
    values = {
        "learning_rate": default_rate(training.optimizer, rate) if asked.learning_rate is None else rate,
        "beta2": beta2_of(training),
        "schedule": schedule_of(training),
    }
    training = training.model_copy(update=values)
    check_ends(training)
    return filled.model_copy(update={"training": training})


def _check(kind: Kind, name: str, device: torch.device) -> None:
    """Refuse an optimizer that can't work here, before anything is begun."""
    if kind.library and importlib.util.find_spec(kind.library) is None:
        raise SettingsError(f"optimizer {name}: needs {kind.library}, which is not here; pip install 'captrain[optim]'")
    if device.type not in kind.devices:
        raise SettingsError(
            f"optimizer {name}: runs on {', '.join(kind.devices)}, found {device.type}; take another optimizer or --device"
        )


def make_optimizer(captioner: Captioner, settings: Settings) -> Optimizer:
    """The optimizer of filled settings, with a group for each part and kind of weight; biases and norms do not decay."""
    training = settings.training
    rate = float(training.learning_rate or 0)
    part_rates = {part: own for part in PARTS if (own := getattr(training, f"{part}_learning_rate"))}
    groups = parameter_groups(
        captioner, rate, part_rates, training.weight_decay, settings.model.lora_plus, training.vision_layer_decay
    )
    return KINDS[training.optimizer].make(captioner, groups, rate, (training.beta1, float(training.beta2 or 0)))


def averaged_weights(optimizer: Optimizer | None) -> None:
    """Put the weights in place that are validated and saved. They differ from those that are trained with schedule-free alone.

    `Trainer` puts the others back before the next step.
    """
    if callable(switch := getattr(optimizer, "eval", None)):
        switch()
