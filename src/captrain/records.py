"""What travels between the layers: samples in, captions out, and rejects. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from captrain.disk.reading import open_file, read_file
from captrain.disk.writing import check_target, new_file, open_to_append
from captrain.errors import DataError
from captrain.limits import check_nested, next_json_line

SURROGATE_HALVES = ("\\ud", "\\uD")
"""How JSON's escapes of surrogates begin, and those of few other letters."""
_ESCAPES = re.compile(  # a pair of surrogates, half of one, anything else
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL
)


LONGEST_SHOWN = 300  # characters of a path on one line
LARGEST_PICTURE = 2 << 30
"""Bytes of a picture's file: 200 million pixels of 16 bits in three channels take 1.2 GB where nothing is compressed."""


class Stored(Protocol):
    """An image inside something larger, such as a tar or a table: cheap to hold and to pickle, read when asked for.

    `str` of it tells people where it is ("shards/00000.tar/dog.jpg").
    """

    def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, opened lazily, with its captions.

    `id` is stable and unique within a data set, `source` says where the sample came from ("train.jsonl:12"), `repeats`
    how many times an epoch of training shows it. `machine` says of each caption what model wrote it, "" for a person's;
    it is empty where persons wrote all.

    >>> Sample("dog", b"...", ("a dog runs",), "train.jsonl:1").captions
    ('a dog runs',)
    """

    id: str
    image: Path | bytes | Stored
    captions: tuple[str, ...] = ()
    source: str = ""
    repeats: int = 1
    machine: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The encoded picture (such as a JPEG's bytes). Raises `OSError` if it can't be read."""
        if isinstance(self.image, bytes):
            return self.image
        return read_file(self.image, LARGEST_PICTURE) if isinstance(self.image, Path) else self.image.read()


@dataclass(frozen=True, slots=True)
class Caption:
    """A generated caption.

    `score` is the mean log-probability of its tokens, `image` a path for people and reports, `measured` the scores
    of its metrics ("cider": 0.8), if there are references.
    """

    id: str
    text: str
    score: float | None = None
    references: tuple[str, ...] = ()
    image: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: Sample, text: str, score: float | None = None) -> Caption:
        """A caption written for a sample, with its references."""
        return cls(sample.id, text, score, tuple(sample.captions), _place(sample.image))

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object, without what is unknown.

        >>> Caption("dog", "a dog runs").to_dict()
        {'id': 'dog', 'text': 'a dog runs'}
        """
        line: dict[str, Any] = {"id": self.id, "text": self.text}
        if self.score is not None:
            line["score"] = round(self.score, 6)
        if self.references:
            line["references"] = list(self.references)
        if self.image is not None:
            line["image"] = self.image
        if self.measured:
            line["measured"] = {name: round(value, 6) for name, value in self.measured.items()}
        return line


def _place(image: Path | bytes | Stored) -> str | None:
    """Where an image is, so that it is found from any working folder; None if it is not a file."""
    if isinstance(image, bytes):
        return None
    return str(image.absolute()) if isinstance(image, Path) else str(image)


@dataclass(slots=True)
class Rejects:
    """Samples that were skipped, each with its place and the reason.

    `remarks` are notes on samples that were not skipped, each with the name of its kind of `problem` too.

    >>> rejects = Rejects()
    >>> rejects.add("cat.jpg", "photos/cat.jpg", "no caption beside it")
    >>> len(rejects), rejects.lines[0]["reason"]
    (1, 'no caption beside it')
    """

    lines: list[dict[str, str]] = field(default_factory=list)
    remarks: list[dict[str, str]] = field(default_factory=list)

    def add(self, id: str, where: str, reason: str) -> None:
        """Note one skipped sample."""
        self.lines.append({"id": _written(id), "where": _written(where), "reason": _written(reason)})

    def remark(self, problem: str, id: str, where: str, reason: str) -> None:
        """Note a remark on a sample that is used."""
        line = {"id": _written(id), "where": _written(where), "reason": _written(reason), "problem": problem}
        self.remarks.append(line)

    def remarked(self, problem: str) -> int:
        """How many remarks there are of a kind."""
        return sum(line["problem"] == problem for line in self.remarks)

    def __len__(self) -> int:
        return len(self.lines)

    def summary(self) -> str:
        """How many, and the first few, on one line.

        >>> rejects = Rejects([{"id": "a", "where": "a.jpg", "reason": "is empty (0 bytes)"}])
        >>> rejects.summary()
        '1 rejected: a.jpg is empty (0 bytes)'
        """
        first = "; ".join(f"{_ending(line['where'])} {line['reason']}" for line in self.lines[:3])
        return f"{len(self)} rejected: {first}" + ("; ..." if len(self) > 3 else "")


def _written(text: str) -> str:
    """A text as UTF-8 can hold it: a path's bytes that are not UTF-8 are written as escapes, as is half a surrogate pair."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _ending(path: str) -> str:
    """A path that is not too long for a line: as much of its end as fits."""
    return path if len(path) <= LONGEST_SHOWN else f"...{path[-LONGEST_SHOWN:]}"


