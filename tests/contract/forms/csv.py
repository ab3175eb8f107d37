"""A CSV with a row a caption, as a Hugging Face image folder has."""

from __future__ import annotations

import csv
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`metadata.csv` beside the images; an empty caption where an image has none."""
    rows = [(name, caption) for name, captions in content.items() for caption in captions or ("",)]
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return folder
