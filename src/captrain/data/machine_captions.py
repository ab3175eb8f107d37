"""What captrain wrote into caption files, noted beside them: `.captrain/captions.jsonl` in each folder, one line per change.

So the note is copied with the folder. A line is written before its change is made, and tells what was there before: a change that
was not made, or was undone, is known by the file being as it was. A caption counts as a machine's while it stands in its
file as it was written; a person who edits it makes it theirs.
"""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from captrain.data.text_encoding import lines_of
from captrain.disk.folders import check_way, make_folders
from captrain.disk.writing import open_to_append, read_own
from captrain.errors import UserError
from captrain.records import Rejects, drop_half_line, parse_json

MACHINE = "machine-made"  # the kind of remark on what a model wrote
LINE_KEY = "written_by"  # of a line of JSON: what wrote its caption, or a list of that for its captions
HOME = ".captrain"
FILE = "captions.jsonl"

_BY = "captrain "

How = Literal["write", "append", "prepend"]


@dataclass(frozen=True, slots=True)
class CaptionMaker:
    """What writes captions: a model by its name, an `id` of its weights and of the way it writes, and since when (UTC).

    >>> str(CaptionMaker("runs/album", "3f9a0c1d2e4b", "2026-12-01T08:30:00Z"))
    'runs/album 3f9a0c1d2e4b 2026-12-01'
    """

    model: str
    id: str
    date: str

    @classmethod
    def now(cls, model: str, id: str) -> CaptionMaker:
        """One that begins to write now."""
        return cls(model, id, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @classmethod
    def named(cls, name: str) -> CaptionMaker:
        """The one that is called so: what `str` gave."""
        model, id, date = name.rsplit(" ", 2) if name.count(" ") > 1 else (name, "", "")
        return cls(model, id, date)

    def __str__(self) -> str:
        return f"{self.model} {self.id} {self.date[:10]}"


@dataclass(frozen=True, slots=True)
class CaptionChange:
    """A change of a caption file.

    file, picture: names in the folder. how: whether the caption is the file's only one now, or its last, or its first.
    before: what the file held, None if it was not there; bytes that are no UTF-8 are {"base64": ...}.
    """

    file: str
    picture: str
    how: How
    caption: str
    before: str | dict[str, str] | None
    model: str
    id: str
    date: str

    @classmethod
    def of(
        cls, file: str, picture: str, how: How, caption: str, before: bytes | None, maker: CaptionMaker
    ) -> CaptionChange:
        """A change that a model is about to make."""
        return cls(file, picture, how, caption, _kept(before), **asdict(maker))

    @property
    def maker(self) -> CaptionMaker:
        """What made it."""
        return CaptionMaker(self.model, self.id, self.date)


class CaptionLedger:
    """The changes of a folder's caption files, in the order in which they were made.

    >>> CaptionLedger(Path("no/such-folder")).makers("dog.txt", b"a dog", ["a dog"])
    ('',)
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there. Lines that are no changes, a half one say, are passed over."""
        self.path = folder / HOME / FILE
        self.changes: dict[str, list[CaptionChange]] = {}
        try:
            check_way(self.path.parent, folder)
            content = read_own(self.path)
        except (OSError, UserError):  # a link or a pipe is no ledger of ours; `add` says so
            return
        for line in content.splitlines():
            if (change := _parsed(line)) is not None:
                self.changes.setdefault(_key(change.file), []).append(change)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def makers(self, file: str, content: bytes, lines: Sequence[str]) -> tuple[str, ...]:
        """For each line of a caption file what wrote it, as `str(CaptionMaker)`; "" for those that are a person's.

        Args:
            content: the whole file, as it is now. lines: its lines, without blank ones.
        """
        standing: list[tuple[str, str]] = []
        for change in self._made(file, content):
            written = [(line, str(change.maker)) for line in lines_of(change.caption)]
            standing = written if change.how == "write" else standing + written
        found = [""] * len(lines)
        for place in reversed(range(len(lines))):  # of two equal lines the person's was there before
            at = next((at for at, (line, _) in enumerate(standing) if line == lines[place]), None)
            if at is not None:
                found[place] = standing.pop(at)[1]
        return tuple(found)

    def holds(self, file: str, content: bytes, lines: Sequence[str], maker: CaptionMaker) -> bool:
        """Whether the same model, writing in the same way, has a caption in the file already, as it wrote it."""
        mine = [
            line for change in self._made(file, content) if change.id == maker.id for line in lines_of(change.caption)
        ]
        made = {line for line, name in zip(lines, self.makers(file, content, lines), strict=True) if name}
        return any(line in made for line in mine)

    def picture_of(self, file: str, content: bytes) -> str:
        """The picture that a file was last changed for; "" if no change of it shows."""
        made = self._made(file, content)
        return made[-1].picture if made else ""

    def add(self, change: CaptionChange) -> None:
        """Note a change that is about to be made. It is on the disk when this returns. Raises `UserError` for links.

        A command that was ended between a note and its change notes the same when it is repeated: that already exists.
        """
        noted = self.changes.setdefault(_key(change.file), [])
        if noted and replace(noted[-1], date=change.date) == change:
            return
        make_folders(self.path.parent, self.path.parent.parent)
        line = json.dumps(asdict(change), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with open_to_append(self.path) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    drop_half_line(self.path)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        noted.append(change)

    def _made(self, file: str, content: bytes) -> list[CaptionChange]:
        """The changes that show in a file: not those from before which it is as it is now."""
        changes = self.changes.get(_key(file), [])
        now = _kept(content)
        undone = next((place for place, change in enumerate(changes) if change.before == now), len(changes))
        return changes[:undone]


class CaptionLedgers:
    """Ledgers of folders that are being written: the notes on who wrote their captions are carried over from other data."""

    def __init__(self) -> None:
        self.opened: dict[Path, CaptionLedger] = {}

    def note(self, text: Path, picture: str, captions: Sequence[str], makers: Sequence[str]) -> None:
        """Note those captions of a new file that a machine wrote; `makers` as in `Sample.machine`."""
        written = list(zip(captions, makers, strict=False))
        before = "".join(f"{caption}\n" for caption, maker in written if not maker)
        for caption, maker in written:
            if maker:
                if text.parent not in self.opened:
                    self.opened[text.parent] = CaptionLedger(text.parent)
                content = before.encode("utf-8", "replace") if before else None
                how: How = "append" if before else "write"
                self.opened[text.parent].add(
                    CaptionChange.of(text.name, picture, how, caption, content, CaptionMaker.named(maker))
                )
                before += f"{caption}\n"


def remark_on_machine(rejects: Rejects, id: str, where: str, makers: Sequence[str]) -> None:
    """Remark on a sample with captions that a machine wrote; `makers` as in `Sample.machine`."""
    made = [maker for maker in makers if maker]
    how_many = "a caption" if len(made) == 1 else f"{len(made)} captions"
    rejects.remark(MACHINE, id, where, f"has {how_many} that captrain wrote ({made[0]})")


def stated(makers: Sequence[str]) -> list[str]:
    """What a line of JSON says under `LINE_KEY` of its captions, of which a machine wrote some.

    >>> stated(["", "runs/album 3f9a 2026-12-01"])
    ['', 'captrain runs/album 3f9a 2026-12-01']
    """
    return [_BY + maker if maker else "" for maker in makers]


def makers_in(said: Any, captions: int) -> tuple[str, ...]:
    """For each caption of a line what wrote it, by what the line says; () where persons wrote all, or it says something else.

    >>> makers_in("captrain runs/album 3f9a 2026-12-01", 2), makers_in("Ada", 1), makers_in(None, 1)
    (('runs/album 3f9a 2026-12-01', 'runs/album 3f9a 2026-12-01'), (), ())
    """
    names = said if isinstance(said, list) else [said] * captions
    found = tuple(name.removeprefix(_BY) if isinstance(name, str) and name.startswith(_BY) else "" for name in names)
    return found if any(found) and len(found) == captions else ()


def _kept(content: bytes | None) -> str | dict[str, str] | None:
    if content is None:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


def _parsed(line: bytes) -> CaptionChange | None:
    try:
        found: Any = parse_json(line.decode("utf-8"))
        values = {field.name: found[field.name] for field in fields(CaptionChange)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (
        CaptionChange(**values) if all(isinstance(values[name], str) for name in values if name != "before") else None
    )


def _key(file: str) -> str:
    """A name in one normal form: a copy may spell it in another."""
    return unicodedata.normalize("NFC", file)
