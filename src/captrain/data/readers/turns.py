"""What one row of a conversation about pictures says: which pictures, what was asked, what was answered.

LLaVA's `conversations` (from human and gpt), the `messages` (of a role and a content, which may be a list of typed
parts) of chat models, and flat rows of a query and a response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from captrain.data.readers.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, present, value_at, whole
from captrain.data.readers.options import ReadOptions
from captrain.errors import DataError

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
            return [Turn(_plain(question), whole(values[tell]).strip())]
    turns: list[Turn] = []
    question = ""
    for message in _messages(values):
        text = " ".join(part for part in _texts(message) if part)
        if _role(message) in _QUESTION:
            question = _plain(text)
        elif _role(message) in _ANSWER and text:
            turns.append(Turn(question, whole(text).strip()))
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
    """Who speaks, in small letters alone: DeepSeek-VL's "<|User|>" too."""
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
            yield from (whole(name.strip()) for name in _WITHIN.findall(part))
        elif isinstance(part, dict) and not part.get("text"):
            yield from _named(part)


def _named(value: Any, depth: int = 3) -> Iterator[str]:
    """The names in a column of pictures: a name, an object that holds one, or several of them."""
    if isinstance(value, str) and value.strip():
        yield whole(value.strip().removeprefix("file://"))
    parts: list[Any] = value if isinstance(value, list) else []
    if isinstance(value, dict):  # {"path": ...}, {"image_url": {"url": ...}}, MiniCPM's {"<image_00>": ...}
        known = next((value[key] for key in _INSIDE if value.get(key)), None)
        many = _PLACEHOLDER.match(next(iter(value), ""))
        parts = [known] if known is not None else list(value.values()) if many else []
    for part in parts if depth else ():
        yield from _named(part, depth - 1)


def _plain(question: str) -> str:
    """A question on one line, without the places of its pictures."""
    return whole(" ".join(_PLACEHOLDER.sub(" ", _WITHIN.sub(" ", question)).split()))


def _has_text(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and text.strip() for text in texts)
