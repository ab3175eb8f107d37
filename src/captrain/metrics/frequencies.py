"""In how many images of a named corpus each n-gram is mentioned: what CIDEr weighs words by."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from captrain.disk.writing import new_file
from captrain.errors import DataError, UserError
from captrain.limits import BROKEN_GZIP, gzipped_lines
from captrain.metrics.ngrams import BITS, LONGEST, SECOND, NgramTable, Numbers
from captrain.metrics.references import References
from captrain.metrics.texts import check_references
from captrain.metrics.tokenizer import token_lines

_FORMAT = "captrain document frequencies 1"
_NAME = re.compile(r"[\w.-]{1,64}")
_ROWS = 20_000  # in one line of the file
# More than four times what all of COCO's training captions need; a file beyond it is not read.
_MOST_NGRAMS = 50_000_000


@dataclass(frozen=True)
class DocumentFrequencies:
    """The n-grams of a corpus and, for each length, in how many of its images each of them stands.

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

        Raises `DataError` where an image has no reference, `UserError` for a name that can't stand in a signature.

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
    _require(isinstance(head, dict) and head.get("format") == _FORMAT, "its first line names no known format")
    name, images, tokenizer, sizes = head["name"], head["images"], head["tokenizer"], head["sizes"]
    _require(isinstance(name, str) and _NAME.fullmatch(name) is not None, "its name is no name")
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
    _require(len(words) == len(numbered) == size, "words that come up twice")
    _require(all(isinstance(word, str) and word.split() == [word] for word in words), "words that are none")
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
