"""Look over a whole data set: every picture is decoded, every caption read, once, on threads, in bounded memory.

Threads, not processes: Pillow lets others run while it decodes, and nothing has to be sent. benchmarks/decode.py compares
both; on a machine that is busy with other work, processes were up to twice as fast.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.check.captions import COMMON, CaptionTally, CountTokens, Lengths
from captrain.data.check.pictures import PATCH, Look, look_at, near_groups, same_groups
from captrain.data.check.problems import KINDS, Finding, Findings, kind_of_picture_error, kind_of_reject
from captrain.data.dataset import read_splits
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.samples import JoinedSamples
from captrain.disk.locks import only_writer
from captrain.errors import PictureError
from captrain.picture_memory import MAX_PIXELS
from captrain.progress import track
from captrain.records import Rejects, Sample, write_jsonl

BATCH = 32  # pictures a thread takes at a time
AHEAD = 4  # batches per thread that may wait to be taken in
EXAMPLES = 3
"""How many problems of each kind are listed by name."""


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """The limits beyond which something is a problem: pixels in all, pixels of the shorter edge, words, tokens."""

    max_pixels: int = MAX_PIXELS
    min_edge: int = 64
    max_words: int = 100
    max_tokens: int = 64


@dataclass(frozen=True)
class Checked:
    """What a check found. `images` counts those that a reader gives, also those whose pixels turn out to be unusable."""

    images: int
    captions: int
    splits: dict[str, int]
    captions_per_image: tuple[int, float, int]  # fewest, mean, most
    size: tuple[int, int] | None  # median width and height
    words: Lengths | None
    tokens: Lengths | None
    vocabulary: int
    common_words: tuple[tuple[str, int], ...]
    findings: Findings = field(repr=False)
    samples: Sequence[Sample] = field(repr=False)
    rejects: Rejects = field(repr=False)

    @property
    def wrong(self) -> int:
        """Problems that are more than remarks."""
        return self.findings.count("wrong")

    def lines(self) -> Iterator[dict[str, str]]:
        """All problems, as lines for a rejects file: those of the reader, then those of pictures as they were found."""
        told = chain(self.rejects.lines, self.rejects.remarks)
        sample_at = lru_cache(maxsize=1)(self.samples.__getitem__)  # a picture's problems follow each other
        for finding in self.findings:
            kind = KINDS[finding.kind]
            about = next(told) if finding.picture < 0 else _about(finding, sample_at)
            yield {**about, "problem": kind.name, "grade": kind.grade}

    def examples(self) -> dict[str, list[dict[str, str]]]:
        """The first few problems of each kind, as `lines` gives them."""
        counts = self.findings.counts()
        examples: dict[str, list[dict[str, str]]] = {name: [] for name in counts}
        told = chain(self.rejects.lines, self.rejects.remarks)
        for finding in self.findings:
            about = next(told) if finding.picture < 0 else None
            if len(examples[finding.kind]) < EXAMPLES:
                examples[finding.kind].append(about or _about(finding, self.samples.__getitem__))
        return examples

    @only_writer("path")
    def write_rejects(self, path: Path) -> None:
        """Write one line per problem: id, where, reason, problem, grade."""
        write_jsonl(path, self.lines())

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        fewest, mean, most = self.captions_per_image
        examples = self.examples()
        return {
            "images": self.images,
            "captions": self.captions,
            "splits": self.splits,
            "captions_per_image": {"fewest": fewest, "mean": mean, "most": most},
            "median_size": self.size,
            "words": self.words and self.words.to_dict(),
            "tokens": self.tokens and self.tokens.to_dict(),
            "vocabulary": self.vocabulary,
            "common_words": dict(self.common_words),
            "wrong": self.wrong,
            "remarks": self.findings.count("remark"),
            "problems": {
                name: {"grade": KINDS[name].grade, "count": count, "examples": examples[name]}
                for name, count in self.findings.counts().items()
            },
        }


def _about(finding: Finding, sample_at: Callable[[int], Sample]) -> dict[str, str]:
    sample = sample_at(finding.picture)
    return {"id": sample.id, "where": sample.source or sample.id, "reason": finding.detail}


def check_data(
    source: str,
    *,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    limits: CheckLimits | None = None,
    count_tokens: CountTokens | None = None,
    workers: int | None = None,
) -> Checked:
    """Read a data set and look at all of it.

    Args:
        count_tokens: gives the lengths of captions in tokens; captions over `limits.max_tokens` are then problems.
        workers: threads that decode. Default: one a core, at most 16.

    Raises `DataError` if nothing is there or nothing can be used.
    """
    rejects = Rejects()
    named = read_splits(source, rejects, format, options)
    return checked_splits(named, rejects, limits=limits, count_tokens=count_tokens, workers=workers)


def checked_splits(
    named: dict[str, Sequence[Sample]],
    rejects: Rejects,
    *,
    limits: CheckLimits | None = None,
    count_tokens: CountTokens | None = None,
    workers: int | None = None,
) -> Checked:
    """Look at all samples of some splits, at least one; `rejects` is what their reader left out or remarked on."""
    limits = limits or CheckLimits()
    findings = Findings()
    for line in rejects.lines:
        findings.add(kind_of_reject(line["reason"]), -1, "")
    for line in rejects.remarks:
        findings.add(line["problem"], -1, "")
    samples = JoinedSamples(list(named.values()))
    splits = {name: len(part) for name, part in named.items()}
    tally = CaptionTally(findings, limits.max_words, count_tokens, limits.max_tokens)
    album = _Album(findings, len(samples), limits.min_edge)
    counts = array("I")
    with track("check", len(samples)) as advance:
        for picture, (captions, found) in enumerate(_looks(samples, limits.max_pixels, workers)):
            tally.add(picture, captions)
            album.add(picture, found)
            counts.append(len(captions))
            advance(1)
    tally.finish(lambda picture: samples[picture].captions)
    album.find_duplicates(samples, splits)
    return _summed_up(samples, splits, counts, tally, album, rejects)


def _summed_up(
    samples: Sequence[Sample],
    splits: dict[str, int],
    counts: array[int],
    tally: CaptionTally,
    album: _Album,
    rejects: Rejects,
) -> Checked:
    per_image = np.array(counts)
    return Checked(
        images=len(samples),
        captions=int(per_image.sum()),
        splits=splits,
        captions_per_image=(int(per_image.min()), round(float(per_image.mean()), 2), int(per_image.max())),
        size=album.median_size(),
        words=Lengths.of(tally.words),
        tokens=Lengths.of(tally.tokens),
        vocabulary=len(tally.vocabulary),
        common_words=tuple(tally.vocabulary.most_common(COMMON)),
        findings=tally.findings,
        samples=samples,
        rejects=rejects,
    )


Seen = tuple[Sequence[str], Look | str]  # captions, and the picture or the reason why there is none


def _looks(samples: Sequence[Sample], max_pixels: int, workers: int | None) -> Iterator[Seen]:
    """Look at all samples on threads, never more than a few batches ahead, in order."""
    count = min(16, os.cpu_count() or 1) if workers is None else max(1, workers)

    def look(start: int) -> list[Seen]:
        return [_look(samples[place], max_pixels) for place in range(start, min(start + BATCH, len(samples)))]

    with ThreadPoolExecutor(count, thread_name_prefix="captrain-check") as pool:
        waiting: deque[Future[list[Seen]]] = deque()
        for start in range(0, len(samples), BATCH):
            waiting.append(pool.submit(look, start))
            if len(waiting) >= AHEAD * count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _look(sample: Sample, max_pixels: int) -> Seen:
    try:
        return sample.captions, look_at(sample.read(), max_pixels)
    except PictureError as error:
        return sample.captions, str(error)
    except OSError as error:
        return sample.captions, f"can't be read: {error.strerror or error}"


class _Album:
    """What is kept of all pictures, in arrays: 225 bytes each."""

    def __init__(self, findings: Findings, count: int, min_edge: int) -> None:
        self.findings, self.min_edge = findings, min_edge
        self.usable = np.zeros(count, dtype=bool)
        self.sizes = np.zeros((count, 2), dtype=np.int32)
        self.contents, self.looks = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
        self.patches = np.zeros((count, PATCH * PATCH * 3), dtype=np.uint8)

    def add(self, picture: int, found: Look | str) -> None:
        if isinstance(found, str):
            self.findings.add(kind_of_picture_error(found), picture, found)
            return
        self.usable[picture] = True
        self.sizes[picture] = found.width, found.height
        self.contents[picture], self.looks[picture] = found.content, found.look
        self.patches[picture] = found.patch
        if min(found.width, found.height) < self.min_edge:
            self.findings.add("tiny", picture, f"is only {found.width} x {found.height} pixels")
        if found.orientation > 1:
            self.findings.add("turned", picture, f"is turned upright by its EXIF orientation {found.orientation}")
        if found.animated:
            self.findings.add("animated", picture, "is an animation; its first frame is used")

    def median_size(self) -> tuple[int, int] | None:
        if not self.usable.any():
            return None
        width, height = np.median(self.sizes[self.usable], axis=0)
        return int(width), int(height)

    def find_duplicates(self, samples: Sequence[Sample], splits: dict[str, int]) -> None:
        """Groups of equal pictures, then groups of those that look alike though their bytes differ."""
        names = list(splits)
        owners = np.repeat(np.arange(len(names)), list(splits.values()))
        usable = np.flatnonzero(self.usable)
        for group in same_groups(self.contents[usable], usable):
            self._note(group, samples, owners, names, ("same", "is the same file as"))
        _, first = np.unique(self.contents[usable], return_index=True)
        different = usable[np.sort(first)]
        for group in near_groups(self.looks[different], self.patches[different], different):
            self._note(group, samples, owners, names, ("near", "looks like"))

    def _note(
        self, group: np.ndarray, samples: Sequence[Sample], owners: np.ndarray, names: list[str], kind: tuple[str, str]
    ) -> None:
        """A problem for each picture but the first of a group; across splits, for each not in the first one's split."""
        first = int(group[0])
        about = samples[first].id
        across = len(np.unique(owners[group])) > 1
        for picture in group[1:].tolist():
            other = across and owners[picture] != owners[first]
            place = f" ({names[owners[first]]})" if other else ""
            self.findings.add(f"{kind[0]}-across-splits" if other else kind[0], picture, f"{kind[1]} {about}{place}")
