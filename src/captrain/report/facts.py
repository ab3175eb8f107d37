"""What a report says about a run in numbers: headline scores, facts, tables."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from captrain.report.captions import text_of
from captrain.report.logs import Metrics, finite, score_name, score_order
from captrain.report.page import Headline, Table

MOST_HEADLINES = 3
MOST_ROWS = 400  # of one table
CIDER = (
    "CIDEr runs from 0 to 10 and rewards words that the references share, rare ones most (Vedantam et al. 2015). On COCO, "
    "people score 0.85 against one another (Chen et al. 2015) and BLIP 1.33 (Li et al. 2022); papers print these times 100."
)
"""Sources: arXiv 1411.5726; 1504.00325, table 1; 2201.12086, table 7."""


def section(value: Any) -> dict[str, Any]:
    """A mapping as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def headlines(metrics: Metrics, scores: dict[str, Any], pictures: str = "pictures") -> tuple[Headline, ...]:
    """The scores of the evaluation, or else those of the best checkpoint; at most three, the familiar ones first."""
    found, best = section(scores.get("scores")), metrics.best()
    images = finite(scores.get("images"))
    epoch = finite(scores.get("epoch"))
    remark = f"on {images:,.0f} {pictures}" if images else ""
    remark += f", epoch {epoch:.4g}" if remark and epoch else ""
    if not found and best:
        found = {name: best.get(name) for name in metrics.scores}
        remark = f"best checkpoint, step {best['step']:,.0f}"
    names = sorted((name for name in found if finite(found[name]) is not None), key=score_order)
    intervals = section(scores.get("intervals"))
    return tuple(
        Headline(score_name(name), f"{found[name]:.3f}", _interval(intervals.get(name), remark))
        for name in names[:MOST_HEADLINES]
    )


def _interval(ends: Any, remark: str) -> str:
    """A remark with the interval before it, where there is one.

    >>> _interval([0.45, 0.5], "on 1,000 pictures")
    '95 %: 0.450 to 0.500, on 1,000 pictures'
    """
    if not isinstance(ends, list) or len(ends) != 2 or any(finite(end) is None for end in ends):
        return remark
    return ", ".join(part for part in (f"95 %: {ends[0]:.3f} to {ends[1]:.3f}", remark) if part)


