"""How a model is spread over the processes of a group: what a trainer asks at the few places where it matters.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) through DeepSpeed: its configuration, made from the settings.

Whether a training can be spread as the settings say: asked before anything is begun.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from captrain.errors import SettingsError
from captrain.models.captioner import CaptionerModel
from captrain.settings.schema import Settings
from captrain.settings.schema.training import DistributedSettings
from captrain.training.distributed import sharding
from captrain.training.distributed.group import Group


class Strategy:
    """The whole model in each process: one process alone, or DDP (which accelerate wraps it in)."""

    shares_optimizer = False

    def __init__(self, settings: DistributedSettings, group: Group) -> None:
        self.settings, self.group = settings, group

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        """Further arguments of the trainer. Processes that do not write are no louder than the first."""
        return {"log_level_replica": "passive"}

    def share_out(self, captioner: CaptionerModel) -> None:
        """Share out the weights, before there is an optimizer of them."""

    def wrapped(self, captioner: CaptionerModel) -> nn.Module | None:
        """What a trainer steps with; None to leave that to accelerate."""
        return None

    def whole_in_first(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        """While this is open the first process can save the captioner. For all processes, at the same time."""
        return nullcontext()

    def whole_in_all(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        """While this is open each process can write captions by itself. For all processes, at the same time."""
        return nullcontext()

    def whole_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as it would be in one process."""
        return optimizer.state_dict()

    def own_state(self, optimizer: Optimizer, whole: dict[str, Any]) -> dict[str, Any]:
        """What this process needs of that."""
        return whole


class Sharding(Strategy):
    """FSDP2. Checkpoints are the same as without it."""

    shares_optimizer = True

    def share_out(self, captioner: CaptionerModel) -> None:
        sharding.share_out(captioner, self.group)

    def wrapped(self, captioner: CaptionerModel) -> nn.Module | None:
        return sharding.Shared(captioner)

    def whole_in_first(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return sharding.whole_in_first(captioner, self.group)

    def whole_in_all(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return sharding.whole_in_all(captioner)

    def whole_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return sharding.whole_state(optimizer)

    def own_state(self, optimizer: Optimizer, whole: dict[str, Any]) -> dict[str, Any]:
        return sharding.shared_state(optimizer, whole)


class Zero(Strategy):
    """DeepSpeed, which Trainer brings; it keeps the optimizer's state in files of its own, for the same number of processes."""

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        configuration = zero_configuration(self.settings.zero_stage, self.settings.zero_offload, precision)
        check_configuration(configuration)
        return {**super().arguments(precision), "deepspeed": configuration}

    def whole_in_first(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return self.whole_in_all(captioner)

    def whole_in_all(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return whole(captioner) if self.settings.zero_stage == 3 else nullcontext()


STRATEGIES: dict[str, type[Strategy]] = {"ddp": Strategy, "fsdp": Sharding, "deepspeed": Zero}


def strategy_of(settings: DistributedSettings, group: Group) -> Strategy:
    """As the settings say; a process alone shares nothing out."""
    return (STRATEGIES[settings.strategy] if group.size > 1 else Strategy)(settings, group)


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


def check_spread(settings: Settings, size: int, device: str) -> None:
    """Raise `SettingsError` unless `size` processes on this kind of device can share the training.

    >>> from captrain.settings.schema import TrainingSettings
    >>> check_spread(Settings(training=TrainingSettings(batch_size=6)), 4, "cuda")
    Traceback (most recent call last):
    captrain.errors.SettingsError: batch_size 6: can't be shared out evenly over 4 devices; expected a multiple of 4, such as 8
    """
    batch = settings.training.batch_size
    if batch != "auto" and batch % size:
        raise SettingsError(
            f"batch_size {batch}: can't be shared out evenly over {size} devices; "
            f"expected a multiple of {size}, such as {-(-batch // size) * size}"
        )
    if settings.distributed.strategy != "ddp":
        _check_sharing(settings)
    if settings.distributed.strategy == "deepspeed":
        _check_deepspeed(device)
    elif settings.distributed.zero_offload:
        raise SettingsError("zero_offload: is for --strategy deepspeed alone; leave it out, or add that")


def _check_sharing(settings: Settings) -> None:
    """What needs the weights whole in each process."""
    strategy = settings.distributed.strategy
    if settings.model.quantize:
        raise SettingsError(f"strategy {strategy}: quantised weights can't be shared out; use --strategy ddp")
    if settings.training.compile:
        raise SettingsError(
            f"strategy {strategy}: can't compile weights that are shared out; leave --compile out, or use ddp"
        )
    if settings.training.ema:
        raise SettingsError(
            f"strategy {strategy}: can't average weights that are shared out; leave --ema out, or use ddp"
        )
    if settings.training.optimizer != "adamw":
        raise SettingsError(
            f"strategy {strategy}: shares out the memory of optimizer adamw only, found "
            f"{settings.training.optimizer}; use that, or --strategy ddp"
        )


def _check_deepspeed(device: str) -> None:
    """What DeepSpeed needs."""
    if device != "cuda":
        raise SettingsError(f"strategy deepspeed: needs GPUs (cuda), found {device}; use --strategy ddp or fsdp here")
    if importlib.util.find_spec("deepspeed") is None:
        raise SettingsError("strategy deepspeed: DeepSpeed is not installed; pip install 'captrain[deepspeed]'")
