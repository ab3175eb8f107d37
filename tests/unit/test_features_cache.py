"""Cached features are those that would be computed now, whatever happened in between."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MobileNetV1Config, MobileNetV1Model

from captrain.data.images import ImageSpec, prepare
from captrain.data.picture_files import content_key
from captrain.features import cache
from captrain.features.cache import CacheOptions, cache_features
from captrain.features.cache_arrays import DiskStore, MemoryStore
from captrain.features.encoder import PREPARATION_VERSION, features_key, pixels_key
from captrain.features.stream import stream_pictures
from captrain.features.training_images import CachedImages, LiveImages
from captrain.models.build import Mapper, NewDecoder, build_encoder_decoder, build_prefix
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.models.contract import CaptionerModel
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.parts import plain_name
from captrain.models.what_learns import freeze
from captrain.records import Rejects, Sample
from captrain.testing import clear_pictures, teach


def _live(captioner: CaptionerModel, samples: Sequence[Sample]) -> torch.Tensor:
    pixels = np.stack([prepare(sample.read(), captioner.image_spec) for sample in samples])
    with torch.no_grad():
        return captioner.encode(torch.from_numpy(pixels))


def _keep(
    captioner: CaptionerModel, samples: Sequence[Sample], folder: Path, where: str = "disk", **options: int
) -> CachedImages:
    images = cache_features(captioner, {"train": samples}, CacheOptions(where, folder / "kept", **options), Rejects())[
        "train"
    ]
    assert isinstance(images, CachedImages)
    return images


@pytest.fixture
def encoded(captioner: CaptionerModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the encoder saw."""
    calls: list[int] = []
    encode = captioner.encode

    def counting(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(captioner, "encode", counting)
    return calls


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_kept_features_equal_live_ones_in_any_order(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, where: str
) -> None:
    images = _keep(captioner, samples, tmp_path, where)
    order = [19, 0, 7, 7, 3]
    kept = images.rows(order)["features"]
    torch.testing.assert_close(kept, _live(captioner, samples)[order], rtol=1e-4, atol=1e-5)
    assert (kept[0] - kept[1]).abs().mean() > 0.01
    assert isinstance(images.store, MemoryStore if where == "memory" else DiskStore)


def test_second_pass_computes_nothing(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, encoded: list[int]
) -> None:
    first = _keep(captioner, samples, tmp_path)
    assert sum(encoded) >= 20
    encoded.clear()
    again = _keep(captioner, samples, tmp_path)
    assert sum(encoded) <= 1  # the example that says how large features are
    assert torch.equal(again.rows(range(20))["features"], first.rows(range(20))["features"])


def test_crash_leaves_what_was_finished(
    captioner: CaptionerModel,
    samples: list[Sample],
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shard that was being written when the power went: the rest is found, the half one ignored and made again."""
    monkeypatch.setattr(cache, "images_a_shard", lambda features: 16)
    _keep(captioner, samples, tmp_path)
    records = sorted((tmp_path / "kept").rglob("*.json"))[1:]
    assert len(records) == 2
    half = records[1].with_suffix(".safetensors").read_bytes()
    old = records[1].with_suffix(".safetensors.4711.tmp")
    old.write_bytes(half[: len(half) // 2])
    os.utime(old, (0, 0))
    records[1].unlink()
    records[1].with_suffix(".arrow").unlink()
    encoded.clear()
    resumed = _keep(captioner, samples, tmp_path)
    assert sum(encoded) <= 5
    assert not old.exists()
    torch.testing.assert_close(resumed.rows(range(20))["features"], _live(captioner, samples), rtol=1e-4, atol=1e-5)


def test_pictures_that_occur_twice_are_computed_once(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, encoded: list[int]
) -> None:
    twice = [*samples[:3], Sample("copy", samples[1].read()), *samples[:3]]
    splits = {"train": twice, "validation": samples[:2]}
    images = cache_features(captioner, splits, CacheOptions("memory", tmp_path), Rejects())
    assert sum(encoded) == 1 + 3
    rows = images["train"].rows(range(7))["features"]
    assert torch.equal(rows[1], rows[3])
    assert torch.equal(images["validation"].rows([1])["features"][0], rows[1])


def test_key_covers_all_that_decides_features(captioner: CaptionerModel) -> None:
    key = features_key(captioner)
    assert features_key(captioner) == key
    captioner.precision = torch.bfloat16
    keys = {key, features_key(captioner)}
    captioner.precision = torch.float32
    spec = captioner.image_spec
    ways = ({"resize": "crop"}, {"resample": "bilinear"}, {"mean": (0.4, 0.5, 0.5)}, {"height": 40}, {"decode": "fast"})
    for changes in ways:
        captioner.image_spec = replace(spec, **changes)
        keys.add(features_key(captioner))
    captioner.image_spec = spec
    with torch.no_grad():
        next(captioner.core().vision_model.parameters()).view(-1)[0] += 1e-3
    keys.add(features_key(captioner))
    assert len(keys) == 8


@pytest.mark.parametrize("join", ["cross-attention", "prefix"])
def test_all_vectors_and_the_pooled_one_are_kept_apart(join: str, tmp_path: Path) -> None:
    """The same encoder with the same weights; keys of all vectors are those that earlier versions made."""
    torch.manual_seed(0)
    MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25, image_size=64)).save_pretrained(tmp_path)
    write_preparation(tmp_path, ImageSpec(64, 64, (0.5,) * 3, (0.5,) * 3), "ViTImageProcessor")
    parts = (str(tmp_path), None, NewDecoder(1, 16, 2, 0.0, 100), ["a dog", "a dog"])
    keys, features = {}, {}
    for vectors in ("all", "pooled"):
        made = (
            build_prefix(*parts, Mapper("transformer", 2, 2, 1, 2), vectors)
            if join == "prefix"
            else build_encoder_decoder(*parts, vectors)
        )
        made.requires_grad_(False)
        keys[vectors] = features_key(made)
        features[vectors] = made.eval().encode(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).shape
        assert (keys[vectors] == _key_of_earlier_versions(made)) == (vectors == "all")
    assert features["all"] != features["pooled"]
    assert keys["all"] != keys["pooled"]


def _key_of_earlier_versions(captioner: CaptionerModel) -> str:
    stated = [PREPARATION_VERSION, captioner.image_spec.to_dict(), str(captioner.precision)]
    digest = hashlib.blake2b(json.dumps(stated, sort_keys=True).encode(), digest_size=16)
    for name, module in captioner.part_modules("vision"):
        for kind, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            digest.update(f"{plain_name(name)}.{kind} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def test_key_ignores_what_does_not_decide_features(captioner: CaptionerModel) -> None:
    """The decoder may learn, and adapters may ride on it: the encoder's features stay valid."""
    key = features_key(captioner)
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0))
    teach(captioner, steps=1)
    assert not captioner.vision_learns()
    assert features_key(captioner) == key


