"""Captions for a stream of pictures: a finished caption leaves the batch at once, and a waiting picture takes its place.

If memory runs out, the batch is halved, and the captions that no longer fit are started again later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding, Written
from captrain.models.device import is_out_of_memory
from captrain.models.search import Found

logger = logging.getLogger(__name__)

T = TypeVar("T")

SHARE = 4
"""New pictures come in when a quarter of the batch is free. With fewer at a time, all weights would be read too often."""


class BatchLimit:
    """The most pictures in a batch. It is halved when memory runs out; the first time, a warning says so.

    >>> limit = BatchLimit(16)
    >>> def act():
    ...     if limit.size > 4: raise MemoryError
    ...     return limit.size
    >>> limit.within(act), limit.within(act), limit.within(act)
    (None, None, 4)
    """

    def __init__(self, size: int) -> None:
        self.size, self._told = size, False

    def within(self, act: Callable[[], T]) -> T | None:
        """What `act` returns, or None if memory ran out and the batch is now smaller. Raises the error for a batch of one."""
        try:
            return act()
        except (RuntimeError, MemoryError) as error:
            if self.size == 1 or not is_out_of_memory(error):
                raise
        if not self._told:
            logger.warning("out of memory with %d pictures in a batch; going on with smaller batches", self.size)
        self.size, self._told = self.size // 2, True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


class CaptionWriter:
    """Writes captions from features, with one decoding; they come out in the order of the pictures."""

    def __init__(self, model: CaptionerModel, decoding: Decoding, limit: BatchLimit) -> None:
        self.model, self.decoding, self.limit = model, decoding, limit
        self._search = model.search(decoding)
        self._features: dict[int, Tensor] = {}  # of pictures without a finished caption
        self._waiting: deque[int] = deque()
        self._written: dict[int, Written] = {}
        self._order: deque[int] = deque()

    def put(self, numbers: Sequence[int], features: Tensor) -> list[tuple[int, Written]]:
        """Take in pictures by number, with features (I, N, D). Returns the finished captions with their numbers."""
        self._features |= zip(numbers, features, strict=True)
        self._waiting += numbers
        self._order += numbers
        while self._waiting:
            self._advance()
        return self._in_order()

    def finish(self) -> list[tuple[int, Written]]:
        """The remaining captions."""
        while self._waiting or (self._search is not None and self._search.rows):
            self._advance()
        return self._in_order()

    def _advance(self) -> None:
        """Take in waiting pictures if there is room, otherwise add a word to each caption."""
        if self._search is None:
            self._write_group()
            return
        free = min(self.limit.size - self._search.rows, len(self._waiting))
        if free and (free == len(self._waiting) or free >= self.limit.size // SHARE):
            chosen = [self._waiting[place] for place in range(free)]
            found = self.limit.within(lambda: self._admit(chosen))
            if found is not None:
                for _ in chosen:
                    self._waiting.popleft()
        else:
            found = self.limit.within(self._step)
        if found is None:
            too_many = max(0, self._search.rows - self.limit.size)
            self._waiting.extendleft(reversed(self._search.give_up(too_many)))
            return
        with _writing(self.model):
            self._keep([caption.number for caption in found], self.model.written(found))

    def _admit(self, numbers: list[int]) -> list[Found]:
        assert self._search is not None
        with _writing(self.model):
            return self._search.admit(numbers, self.model.project(self._stacked(numbers)))

    def _step(self) -> list[Found]:
        assert self._search is not None
        with _writing(self.model):
            return self._search.step()

    def _write_group(self) -> None:
        """Without a search: captions for the next batch of waiting pictures."""
        chosen = [self._waiting[place] for place in range(min(self.limit.size, len(self._waiting)))]
        written = self.limit.within(lambda: self.model.generate(self._stacked(chosen), self.decoding))
        if written is not None:
            for _ in chosen:
                self._waiting.popleft()
            self._keep(chosen, written)

    def _stacked(self, numbers: Sequence[int]) -> Tensor:
        return torch.stack([self._features[number] for number in numbers])

    def _keep(self, numbers: Sequence[int], written: Sequence[Written]) -> None:
        for number, line in zip(numbers, written, strict=True):
            self._written[number] = line
            del self._features[number]

    def _in_order(self) -> list[tuple[int, Written]]:
        """The finished captions that no unfinished picture comes before."""
        done = []
        while self._order and self._order[0] in self._written:
            number = self._order.popleft()
            done.append((number, self._written.pop(number)))
        return done


@contextmanager
def _writing(model: CaptionerModel) -> Iterator[None]:
    """The modes in which a model writes: no gradients, no dropout, its own precision."""
    with torch.no_grad(), evaluating(model), model.autocast():
        yield


def write_all(model: CaptionerModel, features: Tensor, decoding: Decoding, limit: BatchLimit) -> list[Written]:
    """A caption for each image from features (I, N, D), in order, no more than a batch at a time."""
    writer = CaptionWriter(model, decoding, limit)
    found = writer.put(range(len(features)), features) if len(features) else []
    return [line for _, line in found + writer.finish()]


def write_ways(
    model: CaptionerModel,
    ways: Sequence[Decoding],
    groups: Iterable[tuple[Sequence[int], Mapping[bool, Tensor]]],
    limit: BatchLimit,
    apart: bool = False,
) -> Iterator[tuple[int, list[Written]]]:
    """For each picture in order, one caption for each decoding.

    Args:
        groups: numbers of pictures, with their features (I, N, D): for True those with `mirror`, for False the plain ones.
        apart: whether each group is finished before the next one starts, so that no caption depends on the groups before.
    """
    writers = [CaptionWriter(model, way, limit) for way in ways]
    finished: list[deque[tuple[int, Written]]] = [deque() for _ in ways]

    def matched() -> Iterator[tuple[int, list[Written]]]:
        while all(finished):
            heads = [queue.popleft() for queue in finished]
            yield heads[0][0], [line for _, line in heads]

    for numbers, features in groups:
        for writer, queue in zip(writers, finished, strict=True):
            queue += writer.put(numbers, features[writer.decoding.mirror])
            queue += writer.finish() if apart else []
        yield from matched()
    for writer, queue in zip(writers, finished, strict=True):
        queue += writer.finish()
    yield from matched()


def encode_all(encode: Callable[[Tensor], Tensor], pixels: Tensor, limit: BatchLimit) -> Tensor:
    """Features (I, N, D) of pictures (I, height, width, 3), no more than a batch at a time."""
    parts: list[Tensor] = []
    at = 0
    while at < len(pixels):
        group = pixels[at : at + limit.size]
        made = limit.within(lambda group=group: encode(group))  # type: ignore[misc]
        if made is not None:
            parts.append(made)
            at += len(group)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
