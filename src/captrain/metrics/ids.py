"""Which prediction belongs to which reference, where two files spell the ids of their images in different ways.

The rule: equal ids match. Any other two match when they are the same path, as far as both tell it: the picture's
suffix ("dog.jpg", "dog") is left out, folders that only one of the two names count for nothing ("photos/dog", "dog"),
letters that Unicode spells in two ways are one, COCO's file prefix is left out and numbers lose leading zeros
("COCO_val2014_000000391895.jpg", 391895). An id that would match two others is never matched by guess: that is an error
which names them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from captrain.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp", ".tif", ".tiff", ".txt"}
)
_COCO_PREFIX = re.compile(r"COCO_[a-z]+\d{4}_(?=\d+$)")

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """Prediction id to reference id; how many of them are spelt differently; the ids on either side that are left."""

    pairs: dict[str, str]
    respelt: int
    extra: list[str]
    missing: list[str]


def match_ids(predictions: Collection[str], references: Collection[str]) -> Matches:
    """Match ids by the rule of this module. Raises `DataError` for an id that fits two others.

    >>> match_ids(["391895", "7"], ["000000391895.jpg", "8"])
    Matches(pairs={'391895': '000000391895.jpg'}, respelt=1, extra=['7'], missing=['8'])
    """
    pairs = {id: id for id in predictions if id in references}
    open_predictions = [id for id in predictions if id not in pairs]
    open_references = [id for id in references if id not in pairs]
    respelt = _respelt(open_predictions, open_references) if open_predictions and open_references else {}
    taken = set(respelt.values())
    return Matches(
        pairs={id: pairs.get(id) or respelt[id] for id in predictions if id in pairs or id in respelt},
        respelt=len(respelt),
        extra=[id for id in open_predictions if id not in respelt],
        missing=[id for id in open_references if id not in taken],
    )


def path_parts(id: str) -> Parts:
    """An id as folders and a plain name, in the spelling that is compared.

    >>> path_parts("val\\\\COCO_val2014_000000391895.jpg"), path_parts("./a/dog.png"), path_parts("000")
    (('val', '391895'), ('a', 'dog'), ('0',))
    """
    path = PurePosixPath(unicodedata.normalize("NFC", id.replace("\\", "/")))
    *folders, name = [part for part in path.parts if part not in ("/", ".")] or [id]
    name = name[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else name
    name = _COCO_PREFIX.sub("", name)
    return (*folders, name.lstrip("0") or "0") if name.isdecimal() else (*folders, name)


def some(ids: Sequence[str]) -> str:
    """The first few ids, for an error or a note.

    >>> some(["1", "2", "3", "4"])
    "'1', '2', '3', ..."
    """
    return ", ".join(f"'{id[:80]}'" for id in ids[:3]) + (", ..." if len(ids) > 3 else "")


def _respelt(predictions: Iterable[str], references: Iterable[str]) -> dict[str, str]:
    """Prediction id to the one reference id that is the same path."""
    by_name: dict[str, list[tuple[Parts, str]]] = {}
    for id in references:
        parts = path_parts(id)
        by_name.setdefault(parts[-1], []).append((parts, id))
    found: dict[str, str] = {}
    owner: dict[str, str] = {}
    for id in predictions:
        reference = _same_path(id, by_name)
        if reference is None:
            continue
        if reference in owner:
            raise DataError(
                f"predictions {some([owner[reference], id])} both fit the reference '{reference}'; "
                "write ids as the references do"
            )
        found[id], owner[reference] = reference, id
    return found


def _same_path(id: str, by_name: dict[str, list[tuple[Parts, str]]]) -> str | None:
    parts = path_parts(id)
    fitting = [(known, other) for known, other in by_name.get(parts[-1], ()) if _one_ends_the_other(parts, known)]
    whole = [(known, other) for known, other in fitting if known == parts]
    fitting = whole or fitting
    if len(fitting) > 1:
        raise DataError(
            f"prediction '{id}' fits {len(fitting)} references ({some([other for _, other in fitting])}); "
            "write ids as the references do"
        )
    return fitting[0][1] if fitting else None


def _one_ends_the_other(first: Parts, second: Parts) -> bool:
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]
