"""Caption a data set, then score the captions."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from captrain.data.dataset import load_split, load_splits
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.samples import Chosen
from captrain.errors import DataError
from captrain.inference.captioning import Writer, adjust_decoding
from captrain.metrics.score import score_captions
from captrain.progress import track
from captrain.records import Caption, Rejects, Sample, write_jsonl, write_text
from captrain.settings.schema import DataSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores over `images` pictures; `predictions` is the file of captions, if one was asked for or a run is there to hold it."""

    scores: dict[str, float]
    images: int
    rejected: int
    rejects_file: Path | None
    predictions: Path | None


def evaluate(
    model: str,
    data: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    output: Path | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    batch_size: int = 16,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    max_pixels: int,
    decoding: dict[str, Any],
) -> Evaluation:
    """Scores of a captioner on the pictures of a data set that have references.

    Args:
        format, options: how the data is read, where looking does not tell.
        split: which one; default test, else validation, else what the run held out of this data, else everything.
        limit: only the first so many pictures.
        output: folder for predictions.jsonl and scores.json; default `evaluation/` in the run folder, if `model` is one.
    """
    samples, rejects = _choose_samples(model, data, split, _asked(format, options))
    samples = _with_references(samples, limit, data, rejects)
    writer = Writer.load(model, device, precision)
    how = adjust_decoding(writer.captioner.decoding, decoding)
    predictions = []
    with track("caption", len(samples)) as advance:
        for index, line in writer.stream(samples, how, rejects, batch_size, workers, max_pixels):
            predictions.append(Caption.of(samples[index], line.text, line.score))
            advance(1)
    if not predictions:
        raise DataError(f"{data}: none of {len(samples)} pictures could be captioned: {rejects.summary()}")
    texts = {caption.id: caption.text for caption in predictions}
    scores = score_captions(texts, {caption.id: caption.references for caption in predictions})
    folder = output or (Path(model) / "evaluation" if (Path(model) / "settings.yaml").is_file() else None)
    files = (None, None) if folder is None else _write(folder, predictions, scores.to_dict(), rejects)
    return Evaluation(scores.scores, len(predictions), len(rejects), *files)


def _asked(format: str | None, options: ReadOptions) -> dict[str, Any]:
    """How to read the data, as far as that was said."""
    said = {"format": format, "options": options}
    return {name: value for name, value in said.items() if value not in (None, BY_LOOKING)}


def _choose_samples(
    model: str, data: str, split: str | None, asked: dict[str, Any]
) -> tuple[Sequence[Sample], Rejects]:
    """The pictures to score on. On the data that a run was trained on, splits are drawn as the run drew them."""
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


def _write(
    folder: Path, predictions: list[Caption], scores: dict[str, Any], rejects: Rejects
) -> tuple[Path | None, Path]:
    """Write what was found; returns the files of rejects and of predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "predictions.jsonl", (caption.to_dict() for caption in predictions))
    write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
    listed = folder / "rejected.jsonl" if rejects else None
    if listed is not None:
        logger.warning("%s (listed in %s)", rejects.summary(), listed)
        write_jsonl(listed, rejects.lines)
    return listed, folder / "predictions.jsonl"
