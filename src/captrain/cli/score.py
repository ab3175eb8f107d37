"""`captrain score`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.comparison import show_comparison
from captrain.cli.early import check_models
from captrain.cli.flags import TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code
from captrain.cli.switch import Switch
from captrain.errors import DataError
from captrain.settings.schema.training import TokenizeName


def score(
    *files: Path,
    metrics: tuple[str, ...] = ("bleu_4", "rouge_l", "cider"),
    tokenize: TokenizeName = "auto",
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
    """Score captions that exist against references.

    Args:
        files: Predictions of one system or of several, then references: files .json, .jsonl, .csv, .tsv or folders of .txt.
        metrics: Any of bleu_1 to bleu_4 (one brings all), rouge_l, cider, and meteor and spice, which need Java.
        tokenize: How captions become words. Papers on English use ptb; unicode suits most scripts, characters all. auto is ptb
            where the script of the references has spaces between words, and else one of the others: the result says which.
        allow_missing: Score the images that have both captions and references. Otherwise ids must be the same.
        document_frequencies: File of CIDEr's document frequencies, instead of those of the references.
        save_document_frequencies: Write those of the references to this file.
        bootstrap: Resamples for 95 % intervals and comparisons. 0 leaves them out.
        seed: Of the resamples.
        clip: CLIP model (folder or hub id), for CLIPScore and RefCLIPScore of the pictures in --images.
        images: Folder of the pictures, whose names are the ids of the captions.
        image_column: Column that names the images, in the files that have it. Default: the one by which most are matched.
        caption_column: Column of captions, in the files that have it. Default: found by its usual names.
        follow_links: Read what links in folders of captions and of pictures lead to, wherever that is, and linked folders.
        device: Where the CLIP model runs. auto takes cuda, mps, xpu or cpu, the first that is there.
        json: Print one JSON object instead of a table.
    """
    trust(model_files)
    _check_words(files, metrics)
    check_models(clip if images is not None else None)
    if clip is not None:
        quiet_libraries()
    from captrain.inference.score import score_systems

    *predictions, references = files
    found, rejects = score_systems(
        _named(predictions),
        references,
        metrics=metrics,
        tokenizer=tokenize,
        allow_missing=allow_missing,
        document_frequencies=document_frequencies,
        save_document_frequencies=save_document_frequencies,
        bootstrap=bootstrap,
        seed=seed,
        clip=clip,
        images=images,
        device=device,
        image_column=image_column,
        caption_column=caption_column,
        follow_links=follow_links,
    )
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


def _named(predictions: list[Path]) -> dict[str, Path]:
    """Each file by its name, or by its path where two have the same name. Raises `DataError` for a file given twice."""
    names = [path.name for path in predictions]
    keys = [path.name if names.count(path.name) == 1 else str(path) for path in predictions]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{twice}: given twice as predictions, expected it once; the last file is the references")
    return dict(zip(keys, predictions, strict=True))
