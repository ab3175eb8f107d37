"""Refusing text that can't be scored, each with one line that says what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from captrain.errors import DataError
from captrain.limits import LONGEST_CAPTION

MOST_CHARACTERS = LONGEST_CAPTION
"""A longer caption is a mistake in the input (a whole file in one field, say), and would be slow to score."""


def check_pairs(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` unless captions and references are of the same images, and there are some."""
    if not predictions and not references:
        raise DataError("nothing to score: found no captions and no references")
    if missing := [id for id in references if id not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(references)} images with references have no caption ({_some(missing)}); "
            "caption them, or leave out their references"
        )
    if extra := [id for id in predictions if id not in references]:
        raise DataError(
            f"{len(extra)} of {len(predictions)} captions have no references ({_some(extra)}); "
            "add references under the same id, or leave out these captions"
        )


def check_captions(ids: Iterable[str], captions: Iterable[object]) -> None:
    """Raise `DataError` unless every caption is text of a sensible length."""
    for id, caption in zip(ids, captions, strict=True):
        _check_text(id, caption, "caption")


def check_references(references: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` unless every image has a list of one or more texts."""
    for id, captions in references.items():
        if isinstance(captions, str):
            raise DataError(f"references of '{id}' are one text, expected a list of captions: put it in [ ]")
        if not isinstance(captions, Sequence):
            raise DataError(f"references of '{id}' are {captions!r:.40}, expected a list of captions")
        if not captions:
            raise DataError(f"image '{id}' has no references; add a caption, or leave the image out")
        for caption in captions:
            _check_text(id, caption, "reference")


def _check_text(id: str, caption: object, role: str) -> None:
    if not isinstance(caption, str):
        raise DataError(f"the {role} of '{id}' is {caption!r:.40}, expected text; an empty caption is \"\"")
    if len(caption) > MOST_CHARACTERS:
        raise DataError(
            f"the {role} of '{id}' has {len(caption)} characters, expected at most {MOST_CHARACTERS}: "
            "is a whole file in one caption?"
        )


def _some(ids: Sequence[str]) -> str:
    """The first few ids.

    >>> _some(["1", "2", "3", "4"])
    "'1', '2', '3', ..."
    """
    return ", ".join(f"'{id}'" for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
