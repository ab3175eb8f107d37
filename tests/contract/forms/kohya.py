"""Writes images with the metadata file of sd-scripts: keys are paths without extension."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """Every image has an entry; captions are a list."""
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    entries = {str(PurePosixPath(name).with_suffix("")): {"caption": captions} for name, captions in content.items()}
    (folder / "meta_cap.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
