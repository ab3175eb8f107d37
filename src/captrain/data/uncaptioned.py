"""Pictures that have no caption yet: nothing is wrong with them, a training only has nothing to learn from them."""

from __future__ import annotations

from captrain.data.check.problems import kind_of_reject
from captrain.records import Rejects


def take_uncaptioned(rejects: Rejects) -> int:
    """Take out of what a reader rejected the pictures that only lack a caption; returns how many these were.

    >>> rejects = Rejects()
    >>> rejects.add("a.jpg", "a.jpg", "has no caption beside it")
    >>> rejects.add("b.txt", "b.txt", "is not UTF-8 (byte 3)")
    >>> take_uncaptioned(rejects), len(rejects)
    (1, 1)
    """
    faults = [line for line in rejects.lines if not _only_lacks_caption(line["reason"])]
    found = len(rejects.lines) - len(faults)
    rejects.lines[:] = faults
    return found


def _only_lacks_caption(reason: str) -> bool:
    """Whether a reader's reason says that there is no caption, and not what is wrong with one.

    >>> _only_lacks_caption("has no caption"), _only_lacks_caption("has no caption: its .txt is empty")
    (True, False)
    """
    return ":" not in reason and kind_of_reject(reason) in ("no-caption", "empty-caption")
