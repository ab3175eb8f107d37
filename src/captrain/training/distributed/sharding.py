"""FSDP2: each process holds a share of every weight, its gradient and the optimizer's memory of it.

The shares come together layer by layer while a step needs them (Zhao et al. 2023, arXiv 2304.11277; torch's `fully_shard`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from captrain.models.contract import CaptionerModel
from captrain.training.distributed.group import ProcessGroup

ENTRANCES = ("encode", "generate")
"""Methods of a captioner that use its weights, besides forward."""


class Shared(nn.Module):
    """A captioner with sharded weights, as a trainer uses it."""

    def __init__(self, captioner: CaptionerModel) -> None:
        super().__init__()
        self.module = captioner

    def forward(self, **inputs: Any) -> Any:
        """The captioner's forward."""
        return self.module(**inputs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """In this context gradients are added up in each process and not exchanged."""
        self.module.set_requires_gradient_sync(False)  # type: ignore[operator]  # fully_shard gave it this method
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)  # type: ignore[operator]


def share_out(captioner: CaptionerModel, group: ProcessGroup) -> None:
    """Shard all weights over the processes. Each layer is gathered by itself when it is needed, the rest at once."""
    for weight in captioner.parameters():
        weight.data = weight.data.contiguous()  # convolution weights are channels-last, which torch can't shard
    mesh = init_device_mesh(captioner.device.type, (group.size,))
    for layer in layers(captioner):
        fully_shard(layer, mesh=mesh)
    fully_shard(captioner, mesh=mesh)
    for name in ENTRANCES:
        register_fsdp_forward_method(captioner, name)


def layers(module: nn.Module) -> list[nn.Module]:
    """The outermost repeated layers: the members of `ModuleList`s, which the encoders and decoders of all families use.

    >>> stack = nn.Sequential(nn.Linear(1, 1), nn.ModuleList([nn.Linear(1, 1), nn.Identity(), nn.Linear(1, 1)]))
    >>> len(layers(stack))
    2
    """
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += [layer for layer in child if next(layer.parameters(), None) is not None]
        else:
            found += layers(child)
    return found


@contextmanager
def whole_in_first(captioner: CaptionerModel, group: ProcessGroup) -> Iterator[None]:
    """In this context the first process's captioner has all of its weights in main memory, so that it can be saved.

    It can't compute in this state.
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    made: dict[nn.Parameter, nn.Parameter] = {}  # shared weights are gathered once
    for module in captioner.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight not in made:
                whole = _whole(weight.detach()).cpu()
                made[weight] = nn.Parameter(whole if group.is_first else whole[:0], weight.requires_grad)
            if group.is_first:
                swapped.append((module, name, weight))
                setattr(module, name, made[weight])
    try:
        yield
    finally:
        for module, name, weight in swapped:
            setattr(module, name, weight)


@contextmanager
def whole_in_all(captioner: CaptionerModel) -> Iterator[None]:
    """In this context each process has all weights on its device, and can generate captions without the others."""
    parts = [module for module in captioner.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not captioner, recurse=False)
            part.reshard()


def whole_state(optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state as it would be in one process, in main memory. All processes must call this."""
    state = optimizer.state_dict()
    weights = {
        number: {name: _whole(value).cpu() if torch.is_tensor(value) else value for name, value in memory.items()}
        for number, memory in state["state"].items()
    }
    return {**state, "state": weights}


def shared_state(optimizer: Optimizer, whole: dict[str, Any]) -> dict[str, Any]:
    """This process's share of what `whole_state` gave."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {name: _share(value, weights[number]) for name, value in memory.items()}
        for number, memory in whole["state"].items()
    }
    return {**whole, "state": state}


def local(weight: Tensor) -> Tensor:
    """This process's share of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _share(value: Any, weight: Tensor) -> Any:
    """This process's share of an optimizer's state for a weight; state of another shape is returned unchanged."""
    if not isinstance(weight, DTensor) or not torch.is_tensor(value) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
