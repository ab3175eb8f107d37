"""Which pictures an evaluation is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from captrain.data.dataset import load_split, load_splits
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.samples import Chosen
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.settings.schema import DataSettings


def choose_samples(
    model: str, data: str, split: str | None, limit: int | None, format: str | None, options: ReadOptions
) -> tuple[Sequence[Sample], Rejects]:
    """The pictures to score a model on, those without references rejected.

    Of the data that a run was trained on, splits are drawn as the run drew them.
    """
    samples, rejects = _of_split(model, data, split, _asked(format, options))
    return _with_references(samples, limit, data, rejects), rejects


def _asked(format: str | None, options: ReadOptions) -> dict[str, Any]:
    """How to read the data, as far as that was said."""
    said = {"format": format, "options": options}
    return {name: value for name, value in said.items() if value not in (None, BY_LOOKING)}


def _of_split(model: str, data: str, split: str | None, asked: dict[str, Any]) -> tuple[Sequence[Sample], Rejects]:
    """The named split; else what the run held out of this data; else what the data offers."""
    ran = _how_run_split(model, data)
    drawn = ran | asked
    if ran and split is None:
        splits = load_splits(data, **drawn)
        held_out = splits.test or splits.validation
        if held_out:
            return held_out, splits.rejects
    return load_split(data, split, **drawn)


def _how_run_split(model: str, data: str) -> dict[str, Any]:
    """How a run read and split this data; nothing where `model` is no run, or was trained on other data."""
    try:
        content = yaml.safe_load((Path(model) / "settings.yaml").read_text(encoding="utf-8"))
        same = Path(content["requested"]["source"]).resolve() == Path(data).resolve()
        settings = content["settings"]
        how = {"seed": settings["training"]["seed"]} | {
            key: settings["data"][key] for key in ("validation_share", "format")
        }
        how["options"] = ReadOptions.of(DataSettings(**settings["data"]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):  # of ValueErrors, those of settings too
        return {}
    return how if same else {}


def _with_references(samples: Sequence[Sample], limit: int | None, data: str, rejects: Rejects) -> Sequence[Sample]:
    """Samples that have something to be compared with; the others are rejected."""
    usable = []
    for index in range(len(samples)):
        if samples[index].captions:
            usable.append(index)
        else:
            rejects.add(samples[index].id, samples[index].source, "has no reference caption")
    if not usable:
        raise DataError(f"{data}: no picture has a reference caption to score against")
    return Chosen(samples, np.array(usable[:limit], dtype=np.int64))