def json_line(value: dict[str, Any]) -> bytes:
    r"""One line of JSON in UTF-8, with its line end. Bytes of a path that are no UTF-8 are escapes, and read back as they were.

    >>> json_line({"id": "caf\udce9"})
    b'{"id": "caf\\udce9"}\n'
    """
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, one at a time.

    Raises `DataError` naming the file and line of the first line that is not a JSON object in UTF-8.
    """
    with open_file(path) as file:
        for number, line in enumerate(iter(lambda: next_json_line(file), b""), start=1):
            if line.strip():
                yield parse_json_line(line, f"{path}:{number}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that captrain wrote. Raises `DataError` for anything else."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); remove it, or copy it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: found a JSON {type(value).__name__}, expected an object; remove it, or copy it again")
    return value


def lines_with_ids(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSON-lines file that captrain continues to write. Raises `DataError` for a line without an id."""
    for number, line in enumerate(read_jsonl(path), start=1):
        if not isinstance(line.get("id"), str | int):
            found = ", ".join(map(str, list(line)[:6])) or "nothing"
            raise DataError(
                f"{path}: entry {number} has no id (found: {found[:200]}), so captrain did not write it; give another file"
            )
        yield line


def parse_json_line(line: bytes, where: str) -> dict[str, Any]:
    """One line as a JSON object; `where` ("train.jsonl:12") goes into the error.

    >>> parse_json_line(b'{"file_name": "a.jpg"}', "train.jsonl:1")
    {'file_name': 'a.jpg'}
    """
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start} of the line); save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); expected one JSON object a line") from None
    if not isinstance(value, dict):
        raise DataError(
            f'{where}: found a JSON {type(value).__name__}, expected an object such as {{"file_name": ..., "text": ...}}'
        )
    return value


def parse_json(text: str) -> Any:
    r"""A JSON text. Half a surrogate pair can be written in JSON but not in UTF-8, so it becomes a question mark.

    Raises as `json.loads` does, and `ValueError` for what would take far more memory than its size (`limits.check_nested`).

    >>> parse_json(r'["a dog \ud83d\ude00 \ud83d", "C:\\ud800"]')
    ['a dog 😀 ?', 'C:\\ud800']
    """
    check_nested(text)
    if any(half in text for half in SURROGATE_HALVES):
        text = _ESCAPES.sub(lambda found: "?" if len(found[0]) == len("\\ud800") else found[0], text)
    return json.loads(text)


def write_jsonl(path: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines into a file that appears when it is complete (`captrain.disk.writing`); returns how many."""
    count = 0
    with new_file(path) as file:
        for line in lines:
            file.write(json_line(line))
            count += 1
    return count


def append_jsonl(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines to a log, handed to the system when this returns."""
    with open_to_append(path) as file:
        file.writelines(map(json_line, lines))


def drop_half_line(path: Path) -> None:
    """Cut off what a crash left of a log's last line; a log that is not there is fine.

    Raises `UserError` for a link or a pipe, as whatever writes does.
    """
    if check_target(path) is None:
        return
    with open_to_append(path) as file:
        file.seek(0)
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
