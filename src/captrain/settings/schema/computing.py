"""Settings of how a finished captioner runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Section
from captrain.settings.schema.data import DataSettings


class ComputingSettings(Section):
    """How a finished captioner runs over pictures. These are flags only; recipes have them in `model` and `data`."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures per batch."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes the first of cuda, mps, xpu, cpu that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the computation. `auto` means bf16 where the device is fast at it."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one per core, at most 16."""
    max_pixels: Annotated[int, Field(ge=1)] = DataSettings.model_fields["max_pixels"].default
    """Pictures with more pixels than this are rejected before they are decoded."""
