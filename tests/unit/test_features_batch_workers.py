"""Independent batches on workers give what one thread gives, in order, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from captrain.features.batch_workers import BatchWorkers

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads of torch, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_are_those_of_one_thread(threads: int) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(64 * 28 * 28, 9)
    )
    batches = [torch.randn(4, 3, 32, 32) for _ in range(9)]
    compute = torch.inference_mode()(layers)
    found: list[tuple[int, torch.Tensor]] = []
    with BatchWorkers(compute, lambda *pair: found.append(pair), CPU) as workers:
        for number, batch in enumerate(batches):
            workers.add(number, batch)
            assert number - len(found) <= 2 * threads, "what waits is bounded"
    torch.set_num_threads(1)
    assert [number for number, _ in found] == list(range(len(batches)))
    assert all(torch.equal(result, compute(batch)) for (_, result), batch in zip(found, batches, strict=True))


def test_each_worker_has_one_thread_and_this_process_keeps_its_own(threads: int) -> None:
    seen: set[tuple[str, int]] = set()

    def compute(batch: torch.Tensor) -> torch.Tensor:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return batch

    with BatchWorkers(compute, lambda *pair: None, CPU) as workers:
        for number in range(12):
            workers.add(number, torch.zeros(1))
        assert torch.get_num_threads() == threads
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert {count for _, count in seen} == {1}
    assert later == [threads], "a thread that starts meanwhile has as many as ever"


def test_what_a_batch_raises_ends_the_work(threads: int) -> None:
    def compute(batch: torch.Tensor) -> torch.Tensor:
        if batch.item() == 3:
            raise ValueError("the fourth")
        return batch

    found: list[int] = []
    with (
        pytest.raises(ValueError, match="the fourth"),
        BatchWorkers(compute, lambda number, _: found.append(number), CPU) as workers,
    ):
        for number in range(50):
            workers.add(number, torch.tensor(number))
    assert found == [0, 1, 2]
    assert not [one for one in threading.enumerate() if one.name.startswith("captrain-encode")]
