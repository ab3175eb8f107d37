"""A folder as `datasets.Dataset.save_to_disk` writes it: a column with pictures, one with lists of captions, one with names."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """Write the data set below `folder`; returns its folder."""
    from datasets import Dataset, Features, Image, List, Value

    columns = {
        "image": [{"bytes": picture, "path": None} for _ in content],
        "captions": [list(captions) for captions in content.values()],
        "file_name": list(content),
    }
    features = Features({"image": Image(), "captions": List(Value("string")), "file_name": Value("string")})
    path = folder / "saved"
    Dataset.from_dict(columns, features=features).save_to_disk(str(path))
    return path
