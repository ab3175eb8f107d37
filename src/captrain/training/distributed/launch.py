"""`--devices`: one training on several devices of this machine, each with a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from captrain.errors import SettingsError, TrainingError
from captrain.models.device import choose_device
from captrain.settings.schema import Settings
from captrain.training.distributed.processes import DeadWorkerError, is_member, run_workers
from captrain.training.resolve import check_processes
from captrain.training.run import Outcome, train
from captrain.training.run_folder.checkpoints import Checkpoints

VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}


def train_on_devices(
    settings: Settings, data: str | None, out: Path, prepare: Callable[[], None] | None = None, **how: Any
) -> Outcome:
    """Train as `captrain.training.run.train` does, on the devices that the settings name.

    A process that torchrun or accelerate started already belongs to a group, and trains its share. A script that calls this
    needs `if __name__ == "__main__"` around its call: the processes that are started import it.

    Args:
        prepare: called in each new process before anything else, for instance to set up logging. how: as for `train`.

    Raises `TrainingError` when a process dies, and whatever `train` raises.
    """
    environments = worker_environments(settings)
    if not environments:
        return train(settings, data, out, **how)
    if settings.distributed.devices and settings.distributed.devices.startswith("cpu"):
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"device": "cpu"})})
    try:
        return run_workers(environments, _train, prepare, settings, data, out, how)
    except DeadWorkerError as error:
        raise TrainingError(f"{error}, so the training stopped; {_saved(out)}") from None


def worker_environments(settings: Settings) -> list[dict[str, str]]:
    """The environment of each process to start; none if this process trains by itself.

    Raises `SettingsError` for devices that are not there, or that can't share the training.
    """
    devices = settings.distributed.devices
    if devices is None or is_member():
        return []
    if devices.startswith("cpu:"):
        count = int(devices.removeprefix("cpu:"))
        if count < 1:
            raise SettingsError(f"devices {devices}: expected at least one process, such as cpu:2")
        check_processes(settings, count, "cpu")
        return [{"CUDA_VISIBLE_DEVICES": ""}] * count
    kind = choose_device(settings.model.device).type
    numbers = _numbers(devices, kind)
    check_processes(settings, len(numbers), kind)
    visible = _visible(kind)
    ids = ",".join(visible[number] if visible else str(number) for number in numbers)
    return [{VISIBLE[kind]: ids}] * len(numbers)


def _numbers(devices: str, kind: str) -> list[int]:
    """The numbers of the devices that the setting names."""
    if kind not in VISIBLE:
        raise SettingsError(
            f"devices {devices}: found no GPU for it, only {kind}; expected cpu:2 for two processes here"
        )
    count = getattr(torch, kind).device_count()
    numbers = list(range(count)) if devices == "all" else [int(number) for number in devices.split(",")]
    if missing := [number for number in numbers if number >= count]:
        raise SettingsError(f"devices {devices}: there is no {kind}:{missing[0]}, this machine has 0 to {count - 1}")
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"devices {devices}: names a device twice; expected each once")
    return numbers


def _visible(kind: str) -> list[str]:
    """The devices that this process may use, if it may not use all of them."""
    return [name for name in os.environ.get(VISIBLE[kind], "").split(",") if name]


def _train(
    prepare: Callable[[], None] | None, settings: Settings, data: str | None, out: Path, how: dict[str, Any]
) -> Outcome:
    """What one process does."""
    if prepare is not None:
        prepare()
    return train(settings, data, out, **how)


def _saved(out: Path) -> str:
    """What is saved, as text for people."""
    last = Checkpoints(out / "checkpoints", keep=1).last()
    if last is None:
        return "there is no checkpoint yet; the same command begins again"
    return f"the last good checkpoint is {last}; the same command goes on from there"