def test_running_statistics_are_part_of_the_key(captioner: CaptionerModel) -> None:
    captioner.core().vision_model.register_buffer("statistics", torch.zeros(3))
    key = features_key(captioner)
    captioner.core().vision_model.statistics[1] = 1.0
    assert features_key(captioner) != key


def test_key_of_pixels_covers_preparation_but_not_normalising(captioner: CaptionerModel) -> None:
    spec = captioner.image_spec
    assert pixels_key(spec) == pixels_key(replace(spec, mean=(0.1, 0.2, 0.3)))
    ways = ({"height": 40}, {"resample": "bilinear"}, {"resize": "crop"}, {"decode": "fast"})
    assert len({pixels_key(one) for one in [spec, *(replace(spec, **way) for way in ways)]}) == 5


def test_changed_picture_is_computed_anew(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, encoded: list[int]
) -> None:
    before = _keep(captioner, samples[:2], tmp_path).rows([0])["features"]
    Image.fromarray(clear_pictures(1, seed=9)[0]).save(tmp_path / "0.png")
    encoded.clear()
    after = _keep(captioner, samples[:2], tmp_path).rows([0])["features"]
    assert encoded == [1, 1]
    assert not torch.allclose(before, after)


def test_bad_pictures_are_rejected_and_the_rest_stays_in_place(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    (tmp_path / "6.png").unlink()
    rejects = Rejects()
    images = cache_features(captioner, {"train": samples}, CacheOptions("memory", tmp_path), rejects)["train"]
    assert [line["id"] for line in rejects.lines] == ["2.png", "5.png", "6.png"]
    assert "empty" in rejects.lines[0]["reason"] and "can't be read" in rejects.lines[2]["reason"]
    good = [sample for sample in samples if sample.id not in ("2.png", "5.png", "6.png")]
    assert [sample.id for sample in images.samples] == [sample.id for sample in good]
    torch.testing.assert_close(images.rows(range(17))["features"], _live(captioner, good), rtol=1e-4, atol=1e-5)


def test_no_good_picture_leaves_an_empty_split(captioner: CaptionerModel, tmp_path: Path) -> None:
    rejects = Rejects()
    images = cache_features(captioner, {"train": [Sample("a", b"nope")]}, CacheOptions("memory", tmp_path), rejects)[
        "train"
    ]
    assert (len(images), len(rejects)) == (0, 1)


def test_pixels_are_kept_while_the_encoder_learns(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path
) -> None:
    freeze(captioner, ("language",))
    images = _keep(captioner, samples, tmp_path, "memory")
    assert images.kind == "pixels"
    pixels = images.rows([4, 2])["pixels"]
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), prepare(samples[4].read(), captioner.image_spec))


