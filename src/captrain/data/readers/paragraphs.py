"""Caption files that look like one text in paragraphs, where each of their lines would be read as a caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from captrain.data.text import lines_of

LONG = 100  # bytes, so that a script of many words a letter counts as one of many letters a word

_SENTENCE = re.compile(r"[.!?][\"')\]]*\s+\S|[。！？]+[^\s。！？」』）]")
_BLANK = re.compile(r"\S[^\S\n]*\r?\n[^\S\n]*\r?\n\s*\S")


class Paragraphs:
    """Looks at text after text. A long line of several sentences tells paragraphs; so does a blank line between lines, or a
    sentence that goes on in the next line, where most texts have one line only.

    >>> looked = Paragraphs()
    >>> for name, text in {"a.txt": "a dog", "b.txt": "a cat", "c.txt": "A dog.\\n\\nIt runs.", "d.txt": "a cow"}.items():
    ...     looked.look(name, text)
    >>> list(looked.names())
    ['c.txt']
    """

    def __init__(self) -> None:
        self.one_line = self.several = 0
        self.found: dict[str, bool] = {}  # of a text: whether it tells by itself

    def look(self, name: str, content: str) -> None:
        """Take in one text that holds captions."""
        lines = lines_of(content)
        if len(lines) < 2:
            self.one_line += 1
            return
        self.several += 1
        if any(len(line.encode()) >= LONG and _SENTENCE.search(line) for line in lines):
            self.found[name] = True
        elif _BLANK.search(content) or _goes_on(lines):
            self.found[name] = False

    def names(self) -> Iterator[str]:
        """Texts that look like paragraphs, once all are in."""
        usual = self.one_line > self.several
        return (name for name, by_itself in self.found.items() if by_itself or usual)


def _goes_on(lines: tuple[str, ...]) -> bool:
    """Whether a line that begins as a sentence goes on in the next one.

    >>> _goes_on(("A dog runs over", "the grass.")), _goes_on(("a dog", "a brown dog"))
    (True, False)
    """
    return any(one[0].isupper() and one[-1].isalpha() and other[0].islower() for one, other in pairwise(lines))
