"""Starts processes that work together on one machine, watches them, and ends all of them when one fails.

Also reads the variables by which torchrun, `accelerate launch` and captrain tell a process its place. Imports no torch.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from captrain.errors import CaptrainError, TrainingError

T = TypeVar("T")

logger = logging.getLogger(__name__)

SECONDS_TO_TELL = 1.5  # seconds after one process has ended, for others to end for the same reason
SECONDS_TO_END = 5.0  # for a process that is told to end
QUIET_ENDS = (1, 2, 3)  # exit code of a process that lets another one report the error (see `ProcessGroup.together`)
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # torch would warn of weights that are not used, and of looking for them


class DeadWorkerError(TrainingError):
    """A process ended without saying why: it was killed, or crashed."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """What a process reports at its end: its result, or the error that it failed with."""

    result: Any = None
    failure: BaseException | None = None


@dataclass(slots=True)
class Worker:
    """One of the processes, and the connection on which it reports how it ended."""

    rank: int
    process: BaseProcess
    channel: Connection
    told: LastWord | None = None
    ended: float = 0.0

    def listen(self) -> None:
        """Receive its report, if it sent one."""
        try:
            if self.told is None and self.channel.poll():
                self.told = self.channel.recv()
        except (EOFError, OSError):
            return

    @property
    def failed(self) -> bool:
        """Whether it ended, and failed."""
        return self.process.exitcode not in (None, 0) or (self.told is not None and self.told.failure is not None)


def run_workers(environments: Sequence[dict[str, str]], work: Callable[..., T], *arguments: Any) -> T:
    """Do the same work in one process per environment, as torchrun would; returns the first one's result.

    When one fails, all are ended. SIGINT and SIGTERM are passed on to them, and this function waits until they end.

    Args:
        environments: variables of each process in addition to those that all have, such as the device that it sees.
        work, arguments: anything that can be pickled.

    Raises:
        DeadWorkerError: when a process was killed, or crashed.
        Whatever the work raised.
    """
    context = multiprocessing.get_context("spawn")
    port, count = _free_port(), len(environments)
    workers: list[Worker] = []
    try:
        for rank, environment in enumerate(environments):
            listening, speaking = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(speaking, work, arguments), name=f"captrain-{rank}")
            with _environment(QUIET | environment | (_place(rank, count, port) if count > 1 else {})):
                process.start()
            speaking.close()
            workers.append(Worker(rank, process, listening))
        with _handing_on(workers):
            _watch(workers)
    finally:
        _end(workers)
    return _outcome(workers)


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    """Set the environment that processes started in this context have from their first import on."""
    before = dict(os.environ)
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _place(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells a process about its place; all are on this machine."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(workers: Sequence[Worker]) -> None:
    """Wait until all are done, or until one has failed and the others have had time to fail for the same reason."""
    while running := [worker for worker in workers if not worker.ended]:
        failed = any(worker.failed for worker in workers)
        waited_for: list[Any] = [worker.process.sentinel for worker in running]
        waited_for += [worker.channel for worker in running if worker.told is None]
        if not wait(waited_for, timeout=SECONDS_TO_TELL if failed else None) and failed:
            return
        for worker in running:
            worker.listen()
            if worker.process.exitcode is not None:
                worker.listen()
                worker.ended = time.monotonic()


def _outcome(workers: Sequence[Worker]) -> Any:
    """The first process's result, or the failure that caused the other failures."""
    dead = [worker for worker in workers if worker.failed and worker.ended and worker.told is None]
    dead.sort(key=lambda worker: worker.process.exitcode in QUIET_ENDS)
    failures = [worker.told.failure for worker in workers if worker.told and worker.told.failure is not None]
    failures.sort(key=lambda failure: not hasattr(failure, "exit_code"))  # the others only lost their connection by it
    if failures and (not dead or dead[0].process.exitcode in QUIET_ENDS):
        raise failures[0]
    if dead:
        manner = _manner(int(dead[0].process.exitcode or 0))
        raise DeadWorkerError(f"process {dead[0].rank} of {len(workers)} {manner}")
    assert workers[0].told is not None
    return workers[0].told.result


def _manner(code: int) -> str:
    """How a process ended, in words.

    >>> _manner(-9), _manner(134)
    ('was ended by SIGKILL (out of memory, perhaps)', 'ended with exit code 134')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}" + (" (out of memory, perhaps)" if name == "SIGKILL" else "")


def _end(workers: Sequence[Worker]) -> None:
    """End all processes that still run: they would wait for the others forever."""
    for end in ("terminate", "kill"):
        for worker in workers:
            if worker.process.is_alive():
                getattr(worker.process, end)()
        until = time.monotonic() + SECONDS_TO_END
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))


@contextmanager
def _handing_on(workers: Sequence[Worker]) -> Iterator[None]:
    """Pass signals on to the workers, which know where they can stop. Only the main thread can catch them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hand_on(number: int, frame: Any) -> None:
        for worker in workers:
            if worker.process.is_alive() and worker.process.pid is not None:
                os.kill(worker.process.pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(channel: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """What one process does."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C on the terminal reaches the process that started this one, which passes it on
    tqdm.set_lock(threading.RLock())  # tqdm's own lock would leak, with a warning, from a process that is ended
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        told = LastWord(work(*arguments))
    except SystemExit as end:
        end_process(end.code if isinstance(end.code, int) else 1)
    except BaseException as failure:
        if logger.isEnabledFor(logging.DEBUG) and not hasattr(failure, "exit_code"):
            traceback.print_exc()
        told = LastWord(failure=_that_travels(failure))
    channel.send(told)
    end_process(0 if told.failure is None else 1)


def _that_travels(failure: BaseException) -> BaseException:
    """The failure; if it can't be pickled, an error with its text."""
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:
        told = CaptrainError(failure if isinstance(failure, CaptrainError) else f"{type(failure).__name__}: {failure}")
        told.exit_code = getattr(failure, "exit_code", told.exit_code)
        return told
    return failure


def _end_with_parent() -> None:
    """End when the parent process has ended, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def is_member() -> bool:
    """Whether this process was started as one of several."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_silent() -> bool:
    """Whether another process of the group writes and logs for this one."""
    return is_member() and os.environ["RANK"] != "0"


def end_process(code: int) -> NoReturn:
    """End this process like `sys.exit`; one of a group ends without shutting the interpreter down.

    A thread of gloo releases its last tensor some time after the work is done. If the interpreter is shutting down by then,
    the whole process aborts ("terminate called without an active exception"), and whoever started the group then ends the others.
    """
    if not is_member():
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
