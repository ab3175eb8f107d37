"""Text that is safe to show on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text on one line, with what could steer a terminal (in a file name, say) as escapes.

    >>> printable("a\\n  b"), printable("\\x1b[31mred")
    ('a b', '\\\\x1b[31mred')
    """
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
