"""The card of an exported captioner: what it is, how to load it, what it was trained on, how well it does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from captrain.models.captioner import CaptionerModel
from captrain.models.checkpoint.plain import Place, captrain_code, differences, plain_code
from captrain.report.facts import flatten, section
from captrain.report.logs import Metrics, Problems, read_metrics, score_name, score_order
from captrain.yaml_text import dump_yaml, load_yaml

MOST_POINTS = 12  # of a curve


def model_card(run: Path, captioner: CaptionerModel, name: str, base: str, hub_id: str = "") -> str:
    """README.md of an exported captioner, in the hub's form.

    Args:
        run: run folder it came from; of any other folder or name only the model itself is described.
        name: what to call it. base: the model that training began from.
        hub_id: where others find it, if it is on the hub.
    """
    settings, scores = _read(run / "settings.yaml"), _read(run / "scores.json")
    metrics = read_metrics(run / "metrics.jsonl", Problems())
    parts = [
        _head(captioner, base),
        f"# {name}\n\nWrites captions for pictures: a captioner of the family `{captioner.family}`, made with captrain.",
        _loading(captioner, base, Place(hub_id or name, bool(hub_id))),
        _table("Scores", ("score", "value"), _scores(scores)),
        _table(
            "Data", ("what", "count"), ((key.replace("_", " "), value) for key, value in flatten(settings.get("data")))
        ),
        *_curves(metrics),
        _table("How it sees and writes", ("setting", "value"), _own_settings(captioner)),
        _table("Training settings", ("setting", "value"), _settings(settings)),
        _table("Parameters", ("part", "number"), flatten(settings.get("parameters"))),
        _table("Versions", ("what", "value"), flatten(settings.get("captrain"))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(captioner: CaptionerModel, base: str) -> str:
    """What the hub reads of a card."""
    facts: dict[str, Any] = {
        "library_name": "peft" if _has_adapter(captioner) else "transformers",
        "pipeline_tag": "image-to-text",
        "tags": ["captrain", "image-captioning", captioner.family],
    }
    if (named := next(filter(_is_hub_id, (base, *captioner.origins)), None)) is not None:
        facts["base_model"] = named
    return f"---\n{dump_yaml(facts)}---"


def _loading(captioner: CaptionerModel, base: str, place: Place) -> str:
    """Code that writes a caption: with captrain, and without it where transformers alone can load the model."""
    text = f"## Use\n\n```python\n{captrain_code(place)}\n```"
    without = plain_code(captioner, base if _is_hub_id(base) else "", place)
    if without is None:
        return text + "\n\nIt has parts that transformers does not know, so captrain is needed to load it."
    return f"{text}\n\nWithout captrain:\n\n```python\n{without}\n```\n\n{' '.join(differences(captioner))}"


def _scores(scores: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Scores of the best checkpoint on the validation images."""
    found = section(scores.get("scores"))
    for name in sorted(found, key=score_order):
        if isinstance(found[name], int | float):
            yield score_name(name), f"{found[name]:.4f}"
    if found and scores.get("images"):
        yield "validation images", str(scores["images"])


def _curves(metrics: Metrics) -> Iterator[str]:
    """Training loss and validation scores over the steps, as numbers."""
    losses = [(f"{line['step']:g}", _cell(line.get("loss"))) for line in _spread(metrics.train)]
    yield _table("Training loss", ("step", "loss"), losses)
    columns = ("step", *metrics.scores)
    rows = [tuple(_cell(line.get(column)) for column in columns) for line in _spread(metrics.validation)]
    yield _table("Validation", [score_name(column) for column in columns], rows)


def _own_settings(captioner: CaptionerModel) -> Iterator[tuple[str, str]]:
    """Image preparation, prompt and decoding, as saved in captrain.json."""
    if captioner.origins:
        yield "trained on from", ", then ".join(map(last_name, captioner.origins))
    yield "prompt", captioner.prompt or "none"
    yield from flatten({"picture": captioner.image_spec.to_dict()})
    yield from flatten({"decoding": captioner.decoding.to_dict()})


def _settings(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings of the run that have a value; of folders only the last name, which is nobody's secret."""
    for name, value in flatten(settings.get("settings")):
        if value and not name.startswith("generation."):
            yield name, last_name(value)


def last_name(value: str) -> str:
    r"""A folder's last name; anything that is not a whole path as it is.

    >>> last_name("/home/ada/photos"), last_name("C:\\photos\\cats"), last_name("Salesforce/blip")
    ('photos', 'cats', 'Salesforce/blip')
    """
    if value.startswith(("/", "~", "..")):
        return PurePosixPath(value).name
    return PureWindowsPath(value).name if PureWindowsPath(value).is_absolute() else value


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown under a heading; nothing without rows."""
    lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    head = [f"## {title}", "", "| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join([*head, *lines])


def _escaped(text: str) -> str:
    """Text that stays in its cell and is not taken for a tag."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def _spread(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_POINTS` lines, evenly spread, the first and the last among them."""
    if len(lines) <= MOST_POINTS:
        return list(lines)
    return [lines[round(place * (len(lines) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]


def _cell(value: Any) -> str:
    """A number in few digits."""
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _read(path: Path) -> dict[str, Any]:
    """A run's YAML or JSON file; nothing where it is missing or broken."""
    try:
        text = path.read_text(encoding="utf-8")
        return section(json.loads(text) if path.suffix == ".json" else load_yaml(text))
    except (OSError, ValueError, RecursionError):
        return {}


def _has_adapter(captioner: CaptionerModel) -> bool:
    return hasattr(captioner.model, "peft_config")


def _is_hub_id(name: str) -> bool:
    """Whether a model's name is one that others can load it by."""
    return bool(name) and not Path(name).exists() and name.count("/") <= 1 and not name.startswith((".", "/", "~"))
