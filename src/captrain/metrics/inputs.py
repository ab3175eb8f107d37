"""Files of captions to score, in the forms people have, as ids and texts.

Predictions, one caption an image:
- JSON: COCO results `[{"image_id": 1, "caption": "..."}]`, or `{"id": "caption"}` (pycocoevalcap's `{"id": ["..."]}` too)
- JSON lines, as `captrain caption` and `captrain evaluate` write them: `{"id": "dog.jpg", "text": "..."}`
- CSV or TSV with a line of column names; a folder of .txt files, the file's name being the id

References, any number an image: COCO annotations (`{"annotations": [...]}`), JSON `{"id": ["...", "..."]}`, JSON lines and
tables with a list or with several lines an image, a folder of .txt files with a caption a line, and predictions.jsonl
itself where it holds `references`.

Which column or key is the id, the caption or the references is said by `ID_KEYS`, `CAPTION_KEYS` and `REFERENCE_KEYS`: the
first of them that the file has. How ids of two files are matched is said in `ids`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captrain.errors import DataError, nearest
from captrain.metrics.entries import Entry, read_entries

ID_KEYS = ("image_id", "id", "file_name", "filename", "image")
"""`image_id` before `id`, since an entry of COCO annotations has both, and its `id` is the annotation's."""
CAPTION_KEYS = ("caption", "text", "candidate", "prediction")
REFERENCE_KEYS = ("references", "captions", "reference", "caption", "text")
MAX_CHARACTERS = 100_000
"""A longer caption is no caption, and would take minutes to score."""


def read_predictions(path: Path) -> dict[str, str]:
    """Image id to its one caption.

    Raises `DataError` naming the file and the entry: what can't be read, an image with two captions, a caption that
    is no text.
    """
    captions: dict[str, str] = {}
    places: dict[str, str] = {}
    for id, value, where in _values(path, CAPTION_KEYS, "caption"):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list):
            raise DataError(f"{where}: found {len(value)} captions for '{id}', expected one to score")
        if id in captions:
            raise DataError(
                f"{where}: a second caption for '{id}' (the first: {places[id]}), expected one an image; drop one"
            )
        captions[id], places[id] = checked_text(value, where, id), where
    if not captions:
        raise DataError(f"{path}: holds no captions; expected one caption an image")
    return captions


def read_references(path: Path) -> dict[str, list[str]]:
    """Image id to its captions, in the order of the file (COCO annotations: of the annotations' ids).

    Raises `DataError` naming the file and the entry: what can't be read, references that are no text, an image with
    an empty list.
    """
    captions: dict[str, list[str]] = {}
    for id, value, where in _values(path, REFERENCE_KEYS, "reference"):
        found = value if isinstance(value, list) else [value]
        if not found:
            raise DataError(f"{where}: image '{id}' has no references; add one, or leave the image out")
        captions.setdefault(id, []).extend(checked_text(caption, where, id) for caption in found)
    if not captions:
        raise DataError(f"{path}: holds no references; expected one or more captions an image")
    return captions


def given_predictions(source: object) -> dict[str, str]:
    """Image id to its one caption: of a dictionary, or of a file. A list of one caption is that caption.

    Raises `DataError` as `read_predictions` does.

    >>> given_predictions({1: "a dog", "2": ["two cats"]})
    {'1': 'a dog', '2': 'two cats'}
    """
    if isinstance(source, (str, Path)):
        return read_predictions(Path(source))
    found = _dictionary(source, "predictions")
    for id, captions in found.items():
        if len(captions) != 1:
            raise DataError(f"predictions: found {len(captions)} captions for '{id}', expected one to score")
    return {id: captions[0] for id, captions in found.items()}


def given_references(source: object) -> dict[str, list[str]]:
    """Image id to its references: of a dictionary, or of a file. A text is the one reference of its image.

    Raises `DataError` as `read_references` does.

    >>> given_references({"1": "a dog", "2": ["two cats", "cats"]})
    {'1': ['a dog'], '2': ['two cats', 'cats']}
    """
    if isinstance(source, (str, Path)):
        return read_references(Path(source))
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
        id = _checked_id(key, role)
        if id in found:
            raise DataError(f"{role}: the id '{id}' is there twice, as a number and as text; keep one of them")
        several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        found[id] = [checked_text(text, role, id) for text in (value if several else [value])]
    return found


def checked_text(value: Any, where: str, id: str) -> str:
    """A caption, if it is one."""
    if not isinstance(value, str):
        shown = "nothing" if value is None else f"{value!r:.40}"
        raise DataError(f"{where}: the caption of '{id[:80]}' is {shown}, expected text; an empty caption is \"\"")
    if len(value) > MAX_CHARACTERS:
        raise DataError(
            f"{where}: the caption of '{id[:80]}' has {len(value)} characters, over the limit of {MAX_CHARACTERS}"
        )
    return value


def _values(path: Path, keys: Sequence[str], role: str) -> Iterable[tuple[str, Any, str]]:
    """Id, caption or captions, and place of every entry of a file or folder."""
    entries = read_entries(path, lines=role == "reference")
    if any(isinstance(entry.content, dict) for entry in entries):
        return _from_records(path, entries, keys, role)
    return ((_checked_id(entry.id, entry.where), entry.content, entry.where) for entry in entries)


def _from_records(
    path: Path, entries: Sequence[Entry], keys: Sequence[str], role: str
) -> Iterable[tuple[str, Any, str]]:
    """The same from entries that are records: the keys are chosen once, for the whole file."""
    present = dict.fromkeys(key for entry in entries if isinstance(entry.content, dict) for key in entry.content)
    id_key = _first_of(ID_KEYS, present, path, "id")
    value_key = _first_of(keys, present, path, role)
    for entry in entries:
        record = entry.content
        if not isinstance(record, dict):
            raise DataError(f"{entry.where}: found {type(record).__name__}, expected an object with '{value_key}'")
        for key in (id_key, value_key):
            if key not in record:
                raise DataError(f"{entry.where}: has no '{key}' (found: {_listed(record)}); other entries have it")
        yield _checked_id(record[id_key], entry.where), record[value_key], entry.where


def _first_of(keys: Sequence[str], present: Iterable[str], path: Path, role: str) -> str:
    found = next((key for key in keys if key in present), None)
    if found is None:
        hint = next(filter(None, (nearest(key, keys) for key in present)), "")
        raise DataError(
            f"{path}: found no {role} (keys: {_listed(present)}), expected one of: {', '.join(keys)}.{hint}"
        )
    return found


def _checked_id(value: Any, where: str) -> str:
    """An id as text; JSON numbers count as they are written.

    >>> _checked_id(391895.0, "a.json"), _checked_id("dog ", "a.json")
    ('391895', 'dog')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: found the id {value!r:.40}, expected a name or a number")
    return value.strip()


def _listed(keys: Iterable[str]) -> str:
    names = [repr(str(key)[:40]) for key in keys]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"
