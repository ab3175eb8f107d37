"""The columns of captions in a table, and what their cells hold: a caption, several, or no caption ("nan", a number).

Columns are found by the names that they usually have.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from captrain.limits import LONGEST_CAPTION, MOST_CAPTIONS, TOO_LONG, TOO_MANY

LONGEST_LIST = 1 << 17  # characters of a list written out as text; a longer one is not read
LONGEST_NOTHING = 40  # characters of a text that says nothing, and of what is shown of it

# What pandas and spreadsheets write where nothing is, in lower case.
_NOTHING = frozenset(
    (
        *("nan", "-nan", "none", "null", "n/a", "na", "<na>", "nil", "undefined", "nat", "#n/a", "#na", "#n/a n/a"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!"),
    )
)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_,]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|[-+]?inf(?:inity)?", re.IGNORECASE)
_ITEM = re.compile(
    r"""\s*(?:np\.str_\()?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\]()]+)\)?\s*(,?)\s*""", re.DOTALL
)
_LIKE_A_LIST = re.compile(r"""\[\s*['"].*['"]\s*+(?:,\s*+)?\]""", re.DOTALL)


def says_nothing(text: str) -> bool:
    """Whether a text is a placeholder for a missing caption, or only a number.

    >>> [says_nothing(text) for text in ("nan", "None", "3.50", "a nan bread", "7 dogs")]
    [True, True, True, False, False]
    """
    bare = text.strip()
    if len(bare) > LONGEST_NOTHING or (" " in bare and bare[0] != "#"):
        return False
    bare = bare.lower()
    return not bare or bare in _NOTHING or _NUMBER.fullmatch(bare) is not None


def _is_surely_caption(value: Any) -> bool:
    """Whether a first glance is enough: a long text that begins with a letter. Most captions are, so it saves time."""
    if not isinstance(value, str) or len(value) > LONGEST_CAPTION or value == TOO_LONG:
        return False
    return len(value.strip()) > LONGEST_NOTHING and value[0].isalpha()


def sifted(values: Iterable[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions among some values, and those values that are not captions, as text. Empty ones are neither.

    A text that is a list, as Python, pandas, numpy or JSON write one, is taken for what it lists. One that is longer than any
    caption is not a caption, and `captrain.limits.TOO_LONG` is in its place; `TOO_MANY` is in the place of too many.

    >>> sifted(["a dog ", None, "", "nan", 7, "['it runs', \\"it's fast\\"]"])
    (('a dog', 'it runs', "it's fast"), ('nan', '7'))
    """
    captions: list[str] = []
    odd: list[str] = []
    for value in values:
        if len(captions) + len(odd) > MOST_CAPTIONS:
            break
        if _is_surely_caption(value):
            captions.append(value.strip())
            continue
        for text in map(str.strip, _texts(value)):
            if len(text) > LONGEST_CAPTION or text == TOO_LONG:
                odd.append(TOO_LONG)
            elif (
                not isinstance(value, str)
                or says_nothing(text)
                or (_LIKE_A_LIST.fullmatch(text) and listed_in(text) is None)
            ):
                odd += [text[:LONGEST_NOTHING]] * bool(text)
            else:
                captions.append(text)
    if len(captions) + len(odd) > MOST_CAPTIONS:
        return (), (TOO_MANY,)
    return tuple(captions), tuple(odd)


def no_caption(odd: Sequence[str] = ()) -> str:
    """Why a picture without a caption is left out, with its texts that are not captions.

    >>> no_caption(), no_caption(["nan"])
    ('has no caption', "has no caption, only 'nan'")
    """
    if odd and odd[0] in (TOO_LONG, TOO_MANY):
        return odd[0]
    return f"has no caption, only '{' '.join(odd[0].split())}'" if odd else "has no caption"


def not_a_caption(text: str) -> str:
    """Why one text is left out of a picture that has captions."""
    return (
        text
        if text in (TOO_LONG, TOO_MANY)
        else f"holds '{' '.join(text.split())}' where a caption belongs; that is left out"
    )


def _texts(value: Any) -> list[str]:
    if not isinstance(value, str):
        return [] if value is None else [str(value)]
    listed = listed_in(value)
    return [value] if listed is None else listed


def listed_in(text: str) -> list[str] | None:
    """What a text lists that is a list of strings; None if it is not one, or can't be read. Nothing in it is executed.

    >>> listed_in("['a dog', \\"it's a cat\\"]"), listed_in("['a dog'\\n 'a cat']"), listed_in("[sic] a dog")
    (['a dog', "it's a cat"], ['a dog', 'a cat'], None)
    """
    bare = text.strip()
    if bare[:1] + bare[-1:] not in ("[]", "()") or len(bare) > LONGEST_LIST:
        return None
    if bare.startswith('["'):
        try:
            found = json.loads(bare)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(part, str) for part in found):
            return found
    return _items(bare)


def _items(text: str) -> list[str] | None:
    """The items of a list or tuple as Python and numpy write it: strings in quotes, and nan, None or numbers among them."""
    items: list[str] = []
    inside, at, comma = text[1:-1].strip(), 0, ""
    while at < len(inside):
        found = _ITEM.match(inside, at)
        if found is None:
            return None
        word, comma = found.groups()
        item = _unquoted(word) if word[0] in "'\"" else word if says_nothing(word) else None
        if item is None:
            return None
        items.append(item)
        at = found.end()
    return items if text[0] == "[" or comma or len(items) > 1 else None


def _unquoted(literal: str) -> str | None:
    """The value of a Python string literal; None if its escapes are broken."""
    if "\\" not in literal and "\n" not in literal:
        return literal[1:-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unknown escape, which stays as it is
            return str(ast.literal_eval(literal))
    except (ValueError, SyntaxError):
        return None


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
