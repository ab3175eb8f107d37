"""A feature store, as `captrain encode --uncaptioned` leaves it; it holds no pictures, so none is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import EncoderNote, FeaturesNote, Manifest
from captrain.data.feature_store.shard import Entry, IndexRows
from captrain.data.feature_store.writer import Shard, StoreWriter
from captrain.records import Rejects

PICTURES = False


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """Write the store to `folder`; returns it."""
    entries = [Entry(name, captions, f"00000.tar:{name}", "00" * 16) for name, captions in content.items()]
    manifest = Manifest(
        complete=False,
        encoder=EncoderNote(name="encoder", type="vit", weights="00"),
        preparation={},
        preparation_version=1,
        features=FeaturesNote(tokens=2, width=3, dtype="float16", vectors="all"),
        captioned=False,
        max_words=None,
        shard_images=1000,
    )
    writer = StoreWriter(StoreFolder(str(folder)), manifest)
    numbers = np.zeros((len(entries), 2, 3), np.float16)
    writer.write(Shard("00000.000", "all", "00000.tar", "", 0, True, IndexRows(entries), [numbers], Rejects()))
    writer.finish(["00000.000"], Rejects())
    return folder
