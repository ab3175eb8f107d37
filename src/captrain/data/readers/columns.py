"""What the rows of a table say: which column names the image, which holds captions, and what may stand in them.

Columns are found by their usual names (in any case), or are given. A given one may reach into nested objects:
"json/caption" and "json.caption" are the field `caption` of the column `json`, "sentences/raw" is that of each of a list.
Which columns hold captions is decided once for a table: a row that has none there never takes another column.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from captrain.data.machine_captions import LINE_KEY, makers_in
from captrain.data.splits import SPLIT_NAMES
from captrain.errors import DataError, nearest
from captrain.tabular.cells import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    caption_columns,
    is_marked,
    sifted,
    steps_of,
    value_at,
)

SPLIT_COLUMN = "split"

_SHOWN = 12  # columns named in an error
_LOOKED_AT = 100  # columns looked at for a name that is nearly right


@dataclass(frozen=True, slots=True)
class TableRow:
    """What one row says. `split` is None where it names none, `machine` as in `Sample`.

    odd: texts in caption cells that are not captions. marked: its captions are left out, because the row says so.
    """

    image: str
    captions: tuple[str, ...]
    split: str | None
    odd: tuple[str, ...] = field(default=(), repr=False)
    marked: bool = field(default=False, repr=False)
    machine: tuple[str, ...] = field(default=(), repr=False)

    def by_persons(self) -> TableRow:
        """The same without the captions that a machine wrote."""
        if not self.machine:
            return self
        written = zip(self.captions, self.machine, strict=True)
        return replace(self, captions=tuple(text for text, maker in written if not maker), machine=())


class Columns:
    """The columns of a table that count: given ones, or those with usual names.

    >>> Columns().row({"Image": "a.jpg", "text": "a dog ", "split": "dev"}, "train.csv:1")
    TableRow(image='a.jpg', captions=('a dog',), split='validation')
    >>> Columns(caption="json/title").row({"image": "a.jpg", "json": {"title": "a dog"}}, "t.jsonl:1").captions
    ('a dog',)
    """

    def __init__(self, image: str = "", caption: str = "") -> None:
        self.given_image, self.given_caption = image, caption
        self.images = (image,) if image else IMAGE_COLUMNS
        self.decided: tuple[str, ...] = ()  # the columns of captions, once a table is known

    def of(self, names: Iterable[str]) -> Columns:
        """The same for a table that has these columns: those of its captions are decided."""
        columns = Columns(self.given_image, self.given_caption)
        columns.decided = self.captions_in(tuple(dict.fromkeys(names)))
        return columns

    def captions_in(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The columns of captions among those of a table or row; a given, nested one is taken as it is.

        >>> Columns().captions_in(("image", "comment", "caption")), Columns(caption="json/title").captions_in(("json",))
        (('caption',), ('json/title',))
        """
        given = self.given_caption
        if not given:
            return caption_columns(CAPTION_COLUMNS, names)
        return (given,) if given in names else caption_columns((given.lower(),), names) or (given,)

    def check(self, names: Sequence[str], where: str) -> None:
        """Raise `DataError` if a given column is not in a table (a nested one: if its outermost step is not)."""
        for given, option in ((self.given_image, "--image-column"), (self.given_caption, "--caption-column")):
            numbered = option == "--caption-column" and caption_columns((given.lower(),), tuple(names))
            if given and given not in names and steps_of(given)[0] not in names and not numbered:
                raise DataError(
                    f"{where}: no column '{given}', which {option} names; it has {listed_columns(names)}."
                    f"{nearest(given, map(on_one_line, names))}"
                )

    def look(self, values: dict[str, Any], *, names_only: bool = False) -> tuple[bool, bool]:
        """Whether a first row has an image, and a column of captions. `names_only`: it is a header, without values.

        >>> Columns().look({"image": "a.jpg", "text": "a dog"}), Columns().look({"id": 1, "text": "a dog"})
        ((True, True), (False, True))
        """
        names = tuple(values)
        captions = any(name in names or steps_of(name)[0] in names for name in self.captions_in(names))
        try:
            self.check(names, "")
            if not names_only:
                self.image(values, "")
        except DataError:
            return False, captions
        return any(name in names or steps_of(name)[0] in names for name in present(self.images, names)), captions

    def row(self, values: dict[str, Any], where: str) -> TableRow:
        """What a row says. Raises `DataError`, beginning with `where`, if it names no image or holds odd values."""
        marked = is_marked(values)
        captions, odd = ((), ()) if marked else self.texts(values, where)
        machine = makers_in(values[LINE_KEY], len(captions)) if LINE_KEY in values else ()
        return TableRow(self.image(values, where), captions, split_of(values, where), odd, marked, machine)

    def image(self, values: dict[str, Any], where: str) -> str:
        """The image that a row names: the first image column that holds a name. Raises `DataError` if none does."""
        for column in present(self.images, tuple(values)):
            found = value_at(values, column)
            name = found.get("path") if isinstance(found, dict) else found  # {"bytes": ..., "path": ...} of datasets
            if isinstance(name, str) and name.strip():
                return encodable(name)
        raise DataError(self.no_image(list(values), where))

    def no_image(self, names: Sequence[str], where: str) -> str:
        """What to say of a row, or of a table, that names no image."""
        if self.given_image:
            return f"{where}: no file name in '{self.given_image}'; expected an image's path there"
        hint = next((hint for name in names[:_LOOKED_AT] if (hint := nearest(name[:80], IMAGE_COLUMNS))), "")
        return (
            f"{where}: no file name (columns: {listed_columns(names)}); "
            f"expected an image's path in 'file_name', or --image-column to say where it is.{hint}"
        )

    def texts(self, values: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The captions of a row, and texts in its caption cells that are not captions ("nan", a number)."""
        if self.decided and all(column in values for column in self.decided):
            columns = self.decided
        else:
            names = tuple(values)
            columns = _spelled(self.decided, names) if self.decided else self.captions_in(names)
        return sifted(text for column in columns for text in texts_of(value_at(values, column), column, where))


@lru_cache(maxsize=64)
def present(columns: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Those of `columns` that a table has, in its own spelling; a given, nested one is taken as it is.

    >>> present(("image", "file"), ("Text", "Image"))
    ['Image']
    """
    spelled = {name: name for name in names}
    for name in tuple(spelled):
        spelled.setdefault(name.strip().lower(), name)
    nested = len(columns) == 1
    return [spelled.get(column, column) for column in columns if nested or column in spelled]


@lru_cache(maxsize=64)
def _spelled(columns: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns as a row spells them that may write them in other letters ("Text", "text")."""
    spelled = {name.strip().lower(): name for name in names}
    return tuple(column if column in names else spelled.get(column.strip().lower(), column) for column in columns)


def texts_of(found: Any, column: str, where: str) -> list[Any]:
    """The strings, numbers and gaps in a cell. Raises `DataError` if it holds anything else."""
    texts = found if isinstance(found, list) else [found]
    for text in texts:
        if not isinstance(text, str | int | float | None):
            kind = type(text).__name__
            raise DataError(f"{where}: found a {kind} in '{column}'; expected a string or a list of strings")
    return [encodable(text) if isinstance(text, str) else text for text in texts]


def split_of(values: dict[str, Any], where: str) -> str | None:
    """The split that a row names, by its one name here. Raises `DataError` for an unknown one."""
    split = values.get(SPLIT_COLUMN)
    if split is None or split == "":
        return None
    if not isinstance(split, str) or split.strip().lower() not in SPLIT_NAMES:
        hint = nearest(on_one_line(str(split)), SPLIT_NAMES)
        raise DataError(f"{where}: unknown split {_quoted(split)}; expected train, validation or test.{hint}")
    return SPLIT_NAMES[split.strip().lower()]


def plain_value(name: str) -> str:
    """A name as one writes it below a folder: forward slashes, no detours.

    >>> plain_value("./sub\\\\dog.jpg")
    'sub/dog.jpg'
    """
    return posixpath.normpath(name.replace("\\", "/"))


def encodable(text: str) -> str:
    """Half a surrogate pair can be written in JSON but not in UTF-8, so it would break whatever is written later."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def listed_columns(names: Sequence[str]) -> str:
    """Columns for an error, on one line, a dozen at most.

    >>> listed_columns(["a", "b"])
    'a, b'
    """
    shown = ", ".join(on_one_line(name) for name in names[:_SHOWN])
    return (shown + (", ..." if len(names) > _SHOWN else "")) or "none"


def on_one_line(text: str) -> str:
    """The beginning of a text, fit for an error.

    >>> on_one_line("a\\n b")
    'a b'
    """
    return encodable(" ".join(text.split()))[:80]


def _quoted(value: Any) -> str:
    return f"'{on_one_line(value if isinstance(value, str) else json.dumps(value, default=str))}'"
