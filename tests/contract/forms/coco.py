"""Writes images with a COCO captions file."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """Every image is listed; a caption is an annotation."""
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    images = [{"id": number, "file_name": name} for number, name in enumerate(content)]
    annotations = [
        {"image_id": number, "id": 10 * number, "caption": caption}
        for number, captions in enumerate(content.values())
        for caption in captions
    ]
    text = json.dumps({"images": images, "annotations": annotations}, ensure_ascii=False)
    (folder / "captions.json").write_text(text, encoding="utf-8")
    return folder