def facts(
    settings: dict[str, Any], metrics: Metrics, tested: dict[str, Any], scores: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """What was trained, on what, for how long, and how scores were computed: pairs of a label and a value."""
    data, about = section(settings.get("data")), dict(section(settings.get("captrain")))
    for label, part in (("trained on", "train"), ("validated on", "validation")):
        counts = [
            f"{count:,.0f} {noun}"
            for noun, key in (("pictures", f"{part}_images"), ("captions", f"{part}_captions"))
            if (count := finite(data.get(key)))
        ]
        if counts:
            yield label, ", ".join(counts)
    if bare := finite(data.get("uncaptioned")):
        yield "without a caption", f"{bare:,.0f} pictures, left for captrain caption"
    if images := finite(tested.get("images")):
        yield "tested on", f"{images:,.0f} pictures"
    yield from _progress(metrics)
    total, trainable = _parameters(settings)
    if total:
        yield "trainable", f"{_short(trainable)} of {_short(total)} parameters ({100 * trainable / total:.3g}%)"
    if signature := text_of((tested or scores).get("signature")):
        yield "scored by", signature
    about["captrain"] = about.get("version")
    for name in ("device", "captrain", "torch", "transformers"):
        if about.get(name) is not None:
            yield name, text_of(about[name])


def _progress(metrics: Metrics) -> Iterator[tuple[str, str]]:
    lines = sorted(metrics.train + metrics.validation, key=lambda line: float(line["step"]))
    if not lines:
        return
    yield "steps", f"{lines[-1]['step']:,.0f}"
    epoch = finite(lines[-1].get("epoch"))
    if epoch is not None:
        yield "epochs", f"{epoch:.3g}"
    seconds = max((value for line in lines if (value := finite(line.get("seconds"))) is not None), default=None)
    if seconds is not None:
        yield "time", duration(seconds)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(42), duration(200), duration(3720)
    ('42 s', '3 min 20 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(count: float) -> str:
    """A large number in three digits: 247,414,272 is '247 M'."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def _parameters(settings: dict[str, Any]) -> tuple[float, float]:
    parts = [section(part) for part in section(settings.get("parameters")).values()]
    total, trainable = (sum(finite(part.get(key)) or 0.0 for part in parts) for key in ("total", "trainable"))
    return total, trainable


def train_command(requested: dict[str, Any], out: str) -> str:
    """The command that trains with a run's saved settings, on one line; several data sets need a recipe.

    >>> train_command({"source": "my photos", "model": {"rank": 4, "freeze": [], "dora": True}}, "runs/x")
    "captrain train 'my photos' runs/x --rank 4 --no-freeze --dora"
    """
    source = requested.get("source")
    recipe = ["--recipe", "RECIPE.yaml"] if section(requested.get("data")).get("sources") else []
    flags = [
        word
        for part in requested.values()
        for name, value in section(part).items()
        if name != "sources" and value is not None
        for word in _flag(f"--{name}".replace("_", "-"), value)
    ]
    return shlex.join(["captrain", "train", *([text_of(source)] if source else []), out, *recipe, *flags])


def _flag(name: str, value: Any) -> list[str]:
    """One setting as words of a command line."""
    if isinstance(value, bool) or value == []:
        return [name if value else f"--no-{name[2:]}"]
    if isinstance(value, list):
        return [name, *map(text_of, value)]
    return [f"{name}={value}"] if text_of(value).startswith("-") else [name, text_of(value)]


def commands(settings: dict[str, Any], run: str) -> Iterator[tuple[str, str]]:
    """The command that made a run, if it is known, and useful next ones."""
    if requested := section(settings.get("requested")):
        yield "This run was made by", train_command(requested, run)
    place = shlex.quote(run)
    yield "Caption pictures with it", f"captrain caption {place} PICTURES --output captions.jsonl"
    yield "Score it on other data", f"captrain evaluate {place} DATA"
    yield "Make a plain model of it, with a card", f"captrain export {place} MODEL"
    yield "Train on with other settings", f"captrain train DATA NEW_RUN --model {place}"


def explained(found: Iterable[str]) -> Iterator[str]:
    """What the scores on top mean, a sentence each."""
    if "cider" in found:
        yield CIDER


def table_of_test(tested: dict[str, Any]) -> Iterator[Table]:
    """Scores of the best model on the test split, with their intervals; open, as they are what a run is for."""
    found, intervals = section(tested.get("scores")), section(tested.get("intervals"))
    if found:
        rows = [
            (score_name(name), _cell(found[name]), _interval(intervals.get(name), ""))
            for name in sorted(found, key=score_order)
        ]
        yield Table("Scores on the test pictures", ("score", "value", "interval"), tuple(rows), open=True)


def tables(settings: dict[str, Any], metrics: Metrics, scores: dict[str, Any]) -> Iterator[Table]:
    """In detail: scores, validation by step, parameters by part, settings as "section.key", versions, data."""
    found = section(scores.get("scores"))
    if found:
        names = sorted(found, key=score_order)
        yield Table("Scores", ("score", "value"), tuple((score_name(name), _cell(found[name])) for name in names))
    if metrics.validation:
        columns = ("step", "epoch", *metrics.scores)
        rows = tuple(tuple(_cell(line.get(name)) for name in columns) for line in metrics.validation[-MOST_ROWS:])
        yield Table("Validation, step by step", tuple(score_name(name) for name in columns), rows)
    parts = section(settings.get("parameters"))
    if parts:
        columns = ("trainable", "total")
        rows = tuple((str(name), *(_cell(section(part).get(key)) for key in columns)) for name, part in parts.items())
        yield Table("Trainable parameters", ("part", *columns), rows)
    for title, key in (("Settings", "settings"), ("Versions", "captrain"), ("Data", "data")):
        flat = tuple(itertools.islice(flatten(settings.get(key)), MOST_ROWS))
        if flat:
            yield Table(title, ("setting", "value") if key == "settings" else ("what", "value"), flat)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else text_of(value)


def flatten(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Nested settings as ("section.key", "value"), one at a time; lists of plain values stay together.

    >>> list(flatten({"training": {"epochs": 5, "rates": [1, 2]}, "seed": None}))
    [('training.epochs', '5'), ('training.rates', '1, 2'), ('seed', '')]
    """
    if isinstance(value, dict) and depth < 8:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list) and all(not isinstance(inner, dict | list) for inner in value):
        yield name, text_of(", ".join(text_of(inner) for inner in value[:100]))
    elif isinstance(value, list) and depth < 8:
        for place, inner in enumerate(value):
            yield from flatten(inner, f"{name}.{place}", depth + 1)
    elif name:
        yield name, "..." if isinstance(value, dict | list) else text_of(value)
