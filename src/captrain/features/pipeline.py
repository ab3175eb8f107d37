"""Reading, decoding, encoding and writing at the same time.

One thread reads samples in order and hands them to threads that decode; the caller's thread encodes or captions batches; one
thread writes finished parts. Queues between them are bounded, so that memory does not grow with the collection. A batch never
holds pictures of two parts: the result of a part does not depend on earlier work.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from captrain.data.feature_store.shard import NUMBERS, IndexEntry, IndexRows
from captrain.data.feature_store.writer import FeatureShard
from captrain.data.images import MAX_PIXELS, ImageSpec, prepare
from captrain.data.picture_files import content_key
from captrain.errors import ModelError, PictureError
from captrain.features.cache_arrays import as_numbers
from captrain.features.encoder import KINDS, Encoder
from captrain.features.sources import EncodingSource, End
from captrain.features.stream import Batching, default_workers
from captrain.records import Rejects, Sample

Decoded = tuple[np.ndarray, str]  # pixels and content key
Event = tuple[EncodingSource, Sample | End, Future[Decoded] | None]
Skip = Callable[[EncodingSource, int], bool]
"""Whether a part of a source already exists."""

SHARDS_WAITING = 1  # to be written, beside the one that is


class Assembly(Protocol):
    """An unfinished part."""

    def add(self, sample: Sample, decoded: Future[Decoded]) -> None:
        """Take in one picture when it is decoded; one that can't be (`PictureError`) is rejected."""

    def finish(self, source: EncodingSource, end: End) -> Any:
        """The finished part."""


@dataclass(frozen=True, slots=True)
class SourceReader(Batching):
    """Reads and decodes the pictures of sources, and puts them together to parts."""

    def parts(
        self,
        spec: ImageSpec,
        sources: Iterable[EncodingSource],
        size: int,
        skip: Skip,
        begin: Callable[[EncodingSource], Assembly],
        wants: Callable[[Sample], bool] | None = None,
    ) -> Iterator[tuple[EncodingSource, Any]]:
        """Process sources one after another; yields each finished part, and the `End` of a part that is not kept.

        Parts that `skip` names and samples that nobody wants are read past, but not decoded.
        """
        workers = default_workers() if self.workers is None else max(1, self.workers)
        with ThreadPoolExecutor(workers, thread_name_prefix="captrain-decode") as pool:
            events = self._read(spec, sources, size, skip, wants, pool)
            with ahead(events, 2 * self.batch_size + 4 * workers) as ready:
                yield from _finished(ready, begin)

    def _read(
        self,
        spec: ImageSpec,
        sources: Iterable[EncodingSource],
        size: int,
        skip: Skip,
        wants: Callable[[Sample], bool] | None,
        pool: ThreadPoolExecutor,
    ) -> Iterator[Event]:
        """Everything that sources give, in order; pictures are already being decoded."""

        def decode(sample: Sample) -> Decoded:
            try:
                data = sample.read()
            except OSError as error:
                raise PictureError(f"can't be read: {error.strerror or error}") from None
            return prepare(data, spec, self.max_pixels), content_key(data)

        for source in sources:
            source.fingerprint  # noqa: B018  # taken before it is read: what changes meanwhile is then noticed the next time
            part = 0
            for event in source.parts(size):
                done = skip(source, part)
                if isinstance(event, End):
                    part += 1
                    if not done:
                        yield source, event, None
                elif not done and (wants is None or wants(event)):
                    yield source, event, pool.submit(decode, event)


