"""The card of an exported captioner: what it is, how to load it, what it was trained on, how well it does; and its recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from captrain.models.checkpoint.plain import ModelPlace, captrain_code, code_differences, plain_code
from captrain.models.contract import CaptionerModel
from captrain.report.facts import explained, facts, flatten, section, train_command
from captrain.report.logs import Metrics, Problems, finite, read_metrics, score_name, score_order
from captrain.yaml_text import dump_yaml, load_yaml

MOST_POINTS = 6  # of a curve
RECIPE = "recipe.yaml"
RECIPE_COMMAND = f"captrain train DATA RUN --recipe {RECIPE}"
VERSIONS = ("device", "captrain", "torch", "transformers")


def model_card(run: Path, captioner: CaptionerModel, name: str, base: str, hub_id: str = "") -> str:
    """README.md of an exported captioner, in the hub's form: a page to read, with the long tables folded away.

    Args:
        run: run folder it came from; of any other folder or name only the model itself is described.
        name: what to call it. base: the model that training began from.
        hub_id: where others find it, if it is on the hub.
    """
    settings, scores = _read(run / "settings.yaml"), _read(run / "test" / "scores.json") or _read(run / "scores.json")
    metrics = read_metrics(run / "metrics.jsonl", Problems())
    parts = [
        _head(captioner, base),
        f"# {name}\n\n{_about(captioner, base, settings)}",
        _loading(captioner, base, ModelPlace(hub_id or name, bool(hub_id))),
        _scored(scores, "test" if (run / "test" / "scores.json").is_file() else "validation"),
        _trained(settings, metrics, scores),
        _folded("Curves", *_curves(metrics)),
        _folded("How it sees and writes", _table(("setting", "value"), _own_settings(captioner))),
        _folded("All settings of the training", _table(("setting", "value"), _settings(settings))),
        _folded(
            "Parameters and versions",
            _table(("part", "number"), flatten(settings.get("parameters"))),
            _table(("what", "value"), flatten(settings.get("captrain"))),
        ),
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


def _loading(captioner: CaptionerModel, base: str, place: ModelPlace) -> str:
    """Code that writes a caption: with captrain, and without it where transformers alone can load the model."""
    text = f"## Use\n\n```python\n{captrain_code(place)}\n```"
    without = plain_code(captioner, base if _is_hub_id(base) else "", place)
    if without is None:
        return text + "\n\nIt has parts that transformers does not know, so captrain is needed to load it."
    return f"{text}\n\nWithout captrain:\n\n```python\n{without}\n```\n\n{' '.join(code_differences(captioner))}"


def _about(captioner: CaptionerModel, base: str, settings: dict[str, Any]) -> str:
    """What it is, in two sentences."""
    size = sum(parameter.numel() for parameter in captioner.model.parameters())
    begun = last_name(str(section(section(settings.get("settings")).get("model")).get("model") or base))
    text = f"This model writes captions for pictures. It is a captioner of the family `{captioner.family}` "
    text += f"with {size / 1e6:,.0f} million parameters" if size >= 1e6 else f"with {size:,} parameters"
    text += f", trained with captrain from `{begun}`." if settings and begun else ", made with captrain."
    return text + (f" Each caption begins with `{captioner.prompt}`." if captioner.prompt else "")


def _scored(scores: dict[str, Any], split: str) -> str:
    """Scores of the best checkpoint, with their intervals, and what CIDEr means."""
    found, intervals = section(scores.get("scores")), section(scores.get("intervals"))
    names = [name for name in sorted(found, key=score_order) if finite(found[name]) is not None]
    if not names:
        return ""
    images = finite(scores.get("images"))
    on = f"On {images:,.0f} {split} pictures that it was not trained on" if images else f"On {split} pictures"
    rows = [(score_name(name), f"{found[name]:.4f}", _ends(intervals.get(name))) for name in names]
    header = ("score", "value", "95 % interval") if any(row[2] for row in rows) else ("score", "value")
    table = _table(header, [row[: len(header)] for row in rows])
    return "\n\n".join(["## Scores", f"{on}:", table, *explained(found)])


def _ends(interval: Any) -> str:
    """An interval in words; nothing if there is none.

    >>> _ends([0.45, 0.5]), _ends(None)
    ('0.4500 to 0.5000', '')
    """
    if not isinstance(interval, list) or len(interval) != 2 or any(finite(end) is None for end in interval):
        return ""
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _trained(settings: dict[str, Any], metrics: Metrics, scores: dict[str, Any]) -> str:
    """On what it was trained, for how long, and the one command that did it."""
    if not settings:
        return ""
    rows = [(label, value) for label, value in facts(settings, metrics, {}, scores) if label not in VERSIONS]
    asked = _nameless(section(settings.get("requested")))
    command = train_command(asked | {"source": "DATA"}, "RUN")  # where the data was is private
    again = (
        f"`{RECIPE}` beside this page holds every setting, also those left open: `{RECIPE_COMMAND}` trains with them."
    )
    return "\n\n".join(["## Training", _table(("what", "value"), rows), f"```bash\n{command}\n```", again])


def training_recipe(run: Path) -> str:
    """The recipe that trains such a captioner again: all settings of a run, as YAML. Nothing if they are not known.

    Only the last name of a folder is in it: the rest is private. The data are given on the command line.
    """
    kept = {name: value for name, value in section(_read(run / "settings.yaml").get("settings")).items() if value}
    if not kept:
        return ""
    head = "# All settings of the training. Paths are shortened to their last name.\n#\n"
    return f"{head}#   {RECIPE_COMMAND}\n{dump_yaml(_nameless(kept))}"


def _nameless(value: Any) -> Any:
    """Settings without the folders of the one who trained: of a whole path the last name alone."""
    if isinstance(value, dict):
        return {name: _nameless(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_nameless(inner) for inner in value]
    return last_name(value) if isinstance(value, str) else value


def _curves(metrics: Metrics) -> Iterator[str]:
    """Training loss and validation scores over the steps, as numbers."""
    losses = [(f"{line['step']:g}", _cell(line.get("loss"))) for line in _spread(metrics.train)]
    yield _table(("step", "training loss"), losses)
    columns = ("step", *metrics.scores)
    rows = [tuple(_cell(line.get(column)) for column in columns) for line in _spread(metrics.validation)]
    yield _table([score_name(column) for column in columns], rows)


def _folded(title: str, *tables: str) -> str:
    """Tables behind a line that unfolds them; nothing if there are none."""
    there = [table for table in tables if table]
    return "\n\n".join([f"<details><summary>{title}</summary>", *there, "</details>"]) if there else ""


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; nothing without rows."""
    lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |", *lines])


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
    """A run's YAML or JSON file; nothing if it is missing or broken."""
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
