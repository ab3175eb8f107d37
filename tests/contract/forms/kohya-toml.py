"""Writes images with sd-scripts' metadata and a configuration that names both."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`dataset.toml` beside the images, with one subset."""
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    entries = {str(PurePosixPath(name).with_suffix("")): {"caption": captions} for name, captions in content.items()}
    (folder / "meta.json").write_text(json.dumps(entries), encoding="utf-8")
    lines = ["[general]", "shuffle_caption = true", "[[datasets]]", "resolution = 512", "[[datasets.subsets]]"]
    lines += ['image_dir = "."', 'metadata_file = "meta.json"', "num_repeats = 2"]
    (folder / "dataset.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "dataset.toml"
