"""A tar shard: each picture with a .json member that lists its captions."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """Write the shard below `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name, captions in content.items():
            _add(tar, name, picture)
            if captions:
                text = json.dumps({"captions": list(captions)}, ensure_ascii=False)
                _add(tar, f"{name.rpartition('.')[0]}.json", text.encode())
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
