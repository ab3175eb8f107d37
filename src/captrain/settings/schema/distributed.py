"""Settings of a training on several devices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from captrain.settings.schema.base import Section


class DistributedSettings(Section):
    """Over which devices a training is spread, and how. It says nothing about what is learned."""

    devices: Annotated[str, StringConstraints(pattern=r"^(all|cpu:\d+|\d+(,\d+)*)$")] | None = None
    """GPUs of this machine to train on: `all`, or numbers such as `0,1`; `cpu:2` for two processes. Default: one device."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """`ddp`: the whole model on each device. `fsdp`: weights, gradients and optimizer shared out (FSDP2). `deepspeed`: ZeRO."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ZeRO shares out: 1 the optimizer's memory, 2 gradients as well, 3 weights as well."""
    zero_offload: bool = False
    """Keep what ZeRO shares out in the memory of the machine: room for larger models, slower steps."""
