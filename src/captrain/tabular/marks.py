"""Byte-order marks: what a file that begins with one says of its encoding, whatever was asked for."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from captrain.disk.reading import open_file

UTF_8 = "utf-8"
MARKS = (  # UTF-32's little-endian mark begins as UTF-16's does, so it is looked for before
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)


def mark_of(content: bytes) -> tuple[bytes, str]:
    """The mark that some bytes begin with, and the encoding it says; empty if there is none.

    >>> mark_of(b"\\xff\\xfea\\x00"), mark_of(b"a dog")
    ((b'\\xff\\xfe', 'utf-16-le'), (b'', ''))
    """
    return next(((mark, name) for mark, name in MARKS if content.startswith(mark)), (b"", ""))


def encoding_of(path: Path, encoding: str = "") -> str:
    """A codec's name to open a whole file with; a byte-order mark is not part of what is then read (see `unmarked`).

    Raises `OSError` for a file that can't be read.

    >>> encoding_of(Path(__file__)), encoding_of(Path(__file__), "cp932")
    ('utf-8-sig', 'cp932')
    """
    with open_file(path) as file:
        marked = mark_of(file.read(4))[1]
    if marked.startswith(("utf-16", "utf-32")):
        return marked[: len("utf-16")]  # without the order of bytes Python takes it from the mark, and takes that off
    if marked and marked != UTF_8:
        return marked
    return "utf-8-sig" if marked or not encoding else encoding


def unmarked(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a text, of which the first may still begin with a mark: GB18030's codec leaves it.

    >>> list(unmarked(["\ufeffa dog", "a cat"]))
    ['a dog', 'a cat']
    """
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")
