"""Pictures as a stream of pixel batches: read and decoded by threads ahead of whoever uses them, in order, bad ones put aside."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from captrain.data.images import MAX_PIXELS, ImageSpec
from captrain.data.picture_files import content_key
from captrain.errors import PictureError
from captrain.features.training_images import PLAIN, Views
from captrain.records import Rejects, Sample
from captrain.settings.load import check_settings
from captrain.settings.schema import ComputingSettings

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Batching:
    """How pictures are decoded and batched.

    batch_size: pictures that a model sees at a time. workers: threads that decode; None for `default_workers`.
    max_pixels: a picture with more is rejected before it is decoded.

    Raises `SettingsError` for a batch of no picture, fewer than no threads and pictures without pixels.
    """

    batch_size: int = 16
    workers: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        check_settings(ComputingSettings, batch_size=self.batch_size, workers=self.workers, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class Computing(Batching):
    """How pictures are decoded and batched, and where and how precisely a model computes; names are those of the flags."""

    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class StreamedPicture:
    """One read picture: where it stands in the sequence, its content key, and its pixels unless they were not wanted.

    `further` holds the pixels of its further views by their keys, those that were wanted; `views` says how they were made.
    """

    index: int
    key: str
    pixels: np.ndarray | None
    further: dict[str, np.ndarray] = field(default_factory=dict)
    views: Views = PLAIN


def default_workers() -> int:
    """Threads that decode: one a core, at most 16."""
    return min(16, os.cpu_count() or 1)


def stream_pictures(
    samples: Sequence[Sample],
    spec: ImageSpec,
    rejects: Rejects,
    known: Container[str] = frozenset(),
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    views: Views = PLAIN,
) -> Iterator[StreamedPicture]:
    """Read samples in order, a few ahead; those that can't be decoded go to `rejects` and are left out.

    Args:
        known: keys whose pixels nobody needs; such pictures are read, but not decoded.
        views: what else is made of each picture beside itself.
    """
    count = default_workers() if workers is None else max(1, workers)

    def read(index: int) -> StreamedPicture:
        sample = samples[index]
        data = _read(sample)
        content = content_key(data)
        suited = views.suited(sample.captions)
        wanted = {view: key for view in range(views.count) if (key := suited.key(content, view)) not in known}
        made = {key: suited.pixels(data, content, view, spec, max_pixels) for view, key in wanted.items()}
        return StreamedPicture(index, content, made.pop(content, None), made, suited)

    for index, future in read_ahead(read, range(len(samples)), count):
        try:
            yield future.result()
        except PictureError as error:
            sample = samples[index]
            rejects.add(sample.id, sample.source or sample.id, str(error))


def batches(pictures: Iterator[StreamedPicture], size: int) -> Iterator[tuple[list[StreamedPicture], Tensor]]:
    """Pictures in groups of `size`, with their pixels as one tensor (size, height, width, 3), uint8."""
    group: list[StreamedPicture] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == size:
            yield group, stack(group)
            group = []
    if group:
        yield group, stack(group)


def stack(group: Sequence[StreamedPicture]) -> Tensor:
    """Pixels of pictures as one tensor (pictures, height, width, 3), uint8."""
    return torch.from_numpy(np.stack([picture.pixels for picture in group if picture.pixels is not None]))


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Run `read` for each item on threads, never more than a few a thread in advance, and give the results in order.

    >>> [(item, result.result()) for item, result in read_ahead(len, ["a", "bcd"], 2)]
    [('a', 1), ('bcd', 3)]
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="captrain-decode") as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) >= 8 * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _read(sample: Sample) -> bytes:
    """A sample's encoded bytes; a file that can't be read is a bad picture like any other."""
    try:
        return sample.read()
    except OSError as error:
        raise PictureError(f"can't be read: {error.strerror or error}") from None
