"""Writes images with a file of Karpathy's splits, in which all are trained on."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """An image's folder is its `filepath`."""
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    images = [
        {
            "filepath": str(PurePosixPath(name).parent),
            "filename": PurePosixPath(name).name,
            "split": "restval",
            "sentences": [{"raw": caption, "tokens": caption.split()} for caption in captions],
        }
        for name, captions in content.items()
    ]
    text = json.dumps({"images": images, "dataset": "coco"}, ensure_ascii=False)
    (folder / "dataset_coco.json").write_text(text, encoding="utf-8")
    return folder
