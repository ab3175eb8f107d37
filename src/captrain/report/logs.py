"""What a run wrote line by line, read with tolerance: a run that was stopped may have left half a line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.errors import DataError
from captrain.metrics.best import LOSS, merit
from captrain.records import parse_json_line
from captrain.report.curves import Chart, Line

NAMES = {
    "cider": "CIDEr",
    "cider_d": "CIDEr-D",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "spice": "SPICE",
    "validation_loss": "validation loss",
}
NOT_SCORES = ("kind", "step", "epoch", "seconds")
LONGEST_LINE = 1_000_000  # bytes
MOST_CHARTS = 9
MOST_NUMBERS = 100  # of a line
MOST_STEPS = 200_000


@dataclass(slots=True)
class Problems:
    """Lines that could not be read: how many a file, and the first few with the reason."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Count a line; keep the first twenty."""
        self.count += 1
        if len(self.first) < 20:
            self.first.append(problem)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The lines of metrics.jsonl by kind, each sorted by step; of a step written twice (resumed run) the later line.

    `metric` is the score by which the run chose its best checkpoint.
    """

    train: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]
    metric: str = "cider"

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the validation scores that hold a number anywhere, the familiar ones first."""
        names = {name for line in self.validation for name in line if number(line[name]) is not None}
        return tuple(sorted(names.difference(NOT_SCORES), key=score_order))

    def best(self) -> dict[str, Any] | None:
        """The validation line of the best checkpoint: by the run's own metric, or else by CIDEr, or else by the loss.

        The loss decides between equal scores, as it did in the run.
        """
        for name in (self.metric, "cider", LOSS):
            known = [line for line in self.validation if finite(line.get(name)) is not None]
            if known:
                return max(known, key=lambda line: merit(line, name))
        return None


def read_lines(path: Path, problems: Problems) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, one at a time; unreadable lines go to `problems`, a missing file has none."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for place, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if not line.strip():
                continue
            try:
                yield parse_json_line(line, f"{path.name}:{place}")
            except DataError as error:
                problems.add(str(error))


def read_metrics(path: Path, problems: Problems, metric: str = "cider") -> Metrics:
    """metrics.jsonl, sorted and without repeats; lines of another kind or without a step are left to later versions.

    `metric` is the score by which the run chose its best checkpoint.
    """
    kinds: dict[str, dict[float, dict[str, Any]]] = {"train": {}, "validation": {}}
    for line in read_lines(path, problems):
        step, kind = finite(line.get("step")), line.get("kind")
        if step is not None and isinstance(kind, str) and kind in kinds:
            keep(kinds[kind], step, {name: value for name, value in line.items() if number(value) is not None})
    train, validation = ([by_step[step] for step in sorted(by_step)] for by_step in kinds.values())
    return Metrics(tuple(train), tuple(validation), metric)


def keep(held: dict[float, dict[str, Any]], step: float, line: dict[str, Any]) -> None:
    """Add a step's line without more numbers than are shown; of far more steps than a curve shows, every second goes."""
    held[step] = dict(islice(line.items(), MOST_NUMBERS))
    if len(held) > MOST_STEPS:
        for other in list(held)[1:-1:2]:
            del held[other]


def number(value: Any) -> float | None:
    """A JSON value as a float (NaN and infinities too), None if it is not a number.

    >>> number(3), number(True), number("3"), number(10**400)
    (3.0, None, None, inf)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def finite(value: Any) -> float | None:
    """A JSON value as a finite float, None for anything else."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def score_name(name: str) -> str:
    """A score as papers write it.

    >>> score_name("bleu_4"), score_name("cider"), score_name("distinct_2")
    ('BLEU-4', 'CIDEr', 'distinct 2')
    """
    if name.startswith("bleu_"):
        return name.upper().replace("_", "-")
    return NAMES.get(name, name.replace("_", " "))


def score_order(name: str) -> tuple[int, str]:
    """Sorting key: what captions are judged by comes first, all else by name."""
    first = ("cider", "bleu_4", "meteor", "rouge_l", "spice", "validation_loss", "bleu_1", "bleu_2", "bleu_3")
    return (first.index(name) if name in first else len(first), name)


def line_of(name: str, key: str, lines: tuple[dict[str, Any], ...], noisy: bool = False) -> Line | None:
    """One value of all lines over their steps; None if no line holds a finite one."""
    values = [value if (value := finite(line.get(key))) is not None else math.nan for line in lines]
    if all(math.isnan(value) for value in values):
        return None
    return Line(name, [float(line["step"]) for line in lines], values, noisy)


def charts(metrics: Metrics) -> tuple[Chart, ...]:
    """Loss first, then a small chart for each validation score, then how the optimizer went."""
    best = metrics.best()
    best_step = float(best["step"]) if best else None
    losses = (
        line_of("training loss", "loss", metrics.train, noisy=True),
        line_of("validation loss", "validation_loss", metrics.validation),
    )
    drawn = [_chart("Loss", [line for line in losses if line], best_step if losses[1] else None)]
    for name in [name for name in metrics.scores if name != "validation_loss"][:MOST_CHARTS]:
        line = line_of(score_name(name), name, metrics.validation)
        drawn.append(_chart(score_name(name), [line] if line else [], best_step))
    for name, key in (("Learning rate", "learning_rate"), ("Gradient norm", "gradient_norm")):
        line = line_of(name.lower(), key, metrics.train, noisy=key == "gradient_norm")
        drawn.append(_chart(name, [line] if line else [], None))
    return tuple(chart for chart in drawn if chart is not None)


def _chart(title: str, lines: list[Line], best: float | None) -> Chart | None:
    """A chart that says its last line's value in words: at the best checkpoint, or else at the end."""
    if not lines:
        return None
    line = lines[-1]
    known = {step: value for step, value in zip(line.steps, line.values, strict=True) if math.isfinite(value)}
    when = "at the end" if best not in known else "at the best checkpoint"
    value = known[max(known) if best is None or best not in known else best]
    label = f"{line.name}: " if len(lines) > 1 else ""
    return Chart(title, tuple(lines), best, f"{label}{value:.4g} {when}")


def gaps(metrics: Metrics) -> list[str]:
    """Steps at which a loss is not a finite number, as lines to read."""
    found = []
    for key, lines in (("loss", metrics.train), ("validation_loss", metrics.validation)):
        for line in lines:
            value = number(line.get(key))
            if value is not None and not math.isfinite(value):
                found.append(f"step {line['step']}: {key} is {value}")
    return found
