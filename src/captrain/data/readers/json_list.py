"""JSON files that are one list of objects: [{"image": "a.jpg", "text": "a dog"}], as people write for CC3M or LAVIS.

A `.json` file; or a folder with `metadata.json`, with one file per split (`train.json`, `coco_karpathy_train.json`), or with
one such file. Objects about the same image become one sample; a caption may be a list. The file is read an object at a
time, so it may be larger than memory. COCO's and Karpathy's files are objects, not lists, and have readers of their own.

A row may also be a conversation about pictures: LLaVA's `conversations` (from human and gpt), the `messages` of chat models
(a role and a content, which may be a list of typed parts), or a query and a response. `captrain.data.readers.conversations`
shares what is read of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, Columns, encodable, present, value_at
from captrain.data.readers.tables import (
    ListedTable,
    TableFile,
    gather,
    has_tables,
    one_table_each,
    tables_at,
    tables_in,
)
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.limits import LARGEST_LINE, LONG_LINE, shortened
from captrain.records import SURROGATE_HALVES, Rejects, Sample, parse_json

SUFFIXES = (".json",)
CHUNK = 1 << 20  # characters read at a time
LARGEST_LOOK = 1 << 16  # bytes of a file's beginning, to see what it is

_SPACE = " \t\r\n"
_EXAMPLE = 'expected a list like [{"image": ..., "caption": ...}]'


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .json file that is a list of objects, or a folder with such files."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, tables(path, options))
        return path.suffix.lower() in SUFFIXES and path.is_file() and _is_list(path)
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The lists of objects with images in a folder: COCO's results, say, name none."""
    columns = Columns(options.image_column, options.caption_column)

    def look(path: Path) -> tuple[bool, bool]:
        try:
            return columns.look(first_row(path))
        except DataError:
            return False, False

    return tables_in(folder, SUFFIXES, look, lambda file: _is_list(file) and not holds_talk(file, first_row, options))


