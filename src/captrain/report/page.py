"""A report page: what it shows (plain data), and how that becomes one HTML file that asks nothing of the network.

Captions, ids and file names are untrusted: the template escapes everything, and the page's own content security policy
forbids requests and all scripts but the one shipped here.
"""

from __future__ import annotations

import base64
import hashlib
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as changed
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from captrain.report.curves import Chart, draw_curve
from captrain.report.pictures import Picture


@dataclass(frozen=True, slots=True)
class Headline:
    """A big number, ready to print: Headline("CIDEr", "1.134", "on 1,000 pictures")."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One picture with its written caption.

    `score`: mean token log-probability; `right`: None where unknown; `measured`: a metric's value, ready to print.
    """

    text: str
    id: str = ""
    picture: Picture | None = None
    score: float | None = None
    references: tuple[str, ...] = ()
    right: bool | None = None
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cards under a title, with a filter box and a choice of order once they are many."""

    title: str
    cards: tuple[Card, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Evolution:
    """How the caption of one picture changed: `written` holds (when, text, score), first to last.

    `every`: the whole history, folded away at first; empty where `written` has all of it.
    """

    id: str
    written: tuple[tuple[str, str, float | None], ...]
    picture: Picture | None = None
    references: tuple[str, ...] = ()
    every: tuple[tuple[str, str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, as text; folded away at first unless `open`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    open: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know (rejected samples, gaps in a curve), with single lines folded beneath."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a page shows; every part but the title may be empty.

    `explained`: sentences on what the headline scores mean. `commands`: what each does, and the command itself.

    >>> ReportData("flowers", facts=(("device", "cpu"),)).facts
    (('device', 'cpu'),)
    """

    title: str
    subtitle: str = ""
    headlines: tuple[Headline, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    explained: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    evolutions: tuple[Evolution, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[Note, ...] = ()

    def with_extra(self, extra: ReportData) -> ReportData:
        """This report with another's parts before its own; the other's title and subtitle win where they are not empty.

        >>> ReportData("a", "b", facts=(("x", "1"),)).with_extra(ReportData("", "c", facts=(("y", "2"),))).facts
        (('y', '2'), ('x', '1'))
        """
        parts = {
            part.name: getattr(extra, part.name) + getattr(self, part.name)
            for part in fields(self)
            if part.name not in ("title", "subtitle")
        }
        return changed(self, title=extra.title or self.title, subtitle=extra.subtitle or self.subtitle, **parts)


def render(data: ReportData) -> str:
    """The page as HTML text, complete in itself: style, script, curves and pictures are inside.

    >>> "&lt;script&gt;" in render(ReportData("<script>"))
    True
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(agreement=agreement, confidence=confidence)
    environment.globals["draw"] = _draw
    script = (folder / "script.js").read_text(encoding="utf-8")
    page = environment.get_template("template.html").render(
        data=data,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")  # JSON may hold half a surrogate pair, a file may not


def confidence(score: float | None) -> int | None:
    """Percent, from a mean token log-probability: the (geometric) mean probability of a token.

    >>> confidence(math.log(0.5)), confidence(None)
    (50, None)
    """
    if score is None or not math.isfinite(score):
        return None
    return round(100 * math.exp(min(score, 0.0)))


def agreement(text: str, references: Sequence[str]) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is a word (of three letters or more) that a reference uses too.

    >>> agreement("a dog, runs", ["the Dog sleeps"])
    [('a ', False), ('dog,', True), (' runs', False)]
    """
    known = {_bare(word) for reference in references for word in reference.split()}
    pieces: list[tuple[str, bool]] = []
    for place, word in enumerate(text.split()):
        shared = len(_bare(word)) > 2 and _bare(word) in known
        space = " " if place else ""
        if shared:
            pieces += [(space, False)] if space else []
            pieces.append((word, True))
        else:
            pieces.append((space + word, False))
    return _joined(pieces)


def _joined(pieces: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbours that share nothing become one piece."""
    joined: list[tuple[str, bool]] = []
    for text, shared in pieces:
        if joined and not shared and not joined[-1][1]:
            joined[-1] = (joined[-1][0] + text, False)
        else:
            joined.append((text, shared))
    return joined


def _bare(word: str) -> str:
    return word.strip(string.punctuation).casefold()


def _draw(chart: Chart, width: float, height: float) -> Markup:
    return Markup(draw_curve(chart, width, height))  # matplotlib escapes the text it writes
