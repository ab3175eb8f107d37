"""The processes of a training: which one this is, and how they exchange values.

In one process the group has one member, and all of this does nothing. All but the first process use a `ReadOnlyRunFolder`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from captrain.errors import CaptrainError, SettingsError
from captrain.training.distributed.processes import is_member, is_silent
from captrain.training.run_folder.folder import RunFolder

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=2)  # one process may score captions or write a model while the others wait
COLLECTIVES = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
OTHER_PLANS = {"ACCELERATE_USE_FSDP": "fsdp", "ACCELERATE_USE_DEEPSPEED": "deepspeed"}


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """`size` processes; this one is number `rank`. All of them make the same calls in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in each of them."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return cast(list[T], values)

    def from_first(self, value: T) -> T:
        """The first process's value, in each of them."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.gather(None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that may fail in any process. If one fails, all of them end. The work itself must not call the others.

        The failed process with the lowest rank raises its error; the others raise `SystemExit` with its exit code, silently.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        codes = self.gather(None if failure is None else _exit_code(failure))
        failed = [rank for rank, code in enumerate(codes) if code is not None]
        if failed and failed[0] == self.rank and failure is not None:
            raise failure
        if failed:
            raise SystemExit(codes[failed[0]])

    def main_process_first(self, work: Callable[[], T]) -> T:
        """The result of work that the first process does first: the others begin later and find what it left on disk."""
        made: list[T] = []
        for turn in (True, False):
            with self.together():
                if turn == self.is_first:
                    made.append(work())
        return made[0]


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, CaptrainError) else 1


def here() -> ProcessGroup:
    """The group that this process is in."""
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    return ProcessGroup()


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """The group of this training. Processes that were started as a group find each other here.

    Args:
        device: the kind of device that they compute on.

    A process that failed does not wait for the others: whoever started them ends them.
    """
    if not is_member():
        _refuse_ranks_of_mpi()
        yield here()
        return
    if is_silent():
        logging.getLogger("captrain").setLevel(logging.ERROR)
    begins = not distributed.is_initialized()
    if begins:
        _begin(device)
    yield here()
    if begins:
        distributed.destroy_process_group()


def _begin(device: str) -> None:
    """Join the group of processes."""
    _refuse_other_plans()
    if device not in COLLECTIVES:
        raise SettingsError(f"device {device}: found several processes, but there they can't work together; start one")
    _take_share_of_machine(device)
    distributed.init_process_group(COLLECTIVES[device], timeout=LONGEST_WAIT)


def _refuse_other_plans() -> None:
    """Refuse sharding by `accelerate launch`: together with the sharding of the settings, weights would be sharded twice."""
    for name, strategy in OTHER_PLANS.items():
        if os.environ.get(name, "").lower() == "true":
            raise SettingsError(
                f"{name}=true: accelerate was configured to share out the model; launch it without that, "
                f"and say --strategy {strategy}"
            )


def _refuse_ranks_of_mpi() -> None:
    """Refuse `accelerate launch --cpu` with several processes: it starts only one, or lets MPI number them."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ:
        raise SettingsError(
            "accelerate launch --cpu: starts one process alone, or several through MPI, which captrain does not join; "
            "expected --multi_gpu in place of --cpu, and --device cpu behind captrain's words"
        )


def _take_share_of_machine(device: str) -> None:
    """This process's device, or its share of the cores."""
    local, count = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cpu":
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
        return
    kind = getattr(torch, device)
    if local >= kind.device_count():
        raise SettingsError(
            f"process {local} of this machine has no {device} device, there are {kind.device_count()}; start fewer processes"
        )
    kind.set_device(local)


class ReadOnlyRunFolder(RunFolder):
    """A run folder that another process of the group writes. Reading works; writing does nothing."""

    def claim(self, *args: Any, **kwargs: Any) -> list[str]:
        """Nothing: the first process has claimed the folder."""
        return []

    def write_settings(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def rewind(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def append(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the first process has written it before this is called."""

    def copy_base(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the first process has written it before this is called."""

    def write_rejects(self, *args: Any, **kwargs: Any) -> Path | None:
        """Nothing."""
        return None

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
