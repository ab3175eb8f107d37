"""Text of people's files: one rule for its encoding, and for what is not text at all.

A byte-order mark says the encoding, whatever was asked for. Without one a file is in the encoding asked for, else in UTF-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from captrain.disk.reading import POINTER, UTF_8, is_pointer, mark_of, open_file
from captrain.limits import LONGEST_CAPTION, TOO_LONG

SHORTEST_WIDE = 12  # bytes of UTF-16 from which on it is known without its mark: four of five characters of one script
LARGEST_TEXT = 1 << 20  # bytes; no caption file is larger, so a larger one is something else

_BREAKS = re.compile("\r\n|[\n\r\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")  # a mark in the middle of a text does not count
_CONTROL_BYTES = bytes({*range(32)} - {*b"\t\n\r"})


@dataclass(frozen=True, slots=True)
class Text:
    """What a file says, and how it says it, so that a changed text is written as the old one was; `raw` is all of its bytes."""

    content: str
    encoding: str = UTF_8
    mark: bytes = b""
    raw: bytes = b""

    def lines(self) -> tuple[str, ...]:
        """Its lines, without those that are blank."""
        return lines_of(self.content)

    def encoded(self, content: str) -> bytes:
        """Another content, written in the same way: encoding, mark and line breaks. Raises `ValueError` if it can't be."""
        breaks = "\r\n" if "\r\n" in self.content else "\n"
        try:
            return self.mark + _BREAKS.sub(breaks, content).encode(self.encoding)
        except UnicodeEncodeError as error:
            letter = content[error.start]
            raise ValueError(f"is in {self.encoding}, which has no {letter!r}; save it as UTF-8") from None


def decode_text(content: bytes, encoding: str = "") -> Text:
    """The text in some bytes. Raises `ValueError` with the reason, worded to follow a file name, if they hold none.

    Args:
        encoding: of bytes without a byte-order mark; "" for UTF-8.

    >>> decode_text(b"\\xff\\xfea\\x00", "cp932").content, decode_text("猫".encode("cp932"), "cp932").content
    ('a', '猫')
    """
    mark, marked = mark_of(content)
    name = marked or encoding or UTF_8
    if not marked and not encoding:
        _refuse_unmarked(content)
    try:
        found = content[len(mark) :].decode(name)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not {name.upper()} (byte {len(mark) + error.start})") from None
    return Text(found, name, mark, content)


def read_text(path: Path, encoding: str = "") -> Text:
    """The text in a caption file. Raises `ValueError` with the reason if it holds none, `OSError` if it can't be read."""
    with open_file(path) as file:
        content = file.read(LARGEST_TEXT + 1)
    if is_pointer(content):
        raise ValueError(POINTER)
    if len(content) > LARGEST_TEXT:
        raise ValueError(TOO_LONG)
    found = decode_text(content, encoding)
    if len(found.content) > LONGEST_CAPTION:
        checked(found.lines())
    return found


def is_wide(encoding: str) -> bool:
    """Whether a codec writes a line break in several bytes, so that a file's bytes can't be read a line at a time.

    >>> is_wide("utf-16"), is_wide("utf-8-sig"), is_wide("cp932")
    (True, False, False)
    """
    return "\n".encode(encoding)[-1:] != b"\n" or len("\n\n".encode(encoding)) > len("\n".encode(encoding)) + 1


def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a text, stripped, without those that are blank.

    Other characters that Python's `splitlines` breaks at (form feeds, NEL) stay: they are flagged as control characters.

    >>> lines_of("a dog\\r\\n\\n a cat")
    ('a dog', 'a cat')
    """
    return tuple(stripped for line in _BREAKS.split(text) if (stripped := line.strip()))


def checked(captions: tuple[str, ...]) -> tuple[str, ...]:
    """Some captions as they are. Raises `ValueError` with the reason where one is longer than any caption."""
    if any(len(caption) > LONGEST_CAPTION for caption in captions):
        raise ValueError(TOO_LONG)
    return captions


def control_in(text: str) -> str:
    """The first control character of a caption, "" if it has none; line breaks and tabs do not count.

    >>> control_in("a\\x07dog"), control_in("a dog")
    ('\\x07', '')
    """
    found = _CONTROLS.search(text)
    return found.group() if found else ""


def _refuse_unmarked(content: bytes) -> None:
    """Raise `ValueError` for UTF-16 without a mark, in which every second byte says the script: 0 is Latin, 4 Cyrillic."""
    even, odd = (len(half) - len(half.translate(None, _CONTROL_BYTES)) for half in (content[::2], content[1::2]))
    most, least = max(even, odd), min(even, odd)
    if len(content) % 2 or len(content) < SHORTEST_WIDE or most * 5 < len(content) * 2 or least * 4 > most:
        return
    name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        found = content.decode(name)
    except UnicodeDecodeError:
        return
    if all(letter.isprintable() or letter.isspace() for letter in found):
        raise ValueError(f"is not UTF-8 but looks like UTF-16 without its mark; --encoding {name} reads it")
