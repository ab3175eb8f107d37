"""By which columns the images of predictions and references are matched, where their files have several that may name them.

The columns by which most images are matched are taken; of equal ones those that leave fewer images over, that do not only
number the rows of a file (a file name wins over such an `id`), that spell ids the same, and then those that usually name
images.

Which prediction belongs to which reference, where two files spell the ids of their images in different ways.

The rule: equal ids match. Any other two match when they are the same path, as far as both tell it: the picture's
suffix ("dog.jpg", "dog") is left out, folders that only one of the two names count for nothing ("photos/dog", "dog"),
letters that Unicode spells in two ways are one, COCO's file prefix is left out and numbers lose leading zeros
("COCO_val2014_000000391895.jpg", 391895). An id that would match two others is never matched by guess: that is an error
which names them.

Captions to score as Python has them: dictionaries from the ids of images.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from captrain.errors import DataError
from captrain.metrics.inputs import Read, checked_id, checked_text

Rank = tuple[int, int, int, int]


def choose_columns(systems: Mapping[str, Read[Any]], references: Read[Any]) -> tuple[str, dict[str, str]]:
    """The column of the references, and that of each system.

    >>> captions = Read({"id": {"b.jpg": "a dog"}})
    >>> choose_columns({"mine": captions}, Read({"id": {"1": ["a cat"]}, "file_name": {"b.jpg": ["a dog"]}}))
    ('file_name', {'mine': 'id'})
    """
    if len(references.by_column) == 1 and all(len(system.by_column) == 1 for system in systems.values()):
        return next(iter(references.by_column)), {
            name: next(iter(system.by_column)) for name, system in systems.items()
        }
    best: tuple[Rank, str, dict[str, str]] | None = None
    for column in references.by_column:
        chosen = {name: _best_of(system, references, column) for name, system in systems.items()}
        ranks = [rank for rank, _ in chosen.values()]
        total: Rank = tuple(map(sum, zip(*ranks, strict=True)))  # type: ignore[assignment]
        if best is None or total > best[0]:
            best = total, column, {name: own for name, (_, own) in chosen.items()}
    assert best is not None, "a file that was read has a column of ids"
    return best[1], best[2]


def _best_of(system: Read[Any], references: Read[Any], column: str) -> tuple[Rank, str]:
    """The column of a system that goes best with one of the references, and how well."""
    known = references.by_column[column]
    numbering = column in references.numbering
    ranked = [(_rank(ids, known, numbering + (own in system.numbering)), own) for own, ids in system.by_column.items()]
    return max(ranked, key=lambda pair: pair[0])


def _rank(ids: Collection[str], known: Collection[str], numbering: int) -> Rank:
    try:
        found = match_ids(ids, known)
    except DataError:  # an id that fits two others
        return -1, 0, 0, 0
    left = len(found.extra) + len(found.missing)
    return len(found.pairs), -left, -numbering, -found.respelt


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


def given_predictions(source: object) -> dict[str, str]:
    """Image id to its one caption, of a dictionary. A list of one caption is that caption.

    Raises `DataError` as `predictions_in` does.

    >>> given_predictions({1: "a dog", "2": ["two cats"]})
    {'1': 'a dog', '2': 'two cats'}
    """
    found = _dictionary(source, "predictions")
    for id, captions in found.items():
        if len(captions) != 1:
            raise DataError(f"predictions: found {len(captions)} captions for '{id}', expected one to score")
    return {id: captions[0] for id, captions in found.items()}


def given_references(source: object) -> dict[str, list[str]]:
    """Image id to its references, of a dictionary. A text is the one reference of its image.

    Raises `DataError` as `references_in` does.

    >>> given_references({"1": "a dog", "2": ["two cats", "cats"]})
    {'1': ['a dog'], '2': ['two cats', 'cats']}
    """
    found = _dictionary(source, "references")
    for id, captions in found.items():
        if not captions:
            raise DataError(f"references: image '{id}' has none; add one, or leave the image out")
    return found


def _dictionary(source: object, role: str) -> dict[str, list[str]]:
    """Captions by id, of a dictionary whose values are texts or lists of texts."""
    if not isinstance(source, Mapping):
        raise DataError(
            f"{role}: found a {type(source).__name__}, expected a file, or a dictionary from image ids to captions"
        )
    found: dict[str, list[str]] = {}
    for key, value in source.items():
        id = checked_id(key, role)
        if id in found:
            raise DataError(f"{role}: the id '{id}' is there twice, as a number and as text; keep one of them")
        several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        found[id] = [checked_text(text, role, id) for text in (value if several else [value])]
    return found
