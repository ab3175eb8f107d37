"""Results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captrain.cli.logs import printable

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
