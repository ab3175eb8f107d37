"""Files of captions to score, in the forms people have, as ids and texts.

Predictions, one caption an image:
- JSON: COCO results `[{"image_id": 1, "caption": "..."}]`, or `{"id": "caption"}` (pycocoevalcap's `{"id": ["..."]}` too)
- JSON lines, as `captrain caption` and `captrain evaluate` write them: `{"id": "dog.jpg", "text": "..."}`
- CSV or TSV with a line of column names; a folder of .txt files, the file's name being the id

References, any number an image: COCO annotations (`{"annotations": [...]}`), JSON `{"id": ["...", "..."]}`, JSON lines and
tables with a list or with several lines an image, a folder of .txt files with one caption per line, and predictions.jsonl
itself where it holds `references`.

Which columns or keys hold the captions or the references is decided once for a file: the first of `CAPTION_KEYS` or
`REFERENCE_KEYS` that it has, and the numbered ones that go with it ("caption_0", "caption_1"), or a given one. Of those of
`ID_KEYS` that it has, any may name the images: the other file decides which, see `matching`. How ids are matched is
said in `ids`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from captrain.errors import DataError, nearest
from captrain.limits import LONGEST_CAPTION
from captrain.metrics.caption_entries import CaptionEntry, read_entries
from captrain.tabular.cells import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    MARKS,
    caption_columns,
    is_marked,
    listed_in,
    says_nothing,
    steps_of,
    value_at,
)

logger = logging.getLogger(__name__)

ID_KEYS = tuple(dict.fromkeys(("image_id", "id", "file_name", "filename", "image", *IMAGE_COLUMNS)))
"""`image_id` before `id`, since an entry of COCO annotations has both, and its `id` is the annotation's."""
CAPTION_KEYS = tuple(dict.fromkeys(("caption", "text", "candidate", "prediction", *CAPTION_COLUMNS)))
REFERENCE_KEYS = tuple(dict.fromkeys(("references", "captions", "reference", "caption", "text", *CAPTION_COLUMNS)))
MAX_CHARACTERS = LONGEST_CAPTION
"""A longer text is not a caption, and would take minutes to score."""

T = TypeVar("T")
Values = Iterable[tuple[str, Any, str]]  # id, caption or captions, and place of each entry


@dataclass(frozen=True)
class CaptionColumns(Generic[T]):
    """What a file holds, by image, for each of its columns that may name the images.

    columns: all that the file has. numbering: those that only number its rows.
    """

    by_column: dict[str, dict[str, T]]
    columns: tuple[str, ...] = ()
    numbering: frozenset[str] = frozenset()

    @property
    def usual(self) -> dict[str, T]:
        """By the column that usually names images."""
        return next(iter(self.by_column.values()))

    def has(self, column: str) -> bool:
        """Whether there is such a column, or one that a nested one begins with."""
        return column in self.columns or steps_of(column)[0] in self.columns


@dataclass(frozen=True, slots=True)
class GivenColumns:
    """Columns that a person names, of images and of captions; "" for the usual ones, also in a file that does not have these.

    follow_links: links that leave a folder of captions are read, and links to folders.
    """

    image: str = ""
    caption: str = ""
    follow_links: bool = False


def read_predictions(path: Path) -> dict[str, str]:
    """Image id to its one caption, by the column that usually names images. Raises as `predictions_in` does."""
    return predictions_in(path).usual


def read_references(path: Path) -> dict[str, list[str]]:
    """Image id to its captions, by the column that usually names images. Raises as `references_in` does."""
    return references_in(path).usual


def predictions_in(path: Path, given: GivenColumns = GivenColumns()) -> CaptionColumns[str]:
    """Image id to its one caption.

    Raises `DataError` naming the file and the entry: what can't be read, an image with two captions, a caption that
    is not text.
    """
    entries = read_entries(path, lines=False, follow_links=given.follow_links)
    if broken := next((entry for entry in entries if entry.fault), None):
        raise DataError(f"{broken.where}: {broken.fault}")

    def collect(values: Values) -> dict[str, str]:
        captions: dict[str, str] = {}
        places: dict[str, str] = {}
        for id, value, where in values:
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

    return _read(path, entries, collect, "caption", given)


def references_in(path: Path, given: GivenColumns = GivenColumns()) -> CaptionColumns[list[str]]:
    """Image id to its captions, in the order of the file (COCO annotations: of the annotations' ids).

    Left out, and logged with their number, are rows with too few or too many cells, texts that are no captions ("nan", a
    number), and captions that are marked as rejected or canned (VizWiz). Raises `DataError` naming the file and the entry:
    what can't be read, references that are not text, an image with an empty list.
    """
    entries = read_entries(path, lines=True, follow_links=given.follow_links)
    for reason, left in (
        ("broken rows", [entry for entry in entries if entry.fault]),
        (f"captions marked {' or '.join(MARKS)}", [entry for entry in entries if _is_marked(entry)]),
    ):
        if left:
            logger.warning("%s: left out %d %s (%s, ...)", path, len(left), reason, left[0].where)
    entries = [entry for entry in entries if not entry.fault and not _is_marked(entry)]
    odd: dict[str, str] = {}  # places of texts that are no captions

    def collect(values: Values) -> dict[str, list[str]]:
        captions: dict[str, list[str]] = {}
        for id, value, where in values:
            found = value if isinstance(value, list) else [value]
            if not found:
                raise DataError(f"{where}: image '{id}' has no references; add one, or leave the image out")
            texts = [checked_text(caption, where, id) for caption in found]
            odd.update((where, text) for text in texts if text.strip() and says_nothing(text))
            if kept := [text for text in texts if not text.strip() or not says_nothing(text)]:
                captions.setdefault(id, []).extend(kept)
        if not captions:
            raise DataError(f"{path}: holds no references; expected one or more captions an image")
        return captions

    read = _read(path, entries, collect, "reference", given)
    for where, text in list(odd.items())[:1]:
        logger.warning("%s: left out %d texts that are not captions (%s: '%s', ...)", path, len(odd), where, text)
    return read


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


