"""A list without a header: `dog.jpg<TAB>a dog`."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`captions.txt` beside the images; an empty caption where an image has none."""
    lines = []
    for name, captions in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        lines += [f"{name}\t{caption}" for caption in captions or ("",)]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
