"""ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) through DeepSpeed: its configuration, made from the settings."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def zero_configuration(stage: int, offload: bool, precision: torch.dtype) -> dict[str, Any]:
    """What DeepSpeed wants to know; what says "auto" Trainer fills in from its own arguments.

    bf16 is the captioner's own affair (weights stay in fp32, products are computed in bf16), as everywhere in captrain.

    >>> zero_configuration(2, False, torch.float32)["zero_optimization"]["stage"]
    2
    """
    sharing: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "overlap_comm": True}
    if offload:
        sharing["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if stage == 3:
        sharing["stage3_gather_16bit_weights_on_model_save"] = False
        if offload:
            sharing["offload_param"] = {"device": "cpu", "pin_memory": True}
    configuration: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": sharing,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if precision == torch.float16:
        configuration["fp16"] = {"enabled": "auto"}
    return configuration


def check_configuration(configuration: dict[str, Any]) -> None:
    """Have DeepSpeed's own schema judge the part that is about ZeRO. Raises pydantic's error for what it does not know."""
    schema = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    schema(**configuration["zero_optimization"])


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """While this is open each process has all weights of a module that ZeRO's stage 3 shared out."""
    gathered = importlib.import_module("deepspeed.zero").GatheredParameters
    with gathered(list(module.parameters()), modifier_rank=None):
        yield
