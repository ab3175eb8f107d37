"""Vectors in 8 bits: how far they are from the numbers that they stand for, and that caches and stores hold them alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open

from captrain.cli import main
from captrain.data.feature_store.int8 import LARGEST_SCALE, SMALLEST_SCALE, Int8Vectors, quantise
from captrain.data.feature_store.layout import FeaturesNote
from captrain.data.feature_store.shard import IndexEntry, map_shard, shard_chunks
from captrain.data.feature_store.store import FeatureStore
from captrain.errors import DataError, ModelError
from captrain.features.cache import CacheOptions, FeatureCache, cache_features
from captrain.features.cache_arrays import MemoryStore
from captrain.features.encoder import features_key
from captrain.features.manage import describe_store, mean_vectors, merge_stores, verify_store
from captrain.models.contract import CaptionerModel
from captrain.models.what_learns import freeze
from captrain.records import Rejects, Sample
from captrain.testing import tiny_photos, tiny_vision_encoder

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=FINITE)
"""Of every size: zeros, denormal numbers, the largest ones."""
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine hypothesis takes seconds to draw a few arrays."""


def alike(one: Int8Vectors, other: Int8Vectors) -> bool:
    return np.array_equal(one.values, other.values) and np.array_equal(one.scales, other.scales)


@PATIENT
@given(NUMBERS)
def test_no_number_is_further_off_than_half_its_scale(numbers: np.ndarray) -> None:
    found = quantise(numbers)
    error = np.abs(np.asarray(found, np.float64) - numbers.astype(np.float64))
    assert np.isfinite(np.asarray(found)).all()
    assert (error <= found.scales[..., None].astype(np.float64) / 2).all()
    assert (found.values > -128).all()
    wanted = np.abs(numbers).max(-1).astype(np.float64) / 127
    assert np.allclose(found.scales, np.clip(wanted, SMALLEST_SCALE, LARGEST_SCALE), rtol=2**-17, atol=0)


@PATIENT
@given(NUMBERS)
def test_quantising_again_changes_nothing(numbers: np.ndarray) -> None:
    found = quantise(numbers)
    assert alike(quantise(np.asarray(found)), found)


@PATIENT
@given(arrays(np.int8, (3, 2, 4), elements=st.integers(-127, 127)), st.floats(2.0**-90, 2.0**90, width=32))
def test_what_was_never_quantised_here_stays_as_it_is(values: np.ndarray, scale: float) -> None:
    """Values of any scale of 17 bits, if each vector has one of 127."""
    values[..., 0] = 127
    scales = quantise(np.full((3, 2, 1), scale * 127, np.float32)).scales
    assert alike(quantise(np.asarray(Int8Vectors(values, scales))), Int8Vectors(values, scales))


@PATIENT
@given(NUMBERS)
def test_products_are_exact_in_fp32(numbers: np.ndarray) -> None:
    """So they are the same on every device, whatever is fused."""
    found = quantise(numbers)
    exact = found.values.astype(np.float64) * found.scales[..., None].astype(np.float64)
    assert np.array_equal(np.asarray(found).astype(np.float64), exact)


def test_halves_go_to_the_even_step() -> None:
    found = quantise(np.array([[[127, 0.5, 1.5, 2.5, -0.5, -1.5, np.nextafter(np.float32(0.5), 1)]]], np.float32))
    assert found.values.tolist() == [[[127, 0, 2, 2, 0, -2, 1]]]


@pytest.mark.parametrize("number", [0.0, -0.0, 1e-45, 1.2e-38, 3.4028235e38, -3.4028235e38])
def test_the_ends_of_fp32(number: float) -> None:
    made = np.asarray(quantise(np.full((1, 1, 3), number, np.float32)))
    assert np.isfinite(made).all()
    assert abs(float(made[0, 0, 0]) - number) <= max(abs(number) / 254, SMALLEST_SCALE / 2) * (1 + 1e-4)


def note(dtype: str = "int8", tokens: int = 3, width: int = 5) -> FeaturesNote:
    return FeaturesNote(tokens=tokens, width=width, dtype=dtype, vectors="all")  # type: ignore[arg-type]


