"""Document frequencies: in how many images of a named corpus each n-gram is mentioned. CIDEr weighs words by them.

The checks at the end refuse texts that can't be scored. Each error is one line that says what was found and what to do.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from captrain.disk.writing import new_file
from captrain.errors import DataError, UserError
from captrain.limits import BROKEN_GZIP, LONGEST_CAPTION, gzipped_lines
from captrain.metrics.ngrams import BITS, LONGEST, SECOND, NgramTable, Numbers, References
from captrain.metrics.tokenizer import token_lines

_FORMAT = "captrain document frequencies 1"
_NAME = re.compile(r"[\w.-]{1,64}")
_ROWS = 20_000  # in one line of the file
# More than four times what all of COCO's training captions need; a file beyond it is not read.
_MOST_NGRAMS = 50_000_000


@dataclass(frozen=True)
class DocumentFrequencies:
    """The n-grams of a corpus and, for each length, in how many of its images each of them occurs.

    With the same frequencies, CIDEr of a few captions compares with that of a large set.
    """

    name: str
    images: int
    tokenizer: str
    table: NgramTable
    images_with: list[Numbers]

    @property
    def label(self) -> str:
        """How signatures name them: "coco-val2017(5000)"."""
        return f"{self.name}({self.images})"

    @classmethod
    def of(
        cls, references: Mapping[str, Sequence[str]], tokenizer: str = "ptb", *, name: str = "corpus"
    ) -> DocumentFrequencies:
        """Count the references (image id to its captions, plain text) of a corpus.

        Raises `DataError` if an image has no reference, `UserError` for a name that can't stand in a signature.

        >>> DocumentFrequencies.of({"1": ["a dog", "a cat"], "2": ["a bus"]}, name="toy").label
        'toy(2)'
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"'{name}' can't name document frequencies: use up to 64 letters, digits, '.', '_' and '-'")
        check_references(references)
        lines = token_lines([caption for captions in references.values() for caption in captions], tokenizer)
        counted = References([len(captions) for captions in references.values()], lines)
        return cls(name, len(references), tokenizer, counted.table, counted.images_with())

    def save(self, path: str | Path) -> None:
        """Write them as JSON lines, gzipped; the same frequencies give the same bytes."""
        with new_file(Path(path)) as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for row in self._rows():
                file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> DocumentFrequencies:
        """Read what `save` wrote. Raises `DataError`, one line, if the file is missing, broken or too large."""
        try:
            return _read(gzipped_lines(Path(path)))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file, expected document frequencies that were saved there") from None
        except (*BROKEN_GZIP, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise DataError(
                f"{path}: not a file of document frequencies ({reason}); make one with DocumentFrequencies.of and save"
            ) from None

    def _rows(self) -> Iterator[dict[str, Any]]:
        sizes = self.table.sizes()
        yield {
            "format": _FORMAT,
            "name": self.name,
            "images": self.images,
            "tokenizer": self.tokenizer,
            "sizes": sizes,
        }
        words = list(self.table.words)
        for start in range(0, sizes[0], _ROWS):
            part = slice(start, start + _ROWS)
            yield {"words": words[part], "images": self.images_with[0][part].tolist()}
        for keys, seen in zip(self.table.keys, self.images_with[1:], strict=True):
            for start in range(0, len(keys), _ROWS):
                part = slice(start, start + _ROWS)
                first, last = (keys[part] >> BITS).tolist(), (keys[part] & SECOND).tolist()
                yield {"first": first, "last": last, "images": seen[part].tolist()}


def _read(lines: Iterator[bytes]) -> DocumentFrequencies:
    """From the lines of a file; any `ValueError`, `KeyError` or `TypeError` means that they are not what `save` wrote."""
    head = json.loads(next(lines, b""))
    _require(isinstance(head, dict) and head.get("format") == _FORMAT, "its first line does not name a known format")
    name, images, tokenizer, sizes = head["name"], head["images"], head["tokenizer"], head["sizes"]
    _require(isinstance(name, str) and _NAME.fullmatch(name) is not None, "its name is not one")
    _require(isinstance(tokenizer, str) and isinstance(images, int) and 0 <= images <= SECOND, "bad first line")
    _require(len(sizes) == LONGEST and all(isinstance(size, int) and size >= 0 for size in sizes), "bad sizes")
    _require(sum(sizes) <= _MOST_NGRAMS, f"it has {sum(sizes)} n-grams, more than {_MOST_NGRAMS}")
    words, seen = _read_words(lines, sizes[0])
    all_keys, all_seen = [], [seen]
    for shorter, size in pairwise(sizes):
        first, last, seen = _read_columns(lines, size)
        keys = first << BITS | last
        _require(bool(np.all((first >= 0) & (first < shorter) & (last >= 0) & (last < sizes[0]))), "unknown words")
        _require(bool(np.all(np.diff(keys) > 0)), "n-grams out of order")
        all_keys.append(keys)
        all_seen.append(seen)
    _require(all(bool(np.all((seen >= 1) & (seen <= images))) for seen in all_seen), "more mentions than images")
    return DocumentFrequencies(name, images, tokenizer, NgramTable(words, all_keys), all_seen)


def _read_words(lines: Iterator[bytes], size: int) -> tuple[dict[str, int], Numbers]:
    words: list[str] = []
    seen: list[int] = []
    while len(words) < size:
        row = json.loads(next(lines, b""))
        _require(len(row["words"]) == len(row["images"]) > 0, "rows of unequal length")
        words += row["words"]
        seen += row["images"]
    numbered = {word: number for number, word in enumerate(words)}
    _require(len(words) == len(numbered) == size, "words that come twice")
    _require(all(isinstance(word, str) and word.split() == [word] for word in words), "words that are not text")
    return numbered, _whole_numbers(seen)


def _read_columns(lines: Iterator[bytes], size: int) -> list[Numbers]:
    columns: list[list[Numbers]] = [[_whole_numbers([])], [_whole_numbers([])], [_whole_numbers([])]]
    rows = 0
    while rows < size:
        row = json.loads(next(lines, b""))
        parts = [_whole_numbers(row[key]) for key in ("first", "last", "images")]
        _require(len(parts[0]) == len(parts[1]) == len(parts[2]) > 0, "rows of unequal length")
        rows += len(parts[0])
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
    _require(rows == size, "more rows than it says")
    return [np.concatenate(column) for column in columns]


def _whole_numbers(values: list[int]) -> Numbers:
    numbers = np.array(values)
    _require(not values or (numbers.ndim == 1 and numbers.dtype == np.int64), "numbers that are not whole")
    return numbers.astype(np.int64)


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise ValueError(otherwise)


MOST_CHARACTERS = LONGEST_CAPTION
"""A longer caption is a mistake in the input (such as a whole file in one field), and would be slow to score."""


def check_pairs(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` unless captions and references are of the same images, and there are some."""
    if not predictions and not references:
        raise DataError("nothing to score: found no captions and no references")
    if missing := [id for id in references if id not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(references)} images with references have no caption ({_some(missing)}); "
            "caption them, or leave out their references"
        )
    if extra := [id for id in predictions if id not in references]:
        raise DataError(
            f"{len(extra)} of {len(predictions)} captions have no references ({_some(extra)}); "
            "add references under the same id, or leave out these captions"
        )


def check_captions(ids: Iterable[str], captions: Iterable[object]) -> None:
    """Raise `DataError` unless every caption is text of a sensible length."""
    for id, caption in zip(ids, captions, strict=True):
        _check_text(id, caption, "caption")


def check_references(references: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` unless every image has a list of one or more texts."""
    for id, captions in references.items():
        if isinstance(captions, str):
            raise DataError(f"references of '{id}' are one text, expected a list of captions: put it in [ ]")
        if not isinstance(captions, Sequence):
            raise DataError(f"references of '{id}' are {captions!r:.40}, expected a list of captions")
        if not captions:
            raise DataError(f"image '{id}' has no references; add a caption, or leave the image out")
        for caption in captions:
            _check_text(id, caption, "reference")


def _check_text(id: str, caption: object, role: str) -> None:
    if not isinstance(caption, str):
        raise DataError(f"the {role} of '{id}' is {caption!r:.40}, expected text; an empty caption is \"\"")
    if len(caption) > MOST_CHARACTERS:
        raise DataError(
            f"the {role} of '{id}' has {len(caption)} characters, expected at most {MOST_CHARACTERS}: "
            "is a whole file in one caption?"
        )


def _some(ids: Sequence[str]) -> str:
    """The first few ids.

    >>> _some(["1", "2", "3", "4"])
    "'1', '2', '3', ..."
    """
    return ", ".join(f"'{id}'" for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
