"""From settings to an optimizer over a captioner's learning weights."""

from __future__ import annotations

import torch

from captrain.models.adapt import parameter_groups
from captrain.models.captioner import PARTS, Captioner
from captrain.settings.schema import Settings


def make_optimizer(captioner: Captioner, settings: Settings) -> torch.optim.Optimizer:
    """AdamW with a group for each part and kind of weight; biases and norms do not decay."""
    training = settings.training
    rate = float(training.learning_rate or 0)
    part_rates = {part: own for part in PARTS if (own := getattr(training, f"{part}_learning_rate"))}
    return torch.optim.AdamW(
        parameter_groups(captioner, rate, part_rates, training.weight_decay, settings.model.lora_plus),
        lr=rate,
        betas=(0.9, training.beta2),
        fused=captioner.device.type in ("cpu", "cuda"),
    )
