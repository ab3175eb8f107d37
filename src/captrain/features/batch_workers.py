"""Independent batches on a CPU: each on one thread, several at a time, instead of one batch on all threads.

Threads that share a batch wait for each other at every layer, and for a neighbour that has one of the cores. Here they never
wait. What a batch gives is what one thread gives, however many there are: sums do not depend on the machine's cores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import torch
from torch import Tensor

Label = TypeVar("Label")

AT_ONCE_ON_CPU = 8
"""Pictures that a CPU encodes together. With 64 it takes twice as long for each (MobileNet): activations leave its cache."""

MOST_WORKERS = 16
"""Each holds the activations of a batch; where there are more threads, workers have several."""


class BatchWorkers(Generic[Label]):
    """Computes batches, and hands over what each gives in the order in which they came.

    On a CPU with several threads, workers compute as many batches at a time, and a few wait. Elsewhere a batch is begun where
    it comes, and the one before it is handed over: a GPU is never without work.

    Args:
        compute: from a batch to its result, in any thread. done: takes the label of a batch and its result, in this thread.
        device: where `compute` computes.

    >>> found = []
    >>> with BatchWorkers(lambda batch: batch + 1, lambda *pair: found.append(pair), torch.device("cpu")) as workers:
    ...     for number in range(3):
    ...         workers.add(number, torch.tensor(number))
    >>> found
    [(0, tensor(1)), (1, tensor(2)), (2, tensor(3))]
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Tensor],
        done: Callable[[Label, Tensor], object],
        device: torch.device,
    ) -> None:
        self.compute, self.done = compute, done
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self.count = min(threads, MOST_WORKERS)
        self.pool = _single_threaded(self.count, threads // self.count) if self.count > 1 else None
        self.waiting: deque[tuple[Label, Future[Tensor]]] = deque()

    def add(self, label: Label, batch: Tensor) -> None:
        """Take in a batch. Results of earlier ones may be handed over; what computing one raised is raised here."""
        self.waiting.append((label, self._begun(batch)))
        while len(self.waiting) > (2 * self.count if self.pool else 1):
            self._hand_over()

    def finish(self) -> None:
        """Hand over all results that are not yet."""
        while self.waiting:
            self._hand_over()

    def __enter__(self) -> BatchWorkers[Label]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            if self.pool:
                self.pool.shutdown(wait=True, cancel_futures=True)

    def _begun(self, batch: Tensor) -> Future[Tensor]:
        if self.pool is not None:
            return self.pool.submit(self.compute, batch)
        done: Future[Tensor] = Future()
        try:
            done.set_result(self.compute(batch))
        except Exception as error:  # raised when its turn comes, after the results before it
            done.set_exception(error)
        return done

    def _hand_over(self) -> None:
        label, result = self.waiting.popleft()
        self.done(label, result.result())


def _single_threaded(count: int, threads: int) -> ThreadPoolExecutor:
    """Workers of which each computes on `threads` threads; this thread goes on computing on as many as before.

    torch keeps the number for each thread. A thread that has not asked for it yet takes the one that was set last, in any thread.
    So all workers start and ask here, and then the former number is set again.
    """
    before, started = torch.get_num_threads(), threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(threads)
        torch.get_num_threads()
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="captrain-encode", initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
