"""By which columns the images of predictions and references are matched, where their files have several that may name them.

The columns by which most images are matched are taken; of equal ones those that leave fewer images over, that do not only
number the rows of a file (a file name wins over such an `id`), that spell ids the same, and then those that usually name
images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from captrain.errors import DataError
from captrain.metrics.ids import match_ids
from captrain.metrics.inputs import Read

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
