"""The names that columns usually have, and which columns of a table hold its captions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

IMAGE_COLUMNS = (
    *("file_name", "image", "filename", "image_path", "img", "path", "filepath", "file_path"),
    *("image_name", "image_file", "img_path", "file"),
)
CAPTION_COLUMNS = (
    *("captions", "caption", "text", "texts", "sentences", "sentence", "descriptions", "description", "title"),
    *("comments", "comment", "raw"),
)
MARKS = ("is_rejected", "is_precanned")  # of captions that VizWiz's workers did not write, or wrote badly
_STEPS = re.compile(r"[/.]")
_NUMBERED = re.compile(r"(.*?[^\W\d])[ _.-]?(\d{1,3})", re.DOTALL)


@lru_cache(maxsize=64)
def caption_columns(wanted: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a table that hold its captions, in its own spelling: the first wanted one, and its numbered ones.

    Numbered ones ("caption_0", "Caption 2", "raw_1", "caption.1") belong together, in the order of their numbers, after
    the one without a number. Empty if the table has none.

    >>> caption_columns(CAPTION_COLUMNS, ("image", "Text", "caption_2", "caption_1", "title"))
    ('caption_1', 'caption_2')
    """
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        plain = name.strip().lower()
        groups.setdefault(plain, {}).setdefault(-1, name)
        if found := _NUMBERED.fullmatch(plain):
            groups.setdefault(found[1], {}).setdefault(int(found[2]), name)
    chosen = next((groups[name] for name in wanted if name in groups), {})
    return tuple(name for _, name in sorted(chosen.items()))


def is_marked(record: Mapping[str, Any]) -> bool:
    """Whether a caption's record says that it is not to be used.

    >>> is_marked({"caption": "Nothing can be seen.", "is_rejected": True, "is_precanned": False})
    True
    """
    return any(mark in record and str(record[mark]).strip().lower() in ("true", "1", "1.0") for mark in MARKS)


def value_at(values: dict[str, Any], column: str) -> Any:
    """The value of a column: by its whole name, else by steps into nested objects; None if nothing is there."""
    if column in values:
        return values[column]
    found: Any = values
    for step in steps_of(column):
        if isinstance(found, list):
            found = [part.get(step) for part in found if isinstance(part, dict)]
        elif isinstance(found, dict):
            found = found.get(step)
        else:
            return None
    return found


def steps_of(column: str) -> list[str]:
    """A column's steps into nested objects.

    >>> steps_of("json/caption")
    ['json', 'caption']
    """
    return _STEPS.split(column)
