"""Results on stdout: tables, and scores of one system or of several."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captrain.cli.logs import printable

if TYPE_CHECKING:
    from captrain.metrics.compare import Comparison, System


DONE, SOME_REJECTED = 0, 3
WIDE = 4096  # columns where there is no terminal: nothing is wrapped, so that scripts can read it
TITLES = {
    **{f"bleu_{order}": f"BLEU-{order}" for order in range(1, 5)},
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "spice": "SPICE",
    "clip_score": "CLIPScore",
    "ref_clip_score": "RefCLIPScore",
}


def exit_code(rejected: int) -> int:
    """0, or 3 when samples were rejected on the way."""
    return SOME_REJECTED if rejected else DONE


def show_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Print a small table, as wide as its content where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, show_header=bool(header), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(printable, row))
    width = None if sys.stdout.isatty() else WIDE
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def score_rows(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Scores as papers name them.

    >>> score_rows({"cider": 0.48123})
    [('CIDEr', '0.4812')]
    """
    return [(TITLES.get(name, name.replace("_", " ")), f"{score:.4f}") for name, score in scores.items()]


def rejected_rows(rejected: int, listed: Path | None) -> list[tuple[str, str]]:
    """How many samples were rejected and where they are listed; nothing where all went well."""
    if not rejected:
        return []
    return [("rejected", f"{rejected} (listed in {listed})" if listed else str(rejected))]


def show_comparison(found: Comparison) -> None:
    """Scores of one system line by line, or a table of several, then what there is to say about them."""
    first = found.systems[0]
    if len(found.systems) == 1:
        rows = [(_title(name), f"{value:.4f}", _interval(first, name)) for name, value in first.scores.items()]
        facts = {"images": str(first.images), "signature": first.signature}
        show_table([*rows, *((name, value, "") for name, value in facts.items() if value)])
    else:
        _show_several(found)
    several = len(found.systems) > 1
    for note in dict.fromkeys(
        f"{system.name}: {note}" if several else note for system in found.systems for note in system.notes
    ):
        print(f"note: {printable(note)}")


def _show_several(found: Comparison) -> None:
    """A line a system; * marks the best in each metric and those that are not significantly worse."""
    metrics = list(dict.fromkeys(name for system in found.systems for name in system.scores))
    best = {name: found.best(name) for name in metrics}
    rows = [[system.name, *(_marked(system, name, best[name]) for name in metrics)] for system in found.systems]
    show_table(rows, ["", *map(_title, metrics)])
    first = found.systems[0]
    print(f"{first.images} images; {first.signature}" if first.signature else f"{first.images} images")
    if any(best.values()):
        print("* best, or not significantly worse than the best (approximate randomisation, p >= 0.05)")


def _marked(system: System, metric: str, best: list[str]) -> str:
    if metric not in system.scores:
        return "-"
    return f"{system.scores[metric]:.4f}{'*' if system.name in best else ''}"


def _interval(system: System, metric: str) -> str:
    """The interval of a score, if it has one."""
    if metric not in system.intervals:
        return ""
    low, high = system.intervals[metric]
    return f"{low:.4f} to {high:.4f}"


def _title(metric: str) -> str:
    return TITLES[metric]
