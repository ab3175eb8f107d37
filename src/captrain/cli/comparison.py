"""Scores of one system or of several, as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captrain.cli.logs import printable
from captrain.cli.show import TITLES, show_table

if TYPE_CHECKING:
    from captrain.metrics.compare import Comparison, System


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