def test_a_shard_is_a_safetensors_file_of_scales_and_features(tmp_path: Path) -> None:
    """27 bytes an image: scales lie in front, where they are aligned for every reader."""
    numbers = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    blocks = [quantise(numbers[:2]), quantise(numbers[2:])]
    path = tmp_path / "shard.safetensors"
    path.write_bytes(b"".join(shard_chunks(7, note(), blocks)))
    with safe_open(path, "np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    assert (read["features"].dtype, read["scales"].dtype) == (np.int8, np.float32)
    mapped = map_shard(path, "here", 7, note())
    assert isinstance(mapped, Int8Vectors) and mapped.shape == (7, 3, 5)
    assert alike(mapped, quantise(numbers)) and alike(mapped, Int8Vectors(read["features"], read["scales"]))
    assert note().row_bytes == 3 * (5 + 4)
    for dtype in ("uint8", "float16"):
        with pytest.raises(DataError, match="its manifest says"):
            map_shard(path, "here", 7, note(dtype))
    with pytest.raises(DataError, match="its manifest says"):
        map_shard(path, "here", 6, note())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_multiplied_out_in_the_precision(precision: torch.dtype) -> None:
    numbers = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    store = MemoryStore("int8", precision)
    keys = [f"{number:032x}" for number in range(4)]
    store.add([IndexEntry("", (), "", key) for key in keys], numbers)
    rows = store.rows([keys[3], keys[0], keys[3]])
    assert rows.dtype == precision
    assert torch.equal(rows, torch.from_numpy(np.asarray(quantise(numbers.numpy())))[[3, 0, 3]].to(precision))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_memory_disk_and_a_store_give_the_same_numbers(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, precision: torch.dtype
) -> None:
    captioner.precision = precision
    found = []
    for where in ("memory", "disk", "disk"):  # the third finds what the second wrote
        options = CacheOptions(where, tmp_path / "kept", dtype="int8")
        images = cache_features(captioner, {"train": samples}, options, Rejects())["train"]
        found.append(images.rows([5, 0, 19])["features"])
    [folder] = (tmp_path / "kept").iterdir()
    store = FeatureStore(str(folder))
    by_name = {store.index(0).entry(row).id: row for row in range(len(samples))}
    rows = np.asarray(store.vectors(0))[[by_name[samples[at].id] for at in (5, 0, 19)]]
    found.append(torch.from_numpy(rows).to(precision))
    assert found[0].dtype == precision and len(torch.unique(found[0])) > 100
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert describe_store(str(folder))["bytes"] == 20 * store.features.row_bytes
    assert "int8" in describe_store(str(folder))["features"] and not verify_store(str(folder))


def test_each_dtype_has_a_cache_of_its_own(captioner: CaptionerModel) -> None:
    """What is kept as it was computed has the key of earlier versions."""
    assert features_key(captioner, "float32") == features_key(captioner)
    assert len({features_key(captioner, dtype) for dtype in ("float32", "float16", "bfloat16", "int8")}) == 4


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_features_that_are_not_finite_are_refused(
    dtype: str, captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner, "encode", lambda pixels: torch.full((len(pixels), 3, 5), float("nan")))
    options = CacheOptions("memory", tmp_path, dtype=dtype)
    with pytest.raises(ModelError, match=f"that {dtype} can't hold .* use --cache-dtype bfloat16 or float32"):
        cache_features(captioner, {"train": samples}, options, Rejects())


def test_a_learning_encoder_has_no_features_to_keep(
    captioner: CaptionerModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    freeze(captioner, ("language",))
    cache = FeatureCache(captioner, CacheOptions("memory", tmp_path, dtype="int8"), 1)
    assert cache.dtype == "uint8"
    assert "cache_dtype int8: the encoder learns, so no features are cached" in caplog.text


def test_encoded_stores_are_read_merged_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, encoder = tiny_photos(tmp_path / "photos", count=5), tiny_vision_encoder(tmp_path / "vit")
    words = ["--encoder", str(encoder), "--device", "cpu", "--precision", "fp32"]
    stores = {dtype: tmp_path / dtype for dtype in ("int8", "float32")}
    for dtype, store in stores.items():
        assert main(["encode", str(photos), str(store), "--dtype", dtype, *words]) == 0
    capsys.readouterr()
    assert main(["features", "info", str(stores["int8"]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["features"], found["bytes"]) == ("17 x 24 int8 (all)", 5 * 17 * (24 + 4))
    small, exact = (FeatureStore(str(store)) for store in stores.values())
    assert alike(quantise(exact.vectors(0)), small.vectors(0))  # type: ignore[arg-type]
    assert np.abs(mean_vectors(small, 0) - mean_vectors(exact, 0)).max() < 0.01
    assert main(["features", "verify", str(stores["int8"])]) == 0
    assert main(["features", "convert", str(stores["int8"]), str(tmp_path / "embeddings")]) == 0
    with pytest.raises(DataError, match="stores that are used together must be alike"):
        merge_stores([str(store) for store in stores.values()], str(tmp_path / "both"))
    assert merge_stores([str(stores["int8"])], str(tmp_path / "one")).features.dtype == "int8"
