"""How a model is spread over the processes of a group: what a trainer asks at the few places where it matters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from captrain.models.captioner import Captioner
from captrain.settings.schema.distributed import DistributedSettings
from captrain.training.distributed import deepspeed, sharding
from captrain.training.distributed.group import Group


class Strategy:
    """The whole model in each process: one process alone, or DDP (which accelerate wraps it in)."""

    shares_optimizer = False

    def __init__(self, settings: DistributedSettings, group: Group) -> None:
        self.settings, self.group = settings, group

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        """Further arguments of the trainer. Processes that do not write are no louder than the first."""
        return {"log_level_replica": "passive"}

    def share_out(self, captioner: Captioner) -> None:
        """Share out the weights, before there is an optimizer of them."""

    def wrapped(self, captioner: Captioner) -> nn.Module | None:
        """What a trainer steps with; None to leave that to accelerate."""
        return None

    def whole_in_first(self, captioner: Captioner) -> AbstractContextManager[None]:
        """While this is open the first process can save the captioner. For all processes, at the same time."""
        return nullcontext()

    def whole_in_all(self, captioner: Captioner) -> AbstractContextManager[None]:
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

    def share_out(self, captioner: Captioner) -> None:
        sharding.share_out(captioner, self.group)

    def wrapped(self, captioner: Captioner) -> nn.Module | None:
        return sharding.Shared(captioner)

    def whole_in_first(self, captioner: Captioner) -> AbstractContextManager[None]:
        return sharding.whole_in_first(captioner, self.group)

    def whole_in_all(self, captioner: Captioner) -> AbstractContextManager[None]:
        return sharding.whole_in_all(captioner)

    def whole_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return sharding.whole_state(optimizer)

    def own_state(self, optimizer: Optimizer, whole: dict[str, Any]) -> dict[str, Any]:
        return sharding.shared_state(optimizer, whole)


class Zero(Strategy):
    """DeepSpeed, which Trainer brings; it keeps the optimizer's state in files of its own, for the same number of processes."""

    def arguments(self, precision: torch.dtype) -> dict[str, Any]:
        configuration = deepspeed.zero_configuration(self.settings.zero_stage, self.settings.zero_offload, precision)
        deepspeed.check_configuration(configuration)
        return {**super().arguments(precision), "deepspeed": configuration}

    def whole_in_first(self, captioner: Captioner) -> AbstractContextManager[None]:
        return self.whole_in_all(captioner)

    def whole_in_all(self, captioner: Captioner) -> AbstractContextManager[None]:
        return deepspeed.whole(captioner) if self.settings.zero_stage == 3 else nullcontext()


STRATEGIES: dict[str, type[Strategy]] = {"ddp": Strategy, "fsdp": Sharding, "deepspeed": Zero}


def strategy_of(settings: DistributedSettings, group: Group) -> Strategy:
    """As the settings say; a process alone shares nothing out."""
    return (STRATEGIES[settings.strategy] if group.size > 1 else Strategy)(settings, group)
