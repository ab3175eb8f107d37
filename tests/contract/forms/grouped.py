"""Writes images with R2Gen's annotation file: lists by split, whose objects hold a report and the images that it is about."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`annotation.json` beside the images; an object a caption, one with an empty report where an image has none."""
    rows = []
    for name, captions in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        rows += [{"id": name, "report": caption, "image_path": [name]} for caption in captions or [""]]
    text = json.dumps({"train": rows, "val": [], "test": []}, ensure_ascii=False)
    (folder / "annotation.json").write_text(text, encoding="utf-8")
    return folder / "annotation.json"
