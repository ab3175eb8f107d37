"""Whether a training can be spread as the settings say: asked before anything is begun."""

from __future__ import annotations

import importlib.util

from captrain.errors import SettingsError
from captrain.settings.schema import Settings


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