def first_row(path: Path) -> dict[str, Any]:
    """The first object of a list, empty if there is none."""
    return next((values for _, values in objects(path)), {}) if _is_list(path) else {}


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a list, or of a folder with lists, in the order in which images are first named.

    Rejected are images that are missing or have no caption. Raises `DataError` for what is not a JSON list of objects, an
    object without a file name or with one that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def rows(table: TableFile) -> dict[str, Sequence[Sample]]:
        return gather(table, columns, objects(table.path), rejects, captioned)

    return one_table_each(source, tables_at(source, options, SUFFIXES, tables), rows, rejects, _EXAMPLE)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of each object of a list. Raises `DataError` naming the first thing that is none."""
    reader = Characters(path)
    if not reader.skip("["):
        raise DataError(f"{path}: not a JSON list; {_EXAMPLE}")
    for number in reader.members("]", "object {} of the list"):
        yield number, reader.value(f"{path}:{number}", number)
    if reader.next():
        raise DataError(f"{path}: something follows the list; {_EXAMPLE}")


class Characters:
    """The text of a JSON file, of which only what is being parsed is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = _opened(path)
        self.text, self.at = "", 0
        self.decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is not space; "" at the file's end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def skip(self, character: str) -> bool:
        """Go past a character, if it is the next."""
        found = self.next() == character
        self.at += found
        return found

    def members(self, close: str, what: str) -> Iterator[int]:
        """Numbers, from 1, of the members of a list or object that was just opened; each is to be read before the next.

        `what` names a member in the error: "object {} of the list".
        """
        number = 0
        while not self.skip(close):
            if number and not self.skip(","):
                after = f"no comma or {close} after {what.replace('{}', str(number))}"
                raise DataError(f"{self.path}:{number}: {after}, or the file ends there")
            number += 1
            yield number

    def key(self, where: str, what: str) -> str:
        """The next member's key, and go past its colon."""
        key = self.any(where, what)
        if not isinstance(key, str) or not self.skip(":"):
            raise DataError(f"{where}: {what} has no key; expected JSON")
        return key

    def value(self, where: str, number: int) -> dict[str, Any]:
        """The next object."""
        if self.next() != "{":
            raise DataError(f"{where}: entry {number} of the list is not an object; {_EXAMPLE}")
        return dict(self.any(where, f"object {number} of the list"))

    def any(self, where: str, what: str) -> Any:
        """The next value, whatever it is; `what` names it in the error."""
        while True:
            self.next()
            try:
                value, at = self.decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or len(self.text) - self.at > LARGEST_LINE or not self._more():
                    raise DataError(f"{where}: {what} is not valid JSON, or far too long") from None
            else:
                if any(self.text.find(half, self.at, at) >= 0 for half in SURROGATE_HALVES):
                    value = parse_json(self.text[self.at : at])
                if at < len(self.text) or isinstance(value, dict | list | str) or not self._more():  # else "1" of "12"
                    self.at = at
                    return value

    def _more(self) -> bool:
        """Read on, at least as much again as is waiting, so that an object is not parsed over and over."""
        waiting = self.text[self.at :]
        if len(waiting) > LONG_LINE:
            waiting = shortened(waiting)
        try:
            read = self.file.read(max(CHUNK, len(waiting)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
        except OSError as error:
            raise DataError(f"{self.path}: can't be read ({error.strerror})") from None
        self.text, self.at = waiting + read, 0
        return bool(read)


def _opened(path: Path) -> Any:
    try:
        return TextIOWrapper(open_file(path), encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: can't be opened ({error.strerror})") from None


def _is_list(path: Path) -> bool:
    """Whether a file begins as a list of objects, or is an empty list."""
    try:
        with open_file(path) as file:
            start = file.read(LARGEST_LOOK).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]")


MESSAGES = ("conversations", "messages", "conversation")
HALVES = ("prompt", "completion")  # of messages that stand in two columns, or a question and its answer as texts
FLAT = (("query", "response"), ("instruction", "output"), ("prompt", "response"), HALVES)
IMAGES = (*IMAGE_COLUMNS, "images", "image_paths", "image_list")

_QUESTION = frozenset({"human", "user"})
_ANSWER = frozenset({"gpt", "assistant", "model", "chatgpt", "bot", "bing", "bard"})
_WITHIN = re.compile(r"(?:Picture \d+:\s*)?<img>([^<]*+(?:<(?!/?img>)[^<]*+)*+)</img>")  # Qwen-VL's
_PLACEHOLDER = re.compile(r"<\|?/?(?:image|img|vision)[^<>]*>", re.IGNORECASE)
_INSIDE = ("image", "path", "image_path", "file_name", "url", "image_url")  # of one image: where it is


class Turn(NamedTuple):
    """A question and one answer to it."""

    question: str
    answer: str


def is_conversation(values: dict[str, Any]) -> bool:
    """Whether a row is one: it has messages, or a query and a response, and no caption of its own."""
    if any(_has_text(values[column]) for column in present(CAPTION_COLUMNS, tuple(values))):
        return False
    if messages := _messages(values):
        return any(_role(message) in _QUESTION | _ANSWER for message in messages)
    return any(isinstance(values.get(ask), str) and isinstance(values.get(tell), str) for ask, tell in FLAT)


def holds_talk(file: Path, first_row: Callable[[Path], dict[str, Any]], options: ReadOptions) -> bool:
    """Whether a table is read as conversations: its first row is one, and no other column of captions is asked for."""
    try:
        return is_conversation(first_row(file)) and options.caption_column in ("", *MESSAGES)
    except DataError:
        return False


def turns_of(values: dict[str, Any]) -> list[Turn]:
    """The turns of a row, without the places of its pictures.

    >>> turns_of({"conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]})
    [Turn(question='What is it?', answer='A dog.')]
    """
    for ask, tell in FLAT:
        if isinstance(values.get(ask), str) and isinstance(values.get(tell), str):
            more = values.get("input") if ask == "instruction" else None
            question = "\n".join(part for part in (values[ask], more) if isinstance(part, str) and part)
            return [Turn(_plain(question), encodable(values[tell]).strip())]
    turns: list[Turn] = []
    question = ""
    for message in _messages(values):
        text = " ".join(part for part in _texts(message) if part)
        if _role(message) in _QUESTION:
            question = _plain(text)
        elif _role(message) in _ANSWER and text:
            turns.append(Turn(question, encodable(text).strip()))
    return turns


def images_of(values: dict[str, Any], column: str = "") -> list[str]:
    """The pictures of a row, each once: of its own column, else those that its messages name."""
    columns = [column] if column else present(IMAGES, tuple(values))
    for name in columns:
        if found := list(_named(value_at(values, name))):
            return list(dict.fromkeys(found))
    return list(dict.fromkeys(name for message in _messages(values) for name in _within(message)))


def _messages(values: dict[str, Any]) -> list[dict[str, Any]]:
    columns = [name for name in MESSAGES if isinstance(values.get(name), list)][:1] or HALVES
    found = [message for name in columns if isinstance(values.get(name), list) for message in values[name]]
    return [message for message in found if isinstance(message, dict)]


def _role(message: dict[str, Any]) -> str:
    """Who speaks, in lower case alone: DeepSeek-VL's "<|User|>" too."""
    role = message.get("from") or message.get("role")
    return "".join(filter(str.isalpha, role)).lower() if isinstance(role, str) else ""


def _content(message: dict[str, Any]) -> list[Any]:
    content = message.get("value") or message.get("content") or message.get("text")
    return content if isinstance(content, list) else [content]


def _texts(message: dict[str, Any]) -> Iterator[str]:
    for part in _content(message):
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text.strip()


def _within(message: dict[str, Any]) -> Iterator[str]:
    """The pictures that a message names: beside its text, in typed parts, or within its text as Qwen-VL does."""
    yield from _named(message.get("images") or message.get("image"))
    for part in _content(message):
        if isinstance(part, str):
            yield from (encodable(name.strip()) for name in _WITHIN.findall(part))
        elif isinstance(part, dict) and not part.get("text"):
            yield from _named(part)


def _named(value: Any, depth: int = 3) -> Iterator[str]:
    """The names in a column of pictures: a name, an object that holds one, or several of them."""
    if isinstance(value, str) and value.strip():
        yield encodable(value.strip().removeprefix("file://"))
    parts: list[Any] = value if isinstance(value, list) else []
    if isinstance(value, dict):  # {"path": ...}, {"image_url": {"url": ...}}, MiniCPM's {"<image_00>": ...}
        known = next((value[key] for key in _INSIDE if value.get(key)), None)
        many = _PLACEHOLDER.match(next(iter(value), ""))
        parts = [known] if known is not None else list(value.values()) if many else []
    for part in parts if depth else ():
        yield from _named(part, depth - 1)


def _plain(question: str) -> str:
    """A question on one line, without the places of its pictures."""
    return encodable(" ".join(_PLACEHOLDER.sub(" ", _WITHIN.sub(" ", question)).split()))


def _has_text(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and text.strip() for text in texts)
