"""Writes images with a JSON object from their names to lists of captions."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`captions.json` beside the images."""
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    (folder / "captions.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / "captions.json"
