"""The files of a feature store: what they say is checked before it is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.feature_store.embeddings import EmbeddingFolder
from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import MANIFEST, EncoderNote, FeaturesNote, Manifest, parse_manifest
from captrain.data.feature_store.shard import Entry, IndexRows
from captrain.data.feature_store.store import FeatureStore
from captrain.data.feature_store.writer import Shard, StoreWriter
from captrain.data.readers import detect, reader
from captrain.data.samples import key_of
from captrain.errors import DataError
from captrain.records import Rejects

FEATURES = FeaturesNote(tokens=2, width=3, dtype="float16", vectors="all")


def manifest(**changes: object) -> Manifest:
    values = {
        "complete": False, "encoder": EncoderNote(name="vit", type="vit", weights="ab"), "preparation": {"height": 8},
        "preparation_version": 1, "features": FEATURES, "captioned": False, "max_words": None, "shard_images": 4,
    }  # fmt: skip
    return Manifest(**{**values, **changes})


def write_store(place: str, images: int = 5, captions: tuple[str, ...] = ("a dog",), **changes: object) -> np.ndarray:
    writer = StoreWriter(StoreFolder(place), manifest(**changes))
    numbers = np.arange(images * 6, dtype=np.float16).reshape(images, 2, 3)
    for number, start in enumerate(range(0, images, 4)):
        rows = IndexRows(
            [Entry(f"{row}.jpg", captions, f"a.tar:{row}", "0" * 32) for row in range(start, min(start + 4, images))]
        )
        block = numbers[start : start + 4]
        writer.write(
            Shard(f"a.{number:03d}", "all", "a.tar", "", number, False, rows, [block[:1], block[1:]], Rejects())
        )
    writer.finish([f"a.{number:03d}" for number in range(-(-images // 4))], Rejects())
    return numbers


def test_what_was_written_comes_back_by_row(tmp_path: Path) -> None:
    numbers = write_store(str(tmp_path / "store"))
    store = FeatureStore(str(tmp_path / "store"))
    assert np.array_equal(np.concatenate([store.vectors(0), store.vectors(1)]), numbers)
    samples = reader("features").read(str(tmp_path / "store"), Rejects())["all"]
    assert samples[4].id == "4.jpg" and samples[4].captions == ("a dog",) and samples[4].source == "a.tar:4"
    assert samples.keys().tolist() == [key_of(f"{row}.jpg") for row in range(5)]  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="no pictures"):
        samples[0].read()


def test_a_store_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    numbers = write_store("memory://features/one")
    assert detect("memory://features/one") == "features"
    store = FeatureStore("memory://features/one")
    assert np.array_equal(store.vectors(1), numbers[4:])
    assert store.index(1).entry(0).id == "4.jpg"


def test_stores_that_differ_are_both_named(tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    write_store(one)
    for changes, word in (
        ({"encoder": EncoderNote(name="clip", type="clip", weights="cd")}, "encoder"),
        ({"preparation": {"height": 9}}, "preparation"),
        ({"features": FEATURES.model_copy(update={"vectors": "pooled"})}, "features"),
    ):
        place = f"{other}-{word}"
        write_store(place, **changes)
        with pytest.raises(DataError, match=word) as raised:
            reader("features").read(f"{one},{place}", Rejects())
        assert one in str(raised.value) and place in str(raised.value) and "\n" not in str(raised.value)


def test_shards_that_do_not_fit_the_manifest_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "store"
    write_store(str(place))
    shard = place / "shards/a.001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="the manifest says"):
        FeatureStore(str(place))
    shard.write_bytes(whole.replace(b'"F16"', b'"I16"'))
    with pytest.raises(DataError, match="its manifest says"):
        FeatureStore(str(place)).vectors(1)
    shard.unlink()
    with pytest.raises(DataError, match="not found"):
        FeatureStore(str(place))


def test_an_unfinished_store_is_not_read(tmp_path: Path) -> None:
    StoreWriter(StoreFolder(str(tmp_path / "store")), manifest())
    with pytest.raises(DataError, match="not finished"):
        FeatureStore(str(tmp_path / "store"))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_what_is_no_manifest_is_one_line(data: bytes) -> None:
    with pytest.raises(DataError) as raised:
        parse_manifest(data, "manifest.json")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", ""])
def test_names_in_a_manifest_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    write_store(str(tmp_path / "store"))
    path = tmp_path / "store" / MANIFEST
    content = json.loads(path.read_text())
    content["shards"][0]["name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a manifest that is read"):
        FeatureStore(str(tmp_path / "store"))


def test_an_embedding_folder_is_a_data_set(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("img_emb", "metadata"):
        os.makedirs(tmp_path / "emb" / name)
    for number in (0, 10, 2):
        np.save(tmp_path / f"emb/img_emb/img_emb_{number}.npy", np.full((2, 4), number, np.float16))
        table = pa.table({"image_path": [f"{number}/a", f"{number}/b"], "caption": ["a dog", None]})
        pq.write_table(table, tmp_path / f"emb/metadata/metadata_{number}.parquet")
    rejects = Rejects()
    samples = reader(detect(str(tmp_path / "emb"))).read(str(tmp_path / "emb"), rejects)["all"]
    assert [sample.id for sample in samples] == ["0/a", "2/a", "10/a"]
    assert len(rejects) == 3
    assert EmbeddingFolder(str(tmp_path / "emb")).vectors(2).tolist() == [[[10.0] * 4]] * 2
