"""Parquet with the pictures inside, as `datasets` writes it."""

from __future__ import annotations

from pathlib import Path

PICTURES_INSIDE = True  # no image lies in the folder, so none can be missing or be a link


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """One file, two rows a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": {"bytes": picture, "path": name}, "captions": list(captions)} for name, captions in content.items()
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("captions", pa.list_(pa.string()))])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "pictures.parquet", row_group_size=2)
    return folder