def _finished(
    events: Iterable[Event], begin: Callable[[EncodingSource], Assembly]
) -> Iterator[tuple[EncodingSource, Any]]:
    part: Assembly | None = None
    for source, event, decoded in events:
        part = part or begin(source)
        if isinstance(event, End):
            yield source, event if event.unread else part.finish(source, event)
            part = None
        elif decoded is not None:
            part.add(event, decoded)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How to encode: kind of number that is kept, pictures at a time, threads that decode, longest caption in words."""

    dtype: str
    batch_size: int = 32
    workers: int | None = None
    max_pixels: int = MAX_PIXELS
    max_words: int | None = None

    def shards(
        self, encoder: Encoder, sources: Iterable[EncodingSource], size: int, skip: Skip
    ) -> Iterator[tuple[EncodingSource, FeatureShard | End]]:
        """Encode sources one after another; yields each finished shard, and the `End` of a part that is not kept."""
        reader = SourceReader(self.batch_size, self.workers, self.max_pixels)
        return reader.parts(encoder.spec, sources, size, skip, lambda source: _Part(self, encoder))


@dataclass(slots=True)
class _Part:
    """A part that is being encoded."""

    pipeline: Pipeline
    encoder: Encoder
    rows: IndexRows = field(default_factory=IndexRows)
    rejects: Rejects = field(default_factory=Rejects)
    pixels: list[np.ndarray] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    waiting: Tensor | None = None  # what the device may still be computing

    def add(self, sample: Sample, decoded: Future[Decoded]) -> None:
        """Take in one picture when it is decoded; one that can't be is rejected."""
        try:
            pixels, content = decoded.result()
        except PictureError as error:
            self.rejects.add(sample.id, sample.source or sample.id, str(error))
            return
        self.rows.entries.append(IndexEntry(sample.id, self._captions(sample), sample.source, content))
        self.pixels.append(pixels)
        if len(self.pixels) == self.pipeline.batch_size:
            self._flush()

    def finish(self, source: EncodingSource, end: End) -> FeatureShard:
        """The finished shard."""
        self._flush()
        self._collect()
        rejects = Rejects(end.rejects.lines + self.rejects.lines)
        return FeatureShard(
            part_name(source, end.part), source.split, source.label, source.fingerprint, end.part, end.last,
            self.rows, self.blocks, rejects,
        )  # fmt: skip

    def _captions(self, sample: Sample) -> tuple[str, ...]:
        most = self.pipeline.max_words
        return sample.captions if most is None else tuple(" ".join(text.split()[:most]) for text in sample.captions)

    def _flush(self) -> None:
        """Start a batch, then fetch the one before, so that the device always has work."""
        if self.pixels:
            made = self.encoder.encode(torch.from_numpy(np.stack(self.pixels))).to(KINDS[self.pipeline.dtype])
            self.pixels.clear()
            self._collect()
            self.waiting = made

    def _collect(self) -> None:
        if self.waiting is None:
            return
        found = self.waiting.cpu().contiguous()
        self.waiting = None
        if not all(bool(torch.isfinite(end)) for end in torch.aminmax(found)):
            raise ModelError(
                f"{self.encoder.note.name}: makes features that {self.pipeline.dtype} can't hold (up to "
                f"{torch.finfo(found.dtype).max:.0f}); use --dtype bfloat16 or float32, or --precision fp32"
            )
        self.blocks.append(as_numbers(found).astype(NUMBERS[self.pipeline.dtype][1], copy=False))


def part_name(source: EncodingSource, part: int) -> str:
    """What the shard of a part is called."""
    return f"{source.name}.{part:03d}"


class ahead:  # noqa: N801  # used like a function: `with ahead(items, 8) as ready`
    """Run an iterator on a thread of its own, at most so many items ahead; its exceptions are raised here."""

    def __init__(self, items: Iterator[Any], most: int) -> None:
        self.items = items
        self.queue: queue.Queue[Any] = queue.Queue(most)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="captrain-read", daemon=True)

    def __enter__(self) -> Iterator[Any]:
        self.thread.start()
        return self._given()

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            for item in self.items:
                if not self._put((item, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:
            self._put((None, error))

    def _put(self, item: Any) -> bool:
        """Wait for room, unless the reader has stopped."""
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _given(self) -> Iterator[Any]:
        while True:
            item, error = self.queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item


class Behind:
    """Does one thing at a time on a thread of its own, a few calls in advance; the next call or leaving raises its errors."""

    def __init__(self, do: Callable[[Any], object]) -> None:
        self.do = do
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="captrain-write")
        self.waiting: list[Future[object]] = []

    def __enter__(self) -> Behind:
        return self

    def __call__(self, item: Any) -> None:
        """Hand over one item; waits while too many are waiting."""
        while len(self.waiting) > SHARDS_WAITING:
            self.waiting.pop(0).result()
        self.waiting.append(self.pool.submit(self.do, item))

    def __exit__(self, kind: object, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self.waiting:
                future.result()