@pytest.mark.parametrize("learns", [False, True])
def test_without_memory_features_go_to_disk_and_pixels_are_decoded_anew(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path, learns: bool
) -> None:
    if learns:
        freeze(captioner, ("language",))
    images = cache_features(
        captioner, {"train": samples}, CacheOptions("auto", tmp_path / "kept", budget=0), Rejects()
    )["train"]
    if learns:
        assert isinstance(images, LiveImages)
        assert np.array_equal(images.rows([3])["pixels"][0].numpy(), prepare(samples[3].read(), captioner.image_spec))
    else:
        assert isinstance(images, CachedImages) and isinstance(images.store, DiskStore)


def test_nothing_is_kept_when_asked(captioner: CaptionerModel, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"broken")
    rejects = Rejects()
    images = cache_features(captioner, {"train": samples}, CacheOptions("off", tmp_path / "kept"), rejects)["train"]
    assert isinstance(images, LiveImages)
    assert (len(images), len(rejects)) == (19, 1)
    assert images.rows([0])["pixels"].shape == (1, 32, 32, 3)
    assert not (tmp_path / "kept").exists()


def test_features_are_kept_in_the_arithmetic_they_were_made_in(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path
) -> None:
    captioner.precision = torch.bfloat16
    assert _keep(captioner, samples[:2], tmp_path).rows([0])["features"].dtype == torch.bfloat16


@pytest.mark.parametrize("workers", [1, 7])
def test_stream_keeps_order_whoever_is_first(captioner: CaptionerModel, samples: list[Sample], workers: int) -> None:
    many = [samples[number % 20] for number in range(150)]
    pictures = list(stream_pictures(many, captioner.image_spec, Rejects(), workers=workers))
    assert [picture.index for picture in pictures] == list(range(150))
    assert [picture.key for picture in pictures] == [content_key(sample.read()) for sample in many]


def test_known_pictures_are_not_decoded(captioner: CaptionerModel, samples: list[Sample]) -> None:
    known = {content_key(samples[1].read())}
    pictures = list(stream_pictures(samples[:3], captioner.image_spec, Rejects(), known))
    assert [picture.pixels is None for picture in pictures] == [False, True, False]
