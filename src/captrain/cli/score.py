"""`captrain score` and `captrain evaluate`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api.scoring import Predictions, ScoreSettings, Tokenize, compare_files
from captrain.api.scoring import evaluate as evaluate_captioner
from captrain.cli.arguments import Switch
from captrain.cli.flags import (
    ComputingFlags,
    ReadingFlags,
    SeveralDecodingsFlags,
    TrustFlags,
    TrustSettings,
    given,
    trusted,
)
from captrain.cli.show import exit_code, rejected_rows, show_comparison, show_table
from captrain.errors import DataError

if TYPE_CHECKING:
    from captrain.inference.evaluate import Evaluation


def score(
    *files: Path,
    metrics: tuple[str, ...] = ("bleu_4", "rouge_l", "cider"),
    tokenize: Tokenize = "auto",
    allow_missing: Switch = False,
    document_frequencies: Path | None = None,
    save_document_frequencies: Path | None = None,
    bootstrap: Annotated[int, Parameter(validator=Number(gte=0, lte=100_000))] = 1000,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    clip: str | None = None,
    images: Path | None = None,
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto",
    image_column: str = "",
    caption_column: str = "",
    follow_links: Switch = False,
    json: Switch = False,
    model_files: TrustFlags = None,
) -> int:
    """Score existing captions against references.

    Args:
        files: Predictions of one or more systems, then the references: .json, .jsonl, .csv, .tsv files or folders of .txt files.
        metrics: Any of bleu_1 to bleu_4 (one brings all), rouge_l, cider; meteor and spice need Java.
        tokenize: How captions are split into words. Papers on English use ptb; unicode suits most scripts, characters all. auto
            means ptb if the references' script puts spaces between words, else one of the others; the result says which.
        allow_missing: Score only the images that have both captions and references. Default: the ids must be the same.
        document_frequencies: File of CIDEr's document frequencies, instead of those of the references.
        save_document_frequencies: Write those of the references to this file.
        bootstrap: Resamples for 95 % intervals and comparisons; 0 for none.
        seed: Seed of the resamples.
        clip: CLIP model (folder or hub id) for CLIPScore and RefCLIPScore of the pictures in --images.
        images: Folder of the pictures; their names are the ids of the captions.
        image_column: Column with the images' names. Default: the one that matches most images.
        caption_column: Column with the captions. Default: recognised by its usual names.
        follow_links: Follow links in folders of captions and pictures, wherever they lead.
        device: Where the CLIP model runs. auto takes the first of cuda, mps, xpu, cpu that is there.
        json: Print one JSON object instead of a table.
    """
    _check_words(files, metrics)
    trust = model_files or TrustSettings()
    *predictions, references = files
    how: ScoreSettings = {
        "metrics": metrics, "tokenize": tokenize, "allow_missing": allow_missing, "bootstrap": bootstrap, "seed": seed,
        "document_frequencies": document_frequencies, "save_document_frequencies": save_document_frequencies,
        "clip": clip, "images": images, "device": device, "image_column": image_column,
        "caption_column": caption_column, "follow_links": follow_links,
        "trust_remote_code": trust.trust_remote_code, "safetensors_only": trust.safetensors_only,
    }  # fmt: skip
    found, rejects = compare_files("captrain.score", _named(predictions), references, how)
    if json:
        print(json_format.dumps(found.to_dict()))
    else:
        show_comparison(found)
    return exit_code(len(rejects))


def _check_words(files: tuple[Path, ...], metrics: tuple[str, ...]) -> None:
    """Raise `DataError` for less than two files; a flag of several values before them takes them for its own."""
    taken = [word for word in metrics if Path(word).exists()]
    if len(files) < 2 and taken:
        raise DataError(f"--metrics took '{taken[0]}' for a metric; put files before the flags, or write --metrics a,b")
    if len(files) < 2:
        raise DataError(
            f"found {len(files)} file{'s' * (not files)}, expected predictions and references (a predictions.jsonl that "
            "holds its references can be given twice)"
        )


def _named(predictions: list[Path]) -> dict[str, Predictions]:
    """Each file by its name, or by its path where two have the same name. Raises `DataError` for a file given twice."""
    names = [path.name for path in predictions]
    keys = [path.name if names.count(path.name) == 1 else str(path) for path in predictions]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{twice}: given twice as predictions, expected it once; the last file is the references")
    return dict(zip(keys, predictions, strict=True))


def evaluate(
    model: str,
    data: str | None = None,
    /,
    *,
    recipe: Path | None = None,
    split: str | None = None,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    output: Path | None = None,
    tokenize: Tokenize | None = None,
    json: Switch = False,
    reading: ReadingFlags = None,
    computing: ComputingFlags = None,
    generation: SeveralDecodingsFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Caption a data set and score the captions.

    Args:
        model: Run folder, model folder or hub id.
        data: Data set with captions to compare with. Default: the recipe's, else the run's own data.
        recipe: YAML file of settings; only data, generation and tokenize are used.
        split: Split to use, by the data's own name. Default: test, else validation, else everything. Of its own data, a run uses
            the pictures that it held out.
        limit: Use only the first pictures, this many.
        output: Folder for predictions.jsonl and scores.json. Default: evaluation/ in the run folder, if the model is one.
        tokenize: How captions are split into words (see `captrain score`). Default: as in the recipe or the run, else auto.
        json: Print one JSON object instead of a table.
    """
    sections = given(reading=reading, computing=computing, generation=generation)
    settings = {name: value for section in sections.values() for name, value in section.items()}
    found = evaluate_captioner(
        model, data, recipe=recipe, split=split, limit=limit, out=output, tokenize=tokenize, **settings,
        **trusted(model_files),
    )  # fmt: skip
    if json:
        print(_as_json(found))
    else:
        show_comparison(found.comparison)
        files = [("predictions", str(path)) for path in found.predictions]
        if rows := [*rejected_rows(found.rejected, found.rejects_file), *files]:
            show_table(rows)
    return exit_code(found.rejected)


def _as_json(found: Evaluation) -> str:
    """One JSON object on one line."""
    files = [str(path) for path in found.predictions]
    one = len(found.comparison.systems) == 1
    predictions = next(iter(files), None) if one else files
    content = {**found.comparison.to_dict(), "images": found.images, "rejected": found.rejected}
    if found.pictures:
        content["pictures"] = found.pictures
    return json_format.dumps({**content, "predictions": predictions})
