"""Settings of a training on several devices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from captrain.settings.schema.base import Section


class DistributedSettings(Section):
    """Over which devices a training is spread, and how. It says nothing about what is learned."""

    devices: Annotated[str, StringConstraints(pattern=r"^(all|cpu:\d+|\d+(,\d+)*)$")] | None = None
    """GPUs to train on: `all`, or numbers such as `0,1`; `cpu:2` means two processes. Default: one device."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """`ddp` puts the whole model on each device, `fsdp` shards it (FSDP2), `deepspeed` uses ZeRO."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ZeRO shards: 1 the optimizer's state, 2 gradients too, 3 weights too."""
    zero_offload: bool = False
    """Keep what ZeRO shards in main memory: larger models fit, steps are slower."""
