"""Writes a folder of images with a .txt beside each."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """An image without captions gets no text."""
    for name, captions in content.items():
        image = folder / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(picture)
        if captions:
            image.with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    return folder
