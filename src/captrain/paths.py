"""Where captrain keeps what outlives a run, and what the names of outputs say."""

from __future__ import annotations

import os
from pathlib import Path

from captrain.errors import UserError

JSON_LINES = (".jsonl", ".ndjson")
HTML = (".html", ".htm")
OF_FILES = (
    *JSON_LINES,
    *HTML,
    ".json",
    ".csv",
    ".tsv",
    ".txt",
    ".parquet",
    ".xlsx",
    ".yaml",
    ".yml",
    ".zip",
    ".tar",
    ".gz",
)
"""Endings that nobody would give a folder."""


def cache_folder() -> Path:
    """`CAPTRAIN_CACHE`, else `captrain` in the platform's folder for caches."""
    chosen = os.environ.get("CAPTRAIN_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("captrain")


def check_output_file(path: Path, endings: tuple[str, ...], form: str) -> None:
    """Raise `UserError` for an `--output` that is a folder, or whose ending promises another form than is written.

    >>> check_output_file(Path("captions.jsonl"), JSON_LINES, "JSON lines are")
    >>> try:
    ...     check_output_file(Path("captions.csv"), JSON_LINES, "JSON lines are")
    ... except UserError as error:
    ...     print(error)
    --output captions.csv: JSON lines are written, expected a name that ends in .jsonl: --output captions.jsonl
    """
    if path.is_dir():
        example = path / f"captions{endings[0]}" if endings is JSON_LINES else path / f"report{endings[0]}"
        raise UserError(f"--output {path}: is a folder, expected the name of a file: --output {example}")
    if path.suffix.lower() not in endings:
        better = path.with_suffix(endings[0]) if path.suffix.lower() in OF_FILES else f"{path}{endings[0]}"
        raise UserError(
            f"--output {path}: {form} written, expected a name that ends in {endings[0]}: --output {better}"
        )


def check_output_folder(path: Path, holds: str) -> None:
    """Raise `UserError` for an `--output` that is a file, or named like one, where a folder is written.

    >>> try:
    ...     check_output_folder(Path("scores.csv"), "predictions.jsonl and scores.json")
    ... except UserError as error:
    ...     print(error)
    --output scores.csv: a folder of predictions.jsonl and scores.json is written, expected its name: --output scores
    """
    if path.suffix.lower() in OF_FILES and not path.is_dir():
        raise UserError(
            f"--output {path}: a folder of {holds} is written, expected its name: --output {path.with_suffix('')}"
        )
    if path.is_file():
        raise UserError(f"--output {path}: is a file, expected the name of a folder, for {holds}")