def _is_marked(entry: CaptionEntry) -> bool:
    return isinstance(entry.content, dict) and is_marked(entry.content)


def _read(
    path: Path,
    entries: Sequence[CaptionEntry],
    collect: Callable[[Values], dict[str, T]],
    role: str,
    given: GivenColumns,
) -> CaptionColumns[T]:
    """What entries hold, by each column that may name images. The usual one has to be good, others may turn out not to be."""
    if not any(isinstance(entry.content, dict) for entry in entries):
        return CaptionColumns(
            {"": collect((checked_id(entry.id, entry.where), entry.content, entry.where) for entry in entries)}
        )
    columns = tuple(dict.fromkeys(key for entry in entries if isinstance(entry.content, dict) for key in entry.content))
    values = _value_columns(columns, path, role, given.caption)
    found: dict[str, dict[str, T]] = {}
    for column in _id_columns(columns, path, given.image):
        try:
            found[column] = collect(_records(entries, column, values))
        except DataError:
            if not found:
                raise
    return CaptionColumns(found, columns, frozenset(column for column in found if _numbers(column, entries)))


def _id_columns(columns: tuple[str, ...], path: Path, given: str) -> list[str]:
    """The columns that may name images, the usual one first."""
    if given and (given in columns or steps_of(given)[0] in columns):
        return [given]
    spelled = {column.strip().lower(): column for column in reversed(columns)}
    _need_one_of(ID_KEYS, spelled, path, "id", given)
    known = [key for key in ID_KEYS if key in spelled]
    return [spelled[key] for key in known if key != "id" or "image_id" not in known]


def _value_columns(columns: tuple[str, ...], path: Path, role: str, given: str) -> tuple[str, ...]:
    """The columns of captions or references."""
    if given and (given in columns or steps_of(given)[0] in columns):
        return (given,)
    keys = CAPTION_KEYS if role == "caption" else REFERENCE_KEYS
    found = (given and caption_columns((given.lower(),), columns)) or caption_columns(keys, columns)
    if not found:
        _need_one_of(keys, columns, path, role, given)
    return found[:1] if role == "caption" else found


def _records(
    entries: Sequence[CaptionEntry], id_column: str, columns: tuple[str, ...]
) -> Iterator[tuple[str, Any, str]]:
    for entry in entries:
        record = entry.content
        if not isinstance(record, dict):
            raise DataError(f"{entry.where}: found {type(record).__name__}, expected an object with '{columns[0]}'")
        for column in (id_column, columns[0]):
            if column not in record and steps_of(column)[0] not in record:
                raise DataError(f"{entry.where}: has no '{column}' (found: {_listed(record)}); other entries have it")
        id = checked_id(value_at(record, id_column), entry.where)
        if len(columns) == 1:
            yield id, _unlisted(value_at(record, columns[0])), entry.where
        else:  # captions in numbered columns; some may be empty
            cells = [_unlisted(record.get(column)) for column in columns]
            yield (
                id,
                [text for cell in cells for text in (cell if isinstance(cell, list) else [cell]) if text],
                entry.where,
            )


def _unlisted(value: Any) -> Any:
    """A value, or what it lists if it is a list written out as text."""
    listed = listed_in(value) if isinstance(value, str) else None
    return value if listed is None else listed


def _numbers(column: str, entries: Sequence[CaptionEntry]) -> bool:
    """Whether a column called id only numbers the rows: it counts up by one, from anywhere."""
    if column.strip().lower() not in ("id", "image_id"):
        return False
    values = [str(value_at(entry.content, column)).strip() for entry in entries]
    if not all(value.isdecimal() and value.isascii() and len(value) < 19 for value in values):
        return False
    first = int(values[0])
    return all(int(value) == first + place for place, value in enumerate(values))


def _need_one_of(keys: Sequence[str], present: Iterable[str], path: Path, role: str, given: str) -> None:
    """Raise `DataError` if none of the keys is there, nor what a person named instead."""
    present = list(present)
    if not any(key in present for key in keys):
        hint = nearest(given, present) if given else next(filter(None, (nearest(key, keys) for key in present)), "")
        wanted = f"'{given}' or one of" if given else "one of"
        raise DataError(
            f"{path}: found no {role} (keys: {_listed(present)}), expected {wanted}: {', '.join(keys[:6])}.{hint}"
        )


def checked_id(value: Any, where: str) -> str:
    """An id as text; JSON numbers count as they are written.

    >>> checked_id(391895.0, "a.json"), checked_id("dog ", "a.json")
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
