"""`--batch-size auto`: the largest batch that fits, found before the first step; the captioner stays as it was.

Also: which settings to change when a training runs out of memory.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from captrain.features.training_images import Images
from captrain.models.contexts import modes_kept, untouched_randomness
from captrain.models.contract import CaptionerModel
from captrain.models.device import is_out_of_memory
from captrain.training.distributed.group import here
from captrain.training.rows import Collator, TrainingRow, TrainingRows

logger = logging.getLogger(__name__)

MOST_ON_GPU = 256
MOST_ELSEWHERE = 64
ALWAYS_ALLOWED = 8  # images; larger batches only if an epoch keeps enough steps
FEWEST_STEPS = 20  # of an epoch: fewer, larger steps learn less
GPU_SHARE = 0.85  # of the GPU's memory, for the largest step; validation needs some for its captions
FREE_SHARE = 0.5  # of the free memory: the machine does other things too
TRANSIENT = 1.5  # a step's peak over what it keeps for the backward pass
LOOKED_AT = 2000  # rows searched for the longest
OPTIMIZER_BYTES = 12  # for each learning weight: its gradient and AdamW's two moments, in fp32

Trial = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Batches:
    """The number of images computed at a time, over all processes, and of such batches in a step.

    >>> Batches(8, accumulate=4).step
    32
    """

    images: int
    accumulate: int = 1

    @property
    def step(self) -> int:
        """The images of one step of the optimizer."""
        return self.images * self.accumulate


def choose_batch_size(captioner: CaptionerModel, images: Images, rows: TrainingRows, before: int | None) -> int:
    """The batch size for `auto`: that of the run's earlier session, or the largest that fits now.

    With several processes, the one with the least memory decides for all.
    """
    group = here()
    return before or min(group.gather(find_batch_size(captioner, images, rows))) * group.size


def find_batch_size(captioner: CaptionerModel, images: Images, rows: TrainingRows) -> int:
    """The largest power of two of images whose step fits into memory if all rows are as long as the longest.

    On a GPU, steps of 1, 2, 4, ... images are tried, with the optimizer's memory set aside. Elsewhere the memory that two
    small steps keep for the backward pass is measured, and half of the free memory is the limit. An epoch keeps at least 20
    steps, if that leaves batches of 8; there are at most 256 images on a GPU and 64 elsewhere.
    """
    learning = sum(weight.numel() for weight in captioner.parameters() if weight.requires_grad)
    on_gpu = captioner.device.type == "cuda"
    most = sensible_most(len(rows), MOST_ON_GPU if on_gpu else MOST_ELSEWHERE)
    batch = _longest_batches(captioner, images, rows)
    with _untouched(captioner), untouched_randomness():
        if on_gpu:
            size, why = _by_trying(captioner, batch, most, learning * OPTIMIZER_BYTES)
        else:
            size, why = _by_counting(captioner, batch, most, learning * OPTIMIZER_BYTES)
    logger.info("batch size auto: %d (%s)", size, why)
    return size


def sensible_most(images: int, limit: int) -> int:
    """The largest power of two up to the limit that leaves an epoch its steps.

    >>> sensible_most(100, 64), sensible_most(400, 64), sensible_most(100_000, 64), sensible_most(3, 64)
    (8, 16, 64, 2)
    """
    most = min(limit, max(images // FEWEST_STEPS, ALWAYS_ALLOWED), images)
    return 1 << (max(most, 1).bit_length() - 1)


def largest_by_estimate(one: int, two: int, fixed: int, free: int, most: int) -> int:
    """The largest power of two of images whose step fits `free` bytes, by the bytes that steps of one and two keep.

    >>> largest_by_estimate(one=30, two=50, fixed=100, free=1000, most=64)  # 10 + 20 an image, times 1.5
    16
    >>> largest_by_estimate(one=30, two=50, fixed=1000, free=900, most=64)
    1
    """
    an_image = max(two - one, 1)
    base = max(one - an_image, 0)
    size = 1
    while 2 * size <= most and fixed + TRANSIENT * (base + 2 * size * an_image) <= free:
        size *= 2
    return size


def _longest_batches(
    captioner: CaptionerModel, images: Images, rows: TrainingRows
) -> Callable[[int], dict[str, Tensor]]:
    """Batches of any size in which every row is the longest of the first epoch, or of 2000 of its rows."""
    step = max(1, len(rows) // LOOKED_AT)
    longest = max(
        (rows[0, index] for index in range(0, len(rows), step)),
        key=lambda row: sum(map(len, row.captions), len(row.captions)),
    )
    collate = Collator(captioner, images)

    def batch(size: int) -> dict[str, Tensor]:
        made: dict[str, Any] = collate([TrainingRow(*longest)] * size)
        return {name: tensor.to(captioner.device) for name, tensor in made.items()}

    return batch


def _by_trying(
    captioner: CaptionerModel, batch: Callable[[int], dict[str, Tensor]], most: int, set_aside: int
) -> tuple[int, str]:
    """Double the batch until a step does not fit, or takes more than its share of memory."""
    total = torch.cuda.get_device_properties(captioner.device).total_memory
    reserve = torch.empty(set_aside, dtype=torch.uint8, device=captioner.device)
    size, taken = 0, 0
    while size < most:
        torch.cuda.reset_peak_memory_stats(captioner.device)
        if not _fits(captioner, batch, max(1, 2 * size)):
            break
        peak = torch.cuda.max_memory_allocated(captioner.device)
        if size and peak > GPU_SHARE * total:
            break
        size, taken = max(1, 2 * size), peak
    del reserve
    _clean(captioner)
    return max(size, 1), f"its longest step takes {taken / 2**30:.1f} of {total / 2**30:.0f} GiB"


def _fits(captioner: CaptionerModel, batch: Callable[[int], dict[str, Tensor]], size: int) -> bool:
    """Whether a forward and backward pass of so many of the longest rows fits into memory."""
    try:
        captioner(**batch(size)).loss.backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        _clean(captioner)
    return True


def _by_counting(
    captioner: CaptionerModel, batch: Callable[[int], dict[str, Tensor]], most: int, set_aside: int
) -> tuple[int, str]:
    """Estimate from what one and two images keep for the backward pass."""
    one, two = (_kept(captioner, batch(size)) for size in (1, 2))
    free = int(FREE_SHARE * psutil.virtual_memory().available)
    size = largest_by_estimate(one, two, set_aside, free, most)
    return (
        size,
        f"an image takes about {max(two - one, 1) * TRANSIENT / 2**20:.0f} MiB, {free / 2**30:.1f} GiB may be used",
    )


def _kept(captioner: CaptionerModel, batch: dict[str, Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights excluded."""
    weights = {weight.untyped_storage().data_ptr() for weight in captioner.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        captioner(**batch).loss.backward()
    _clean(captioner)
    return sum(kept.values())


def _clean(captioner: CaptionerModel) -> None:
    """Free what a step allocated."""
    captioner.zero_grad(set_to_none=True)
    gc.collect()
    if captioner.device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def _untouched(captioner: CaptionerModel) -> Iterator[None]:
    """Training mode. Afterwards running statistics and modes are restored, and gradients are removed."""
    buffers = {name: buffer.clone() for name, buffer in captioner.named_buffers()}
    try:
        with modes_kept(captioner):
            captioner.train()
            yield
    finally:
        captioner.zero_grad(set_to_none=True)
        for name, buffer in captioner.named_buffers():
            buffer.copy_(buffers[name])


MOST_ADVICE = 3


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The settings of a run that decide how much memory it takes; `captions_per_image` is None for all."""

    batches: Batches
    image_size: int
    precision: str
    checkpoint_activations: bool
    captions_per_image: int | None
    max_tokens: int
    beams: int
    max_new_tokens: int


def what_to_change(now: MemorySettings, writing: bool) -> str:
    """Three settings, with their values, that lower the memory of a step, or of `writing` captions in a validation.

    The cheapest comes first: half the batch size and twice as many batches are the same step.
    """
    advice = [*_smaller_batch(now.batches), *(_of_writing(now) if writing else _of_a_step(now))]
    advice += [f"--image-size (now {now.image_size})"]
    if now.precision == "fp32":
        advice.append("--precision bf16 (now fp32)")
    return "; ".join(advice[:MOST_ADVICE])


def _smaller_batch(batches: Batches) -> list[str]:
    """A smaller batch, unless it is already one image."""
    size, accumulate = batches.images, batches.accumulate
    if size == 1:
        return []
    same = "" if size % 2 else ", the step stays the same"
    return [f"--batch-size {size // 2} --accumulate {accumulate * 2} (now {size} and {accumulate}{same})"]


def _of_a_step(now: MemorySettings) -> list[str]:
    """What a step keeps for its backward pass."""
    advice = [] if now.checkpoint_activations else ["--checkpoint-activations (off now)"]
    if now.captions_per_image != 1:
        advice.append(f"--captions-per-image one (now {now.captions_per_image or 'all'})")
    return [*advice, f"--max-tokens (now {now.max_tokens})"]


def _of_writing(now: MemorySettings) -> list[str]:
    """Settings for validation, which generates captions for twice the images of a step, with all their beams."""
    advice = [f"--beams 1 (now {now.beams})"] if now.beams > 1 else []
    return [*advice, f"--max-new-tokens (now {now.max_new_tokens})"]
