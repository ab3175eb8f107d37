"""What a training keeps on disk is a feature store: several processes write it, it is found again, and read as any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from captrain.data.feature_store.layout import EncoderNote, FeaturesNote, Manifest, StoreFolder
from captrain.data.feature_store.shard import IndexEntry
from captrain.data.feature_store.store import FeatureStore
from captrain.data.images import prepare
from captrain.data.readers import reader
from captrain.errors import DataError
from captrain.features import cache_arrays as kept_store
from captrain.features.cache import CacheOptions, cache_features
from captrain.features.cache_arrays import ArrayStore, DiskStore, MemoryStore
from captrain.features.manage import describe_store, search_store, verify_store
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import CachedImages
from captrain.models.contract import CaptionerModel
from captrain.models.what_learns import freeze
from captrain.records import Rejects, Sample


def _keep(
    captioner: CaptionerModel, samples: Sequence[Sample], folder: Path, where: str = "disk", **options: int
) -> CachedImages:
    images = cache_features(captioner, {"train": samples}, CacheOptions(where, folder / "kept", **options), Rejects())[
        "train"
    ]
    assert isinstance(images, CachedImages)
    return images


A, B, C, D, E = (f"{number:032x}" for number in range(5))


def disk_store(folder: Path, dtype: str = "float32", images: int = 99) -> DiskStore:
    """A store of one vector of two numbers a picture."""
    features = FeaturesNote(tokens=1, width=2, dtype=dtype, vectors="all")  # type: ignore[arg-type]
    manifest = Manifest(
        complete=True, encoder=EncoderNote(name="vit", weights="ab"), preparation={}, preparation_version=1,
        features=features, captioned=False, max_words=None, shard_images=images,
    )  # fmt: skip
    return DiskStore(folder, manifest, (1, 2))


def add(store: ArrayStore, values: dict[str, float], dtype: torch.dtype = torch.float32) -> None:
    """Keep an array of a value under each key."""
    entries = [IndexEntry(f"picture {key}", ("a dog",), "a.jsonl:1", key) for key in values]
    store.add(entries, torch.tensor(list(values.values()), dtype=dtype)[:, None, None].expand(-1, 1, 2))


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "uint8"])
def test_store_gives_rows_of_several_batches(kind: str, dtype: str, tmp_path: Path) -> None:
    store: ArrayStore = MemoryStore(dtype) if kind == "memory" else disk_store(tmp_path, dtype, images=3)
    add(store, {A: 1, B: 2, C: 3}, getattr(torch, dtype))
    add(store, {D: 4}, getattr(torch, dtype))
    rows = store.rows([D, A, A])
    assert rows.dtype == getattr(torch, dtype)
    assert rows.tolist() == [[[4, 4]], [[1, 1]], [[1, 1]]]
    assert B in store and E not in store and len(store) == 4


def test_two_stores_can_fill_one_folder(tmp_path: Path) -> None:
    """Two runs on the same data at the same time: neither loses or mixes up what it keeps."""
    one, two = disk_store(tmp_path), disk_store(tmp_path)
    add(one, {A: 1, B: 2})
    add(two, {C: 3})
    one.flush()
    add(one, {B: 2})
    add(two, {A: 1})
    two.flush()
    one.flush()
    assert one.rows([A, B])[:, 0, 0].tolist() == [1.0, 2.0]
    assert two.rows([C, A])[:, 0, 0].tolist() == [3.0, 1.0]
    later = disk_store(tmp_path)
    assert later.rows([A, B, C])[:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert sum(part.images for part in FeatureStore(str(tmp_path)).parts) == 5
    assert verify_store(str(tmp_path)) == []


def test_of_several_writers_the_last_to_look_sees_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes a shard while the manifest is written: it is not lost."""
    one, two = disk_store(tmp_path), disk_store(tmp_path)
    add(one, {A: 1})
    add(two, {B: 2})
    write, waiting = StoreFolder.write, [two]

    def interrupted(folder: StoreFolder, name: str, chunks: Iterable[bytes]) -> None:
        chunks = list(chunks)
        if name == "manifest.json" and waiting:
            waiting.pop().flush()
        write(folder, name, chunks)

    monkeypatch.setattr(StoreFolder, "write", interrupted)
    one.flush()
    assert sum(part.images for part in FeatureStore(str(tmp_path)).parts) == 2


def test_a_kill_costs_a_minute_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(kept_store.time, "monotonic", lambda: clock[0])
    store = disk_store(tmp_path)
    for seconds, key, kept in ((0, A, 0), (50, B, 0), (61, C, 3), (62, D, 3)):
        clock[0] = 1000.0 + seconds
        add(store, {key: 1})
        assert len(disk_store(tmp_path)) == kept


@pytest.mark.parametrize("suffix", [".safetensors", ".arrow", ".json"])
def test_a_broken_shard_is_computed_again_and_not_told_of(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = disk_store(tmp_path, images=1)
    add(store, {A: 1})
    add(store, {B: 2})
    store.flush()
    broken = sorted((tmp_path / "shards").glob(f"*{suffix}"))[0]
    broken.write_bytes(broken.read_bytes()[:-9])
    again = disk_store(tmp_path)
    assert A not in again and B in again
    assert caplog.text.count("computed again") == 1
    add(again, {A: 1})
    again.flush()
    assert verify_store(str(tmp_path)) == []
    assert disk_store(tmp_path).rows([B, A])[:, 0, 0].tolist() == [2.0, 1.0]


def test_what_is_kept_is_a_store_as_any_other(captioner: CaptionerModel, samples: list[Sample], tmp_path: Path) -> None:
    """Described, checked, searched, and trained from: its samples are the pictures with their captions."""
    images = _keep(captioner, samples, tmp_path)
    (folder,) = (tmp_path / "kept").iterdir()
    found = describe_store(str(folder))
    assert (found["images"], found["captions"], found["shards"]) == (20, 20, 1)
    assert found["encoder"].startswith(str(captioner.core().config.name_or_path))
    assert verify_store(str(folder)) == []
    near = search_store([str(folder)], tmp_path / "7.png", count=1)
    assert near[0].id == "7.png" and near[0].cosine == pytest.approx(1, abs=1e-5)
    splits = reader("features").read(str(folder), Rejects())
    stored = cache_features(captioner, {"train": splits["all"]}, CacheOptions("auto", tmp_path), Rejects())["train"]
    assert isinstance(stored, StoredImages)
    assert torch.equal(stored.rows(range(20))["features"], images.rows(range(20))["features"])


def test_pixels_are_kept_in_the_same_form_and_not_taken_for_features(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path
) -> None:
    freeze(captioner, ("language",))
    pixels = _keep(captioner, samples, tmp_path).rows([4, 2])["pixels"]
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), prepare(samples[4].read(), captioner.image_spec))
    (folder,) = (tmp_path / "kept").iterdir()
    assert describe_store(str(folder))["features"] == "1024 x 3 uint8 (pixels)"
    assert verify_store(str(folder)) == []
    splits = reader("features").read(str(folder), Rejects())
    with pytest.raises(DataError, match="holds pixels"):
        cache_features(captioner, {"train": splits["all"]}, CacheOptions("auto", tmp_path), Rejects())
    with pytest.raises(DataError, match="holds pixels"):
        search_store([str(folder)], tmp_path / "7.png", encoder="none")
