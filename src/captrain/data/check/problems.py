"""What can be wrong with a data set: the kinds by name, and the list of what was found."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from captrain.data.caption_buffers import FlatTexts
from captrain.limits import TOO_LONG, TOO_MANY

Grade = Literal["wrong", "remark"]


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem. `wrong`: not used in training, or harmful to it. `remark`: used, and good to know."""

    name: str
    grade: Grade
    title: str


KINDS: dict[str, ProblemKind] = {
    kind.name: kind
    for kind in (
        ProblemKind("no-caption", "wrong", "pictures without a caption"),
        ProblemKind("no-picture", "wrong", "captions without a picture"),
        ProblemKind("not-a-caption", "wrong", "cells that hold no caption"),
        ProblemKind("broken-row", "wrong", "rows of a table that are broken"),
        ProblemKind("not-utf-8", "wrong", "texts in another encoding (--encoding says which)"),
        ProblemKind("left-out", "wrong", "left out for another reason"),
        ProblemKind("unreadable", "wrong", "pictures that can't be read"),
        ProblemKind("truncated", "wrong", "pictures cut short"),
        ProblemKind("too-large", "wrong", "pictures over the pixel limit"),
        ProblemKind("same-across-splits", "wrong", "the same picture in two splits"),
        ProblemKind("near-across-splits", "wrong", "nearly the same picture in two splits"),
        ProblemKind("empty-caption", "wrong", "empty captions"),
        ProblemKind("garbled", "wrong", "captions with garbled letters"),
        ProblemKind("control-characters", "wrong", "captions with control characters"),
        ProblemKind("cut", "wrong", "captions longer than the model takes"),
        ProblemKind("marked", "remark", "captions that the data marks as not to be used"),
        ProblemKind("unlisted", "remark", "pictures that no table lists"),
        ProblemKind("unread", "remark", "tables that are not read"),
        ProblemKind("tiny", "remark", "tiny pictures"),
        ProblemKind("turned", "remark", "pictures turned upright by EXIF"),
        ProblemKind("animated", "remark", "animations (the first frame is used)"),
        ProblemKind("same", "remark", "the same picture twice"),
        ProblemKind("near", "remark", "nearly the same picture twice"),
        ProblemKind("long-caption", "remark", "very long captions"),
        ProblemKind("caption-twice", "remark", "the same caption twice for a picture"),
        ProblemKind("caption-shared", "remark", "the same caption on many pictures"),
        ProblemKind("machine-made", "remark", "pictures with captions that captrain wrote"),
        ProblemKind("two-texts", "remark", "two caption files for one picture"),
        ProblemKind("shared-text", "remark", "one caption file for several pictures"),
        ProblemKind("paragraphs", "remark", "caption files that may be one text (--caption-lines whole)"),
    )
}
_NUMBERS = {name: number for number, name in enumerate(KINDS)}
_NAMES = tuple(KINDS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one picture: its number among the samples, or -1 for what the reader reported, its rejects first."""

    kind: str
    picture: int
    detail: str


class Findings:
    """Everything found, in flat buffers, so that a million problems do not take a million objects.

    >>> findings = Findings()
    >>> findings.add("tiny", 4, "is 1 x 1 pixels")
    >>> findings.counts(), list(findings)
    ({'tiny': 1}, [Finding(kind='tiny', picture=4, detail='is 1 x 1 pixels')])
    """

    def __init__(self) -> None:
        self._kinds, self._pictures, self._details = array("B"), array("q"), FlatTexts()

    def add(self, kind: str, picture: int, detail: str) -> None:
        """Note a problem; `detail` is worded to follow a file name."""
        self._kinds.append(_NUMBERS[kind])
        self._pictures.append(picture)
        self._details.append(detail)

    def __len__(self) -> int:
        return len(self._kinds)

    def __iter__(self) -> Iterator[Finding]:
        for number, picture, detail in zip(self._kinds, self._pictures, self._details, strict=True):
            yield Finding(_NAMES[number], picture, detail)

    def counts(self) -> dict[str, int]:
        """How many of each kind that was found, in the order of `KINDS`."""
        counts = ((name, self._kinds.count(number)) for number, name in enumerate(_NAMES))
        return {name: count for name, count in counts if count}

    def count(self, grade: Grade) -> int:
        """How many of a grade."""
        return sum(count for name, count in self.counts().items() if KINDS[name].grade == grade)


_REASONS = (  # words in a reader's reason → the kind; the first that fits
    (TOO_LONG, "not-a-caption"),
    (TOO_MANY, "not-a-caption"),
    ("not UTF-8", "not-utf-8"),
    ("(byte ", "not-utf-8"),  # "is not CP932 (byte 3)"
    ("can't be read", "unreadable"),
    ("holds no caption", "empty-caption"),
    ("no caption", "no-caption"),
    ("where a caption belongs", "not-a-caption"),
    ("is a row of", "broken-row"),
    ("no image", "no-picture"),
    ("not there", "no-picture"),
)


def kind_of_reject(reason: str) -> str:
    """The kind of problem that a reader's reason describes.

    >>> kind_of_reject("has no image beside it"), kind_of_reject("is a .heic file, which is not read")
    ('no-picture', 'left-out')
    """
    return next((kind for words, kind in _REASONS if words in reason), "left-out")


def kind_of_picture_error(reason: str) -> str:
    """The kind of problem that a `PictureError` of `captrain.data.decode` describes.

    >>> kind_of_picture_error("is truncated (12 bytes)"), kind_of_picture_error("is empty (0 bytes)")
    ('truncated', 'unreadable')
    """
    if reason.startswith("is truncated"):
        return "truncated"
    too_large = "over the limit of" in reason or reason.startswith(("unpacks to", "needs more memory"))
    return "too-large" if too_large else "unreadable"
