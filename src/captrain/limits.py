"""How much of a stranger's file is read, in one place: a few bytes must not become gigabytes.

What a file holds unpacked is bounded by one of two things: a number that no honest file comes near, or the bytes that are really
on the disk. So a small file can never fill the memory, and a large honest one is still read.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, AnyStr, BinaryIO

LONGEST_CAPTION = 100_000
"""Characters of one caption. The longest paragraphs that people write about a picture have a few thousand."""
LARGEST_CELL = 8 << 20
"""Bytes of one cell of text in a table, decoded: a longer one is listed as not a caption, and is not kept."""
LARGEST_SLICE = 64 << 20
"""Bytes of a table's rows that are decoded at a time, where a single row is not larger than that."""
LARGEST_PAGE = 128 << 20
"""Bytes of a page of a Parquet file, decoded. One that is stored in a quarter of that or more may be larger."""
LARGEST_LISTS = 512 << 20
"""Bytes of a column of lists in one row group, decoded: the length of a list is not known before it is read."""
LARGEST_GROUP = 2 << 30
"""Bytes of a column in one row group, decoded; with the same exception as a page."""
MOST_KEPT = 256 << 20
"""Bytes of decoded pictures of a table kept for the next ones; or their row group's size on disk if that is more."""
MOST_EMPTY_ROWS = 200_000
"""Rows of a table beyond one for each byte of its file: empty rows take no space."""
LARGEST_LINE = 16 << 20
"""Characters or bytes of a line of a table, or of an object in a JSON list, once its overlong texts are cut."""
LONG_LINE = 4 << 20
"""Characters or bytes from which on a line's overlong texts are cut."""
MOST_NESTED = 8_000_000
"""Lists and objects of a JSON text, each of which takes 60 bytes and more. If they are `SPARSELY` characters apart, as in files
of captions, there may be more."""
SPARSELY = 16
MOST_CAPTIONS = 10_000
"""Captions in one row of a table. The pictures that most people described have a few hundred."""
LONGEST_ENCODED = 12 * LONGEST_CAPTION
"""Bytes of a string in JSON that surely has over `LONGEST_CAPTION` characters: one takes twelve at most."""
LARGEST_YAML = 1 << 20
"""Bytes of a file of settings; real ones have a few hundred."""
LARGEST_INFLATED = 256 << 20
"""Bytes of a picture in a zip, unpacked. One that is stored in a quarter of that or more may be larger."""
LARGEST_UNZIPPED = 16 << 20
"""Bytes of a gzipped log, unpacked, or `UNZIPPED_TIMES` what it has on the disk if that is more."""
UNZIPPED_TIMES = 50
STORED_TIMES = 4

TOO_LONG = f"has a text of over {LONGEST_CAPTION:,} characters, which is not a caption"
"""Why a sample is left out, the same for all forms of data."""
TOO_MANY = f"lists over {MOST_CAPTIONS:,} captions, which no picture has"
"""The same for too many captions."""


_FILLING = "." * (LONGEST_CAPTION + 1)
_STRING = r'"(?:[^"\\]++|\\.)++'  # of JSON, its end perhaps not read yet; or what stands between two strings
_STRINGS: dict[type, re.Pattern[Any]] = {
    str: re.compile(_STRING, re.DOTALL),
    bytes: re.compile(_STRING.encode(), re.DOTALL),
}


def is_bomb(unpacked: int, stored: int, most: int) -> bool:
    """Whether something unpacks to more than `most` bytes and to far more than it takes on the disk.

    >>> is_bomb(3 << 30, 22_000, 1 << 30), is_bomb(3 << 30, 2 << 30, 1 << 30)
    (True, False)
    """
    return unpacked > most and unpacked > STORED_TIMES * stored


def check_nested(json: str) -> None:
    """Raise `ValueError` for JSON that is mostly brackets: `[[],[],[]...` takes twenty times its size when it is parsed.

    >>> check_nested('[{"image": "a.jpg", "caption": "a dog"}]')
    """
    if len(json) <= 2 * MOST_NESTED:
        return
    count = json.count("[") + json.count("{")
    if count > MOST_NESTED and count * SPARSELY > len(json):
        raise ValueError(f"{count:,} lists and objects in {len(json):,} characters, far more than data has")


def shortened(json: AnyStr) -> AnyStr:
    """A piece of JSON whose overlong strings are cut, so that they are still too long for a caption.

    >>> len(shortened('{"file_name": "a.jpg", "text": "' + 10_000_000 * "a")), shortened(b'{"text": "a dog"}')
    (100033, b'{"text": "a dog"}')
    """

    def cut(found: re.Match[AnyStr]) -> AnyStr:
        text = found[0]
        if len(text) <= LONGEST_ENCODED:
            return text
        return '"' + _FILLING if isinstance(text, str) else b'"' + _FILLING.encode()

    found: AnyStr = _STRINGS[type(json)].sub(cut, json)
    return found


def next_json_line(file: BinaryIO) -> bytes:
    """The next line of a file of JSON lines, its overlong strings cut; without its end where it is far too long even so.

    >>> import io
    >>> next_json_line(io.BytesIO(b'{"text": "a dog"}\\n{}'))
    b'{"text": "a dog"}\\n'
    """
    line = more = file.readline(LONG_LINE)
    while len(more) == LONG_LINE and not more.endswith(b"\n") and len(line) < LARGEST_LINE:
        more = file.readline(LONG_LINE)
        line = shortened(line + more)
    return line


def gzipped_lines(path: Path) -> Iterator[bytes]:
    """The lines of a gzipped file, one at a time.

    Raises `ValueError` for a line over `LARGEST_LINE`, and where the file unpacks to far more than it takes on the disk;
    `OSError`, `EOFError` and `zlib.error` for one that is broken.
    """
    most = max(LARGEST_UNZIPPED, UNZIPPED_TIMES * os.stat(path).st_size)
    with gzip.open(path, "rb") as file:
        while line := file.readline(LARGEST_LINE + 1):
            most -= len(line)
            if len(line) > LARGEST_LINE or most < 0:
                raise ValueError(
                    f"a line of over {LARGEST_LINE} bytes" if most >= 0 else "it unpacks to far more than it may hold"
                )
            yield line


BROKEN_GZIP = (OSError, EOFError, zlib.error)
"""What reading a broken gzipped file raises."""
