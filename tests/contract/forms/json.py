"""A JSON list with a caption an object, as LAVIS writes annotations."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`annotations.json` beside the images; an object without caption where an image has none."""
    rows: list[dict[str, str | list[str]]] = []
    for name, captions in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        rows += [{"image": name, "caption": caption} for caption in captions] or [{"image": name, "caption": []}]
    (folder / "annotations.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder
