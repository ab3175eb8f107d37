"""How several processes share a model: DDP, FSDP2, or DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054).

A trainer asks a `Strategy` at the few places where it matters. `check_distribution` and `check_batch_size` refuse early what
can't work.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from captrain.errors import SettingsError
from captrain.models.contract import CaptionerModel
from captrain.training.distributed import sharding
from captrain.training.distributed.group import ProcessGroup


@dataclass(frozen=True, slots=True)
class ZeroSettings:
    """What DeepSpeed's ZeRO shards (`stage` 1, 2 or 3), and whether it keeps that in main memory (`offload`)."""

    stage: int = 2
    offload: bool = False


class Strategy:
    """The whole model in each process: one process alone, or DDP (which accelerate wraps it in)."""

    shares_optimizer = False

    def __init__(self, group: ProcessGroup, zero: ZeroSettings = ZeroSettings()) -> None:
        self.group, self.zero = group, zero

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        """Further training arguments. Processes other than the first log no more than it does."""
        return {"log_level_replica": "passive"}

    def share_out(self, captioner: CaptionerModel) -> None:
        """Shard the weights, before the optimizer is made."""

    def wrapped(self, captioner: CaptionerModel) -> nn.Module | None:
        """What a trainer steps with; None to leave that to accelerate."""
        return None

    def whole_in_first(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        """In this context the first process can save the captioner. All processes must enter it together."""
        return nullcontext()

    def whole_in_all(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        """In this context each process can generate captions by itself. All processes must enter it together."""
        return nullcontext()

    def whole_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as it would be in one process."""
        return optimizer.state_dict()

    def own_state(self, optimizer: Optimizer, whole: dict[str, Any]) -> dict[str, Any]:
        """This process's share of that state."""
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
    """DeepSpeed, driven by Trainer. It writes one file of optimizer state per process, and resumes with as many processes."""

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        configuration = zero_configuration(self.zero, precision)
        check_configuration(configuration)
        return {**super().arguments(precision), "deepspeed": configuration}

    def whole_in_first(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return self.whole_in_all(captioner)

    def whole_in_all(self, captioner: CaptionerModel) -> AbstractContextManager[None]:
        return gathered_weights(captioner) if self.zero.stage == 3 else nullcontext()


STRATEGIES: dict[str, type[Strategy]] = {"ddp": Strategy, "fsdp": Sharding, "deepspeed": Zero}


def make_strategy(name: str, zero: ZeroSettings, group: ProcessGroup) -> Strategy:
    """The strategy of a name, one of `STRATEGIES`; a single process shards nothing."""
    return (STRATEGIES[name] if group.size > 1 else Strategy)(group, zero)


def zero_configuration(zero: ZeroSettings, precision: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration. Trainer fills in the values "auto" from its own arguments.

    As everywhere in captrain, the captioner handles bf16 itself: weights stay in fp32, products are computed in bf16.

    >>> zero_configuration(ZeroSettings(stage=2), torch.float32)["zero_optimization"]["stage"]
    2
    """
    sharing: dict[str, Any] = {"stage": zero.stage, "contiguous_gradients": True, "overlap_comm": True}
    if zero.offload:
        sharing["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if zero.stage == 3:
        sharing["stage3_gather_16bit_weights_on_model_save"] = False
        if zero.offload:
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
    """Check the ZeRO section against DeepSpeed's own schema. Raises pydantic's error for unknown keys."""
    schema = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    schema(**configuration["zero_optimization"])


@contextmanager
def gathered_weights(module: nn.Module) -> Iterator[None]:
    """In this context each process has all weights of a module that ZeRO's stage 3 sharded."""
    gathered = importlib.import_module("deepspeed.zero").GatheredParameters
    with gathered(list(module.parameters()), modifier_rank=None):
        yield


@dataclass(frozen=True, slots=True)
class Distribution:
    """What decides whether several processes can share a training."""

    strategy: str = "ddp"
    zero: ZeroSettings = ZeroSettings()
    optimizer: str = "adamw"
    quantizes: bool = False
    compiles: bool = False
    averages: bool = False


def check_batch_size(images: int, size: int) -> None:
    """Raise `SettingsError` unless `size` processes can share out a batch of so many images evenly.

    >>> check_batch_size(6, 4)
    Traceback (most recent call last):
    captrain.errors.SettingsError: batch_size 6: can't be shared out evenly over 4 devices; expected a multiple of 4, such as 8
    """
    if images % size:
        raise SettingsError(
            f"batch_size {images}: can't be shared out evenly over {size} devices; "
            f"expected a multiple of {size}, such as {-(-images // size) * size}"
        )


def check_distribution(training: Distribution, device: str) -> None:
    """Raise `SettingsError` unless processes on this kind of device can share the training.

    >>> check_distribution(Distribution("deepspeed"), "cpu")
    Traceback (most recent call last):
    captrain.errors.SettingsError: strategy deepspeed: needs GPUs (cuda), found cpu; use --strategy ddp or fsdp here
    """
    if training.strategy != "ddp":
        _check_sharing(training)
    if training.strategy == "deepspeed":
        _check_deepspeed(device)
    elif training.zero.offload:
        raise SettingsError("zero_offload: is for --strategy deepspeed alone; leave it out, or add that")


def _check_sharing(training: Distribution) -> None:
    """Refuse settings that need all weights in each process."""
    strategy = training.strategy
    if training.quantizes:
        raise SettingsError(f"strategy {strategy}: quantised weights can't be shared out; use --strategy ddp")
    if training.compiles:
        raise SettingsError(
            f"strategy {strategy}: can't compile weights that are shared out; leave --compile out, or use ddp"
        )
    if training.averages:
        raise SettingsError(
            f"strategy {strategy}: can't average weights that are shared out; leave --ema out, or use ddp"
        )
    if training.optimizer != "adamw":
        raise SettingsError(
            f"strategy {strategy}: can only shard the state of optimizer adamw, found {training.optimizer}; use that, "
            "or --strategy ddp"
        )


def _check_deepspeed(device: str) -> None:
    """Refuse a machine on which DeepSpeed can't run."""
    if device != "cuda":
        raise SettingsError(f"strategy deepspeed: needs GPUs (cuda), found {device}; use --strategy ddp or fsdp here")
    if importlib.util.find_spec("deepspeed") is None:
        raise SettingsError("strategy deepspeed: DeepSpeed is not installed; pip install 'captrain[deepspeed]'")
