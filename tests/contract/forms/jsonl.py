"""JSON lines with a list of captions a row."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`metadata.jsonl` beside the images."""
    rows = []
    for name, captions in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        rows.append(json.dumps({"file_name": name, "captions": list(captions)}, ensure_ascii=False) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows), encoding="utf-8")
    return folder
