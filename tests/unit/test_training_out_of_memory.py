"""Which errors mean that memory ran out, and what a run is then told to change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captrain.models.device import is_out_of_memory
from captrain.training.loop.batch_size import Batches, MemorySettings, what_to_change


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_what_torch_says_itself_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), ValueError("out of memory"), OSError(28, "No space left")]
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def now(batch_size: int = 8, accumulate: int = 1, **values: Any) -> MemorySettings:
    """The settings of a run that ran out of memory."""
    usual: dict[str, Any] = {
        "image_size": 384, "precision": "fp32", "checkpoint_activations": False, "captions_per_image": None,
        "max_tokens": 64, "beams": 3, "max_new_tokens": 30,
    }  # fmt: skip
    return MemorySettings(Batches(batch_size, accumulate), **(usual | values))


def test_three_settings_are_named_with_their_values() -> None:
    assert what_to_change(now(accumulate=3), writing=False).split("; ") == [
        "--batch-size 4 --accumulate 6 (now 8 and 3, the step stays the same)",
        "--checkpoint-activations (off now)",
        "--captions-per-image one (now all)",
    ]


def test_what_can_go_no_lower_is_not_named() -> None:
    lowest = now(batch_size=1, checkpoint_activations=True, captions_per_image=1)
    told = what_to_change(lowest, writing=False)
    assert told.split("; ") == ["--max-tokens (now 64)", "--image-size (now 384)", "--precision bf16 (now fp32)"]


def test_writing_captions_takes_memory_by_beams() -> None:
    told = what_to_change(now(beams=5, max_new_tokens=40), writing=True)
    assert told.split("; ")[1:] == ["--beams 1 (now 5)", "--max-new-tokens (now 40)"]


def test_odd_batches_stay_whole() -> None:
    assert "--batch-size 2 --accumulate 2 (now 5 and 1)" in what_to_change(now(batch_size=5), writing=False)
