"""Captions to score as Python has them: dictionaries from the ids of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captrain.errors import DataError
from captrain.metrics.inputs import checked_id, checked_text


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
