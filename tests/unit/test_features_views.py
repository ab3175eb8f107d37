"""Views of a picture: seeded, kept, taken in turns, and never mirrored where captions speak of sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captrain.data.augment import Augmentation
from captrain.data.images import MAX_PIXELS, prepare
from captrain.data.picture_files import content_key
from captrain.features.cache import CacheOptions, cache_features
from captrain.features.training_images import PLAIN, CachedImages, LiveImages, Views
from captrain.models.contract import CaptionerModel
from captrain.records import Rejects, Sample

FLIP = Augmentation(flip=1.0)
CROP = Augmentation(crop_scale=(0.3, 0.6))


@pytest.fixture
def samples(samples: list[Sample]) -> list[Sample]:
    """A few of them."""
    return samples[:6]


def pixels(captioner: CaptionerModel, sample: Sample, views: Views, view: int) -> np.ndarray:
    data = sample.read()
    return views.pixels(data, content_key(data), view, captioner.image_spec, MAX_PIXELS)


def test_view_0_is_the_picture_and_others_depend_on_seed_and_number(
    captioner: CaptionerModel, samples: list[Sample]
) -> None:
    views = Views(3, CROP, seed=1)
    plain = prepare(samples[0].read(), captioner.image_spec)
    assert np.array_equal(pixels(captioner, samples[0], views, 0), plain)
    first, second = (pixels(captioner, samples[0], views, view) for view in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, pixels(captioner, samples[0], Views(5, CROP, seed=1), 1))
    assert not np.array_equal(first, pixels(captioner, samples[0], Views(3, CROP, seed=2), 1))


def test_epochs_take_turns_and_pictures_begin_differently() -> None:
    views = Views(4, CROP)
    shown = [[views.at(content, epoch) for epoch in range(8)] for content in ("00000000", "00000001", "0000000e")]
    assert shown[0] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert shown[1] == [1, 2, 3, 0, 1, 2, 3, 0]
    assert all(sorted(row[:4]) == [0, 1, 2, 3] for row in shown)


def test_with_one_view_every_epoch_makes_its_own() -> None:
    assert [Views(1, CROP).at("0a", epoch) for epoch in range(3)] == [1, 2, 3]
    assert [PLAIN.at("0a", epoch) for epoch in range(3)] == [0, 0, 0]


def test_kept_views_are_the_features_of_those_pixels(
    captioner: CaptionerModel, samples: list[Sample], tmp_path: Path
) -> None:
    views = Views(3, CROP, seed=5)
    images = cache_features(
        captioner, {"train": samples}, CacheOptions("disk", tmp_path / "kept"), Rejects(), {"train": views}
    )
    kept = images["train"]
    assert isinstance(kept, CachedImages)
    for epoch in range(3):
        wanted = [views.at(content_key(sample.read()), epoch) for sample in samples]
        made = np.stack([pixels(captioner, sample, views, view) for sample, view in zip(samples, wanted, strict=True)])
        with torch.no_grad():
            expected = captioner.encode(torch.from_numpy(made))
        torch.testing.assert_close(kept.rows(range(6), epoch)["features"], expected, rtol=1e-4, atol=1e-5)
    plain = np.stack([prepare(sample.read(), captioner.image_spec) for sample in samples])
    with torch.no_grad():
        expected = captioner.encode(torch.from_numpy(plain))
    torch.testing.assert_close(kept.rows(range(6))["features"], expected, rtol=1e-4, atol=1e-5)


def test_other_splits_have_no_views(captioner: CaptionerModel, samples: list[Sample], tmp_path: Path) -> None:
    splits = {"train": samples[:3], "validation": samples[3:]}
    images = cache_features(captioner, splits, CacheOptions("memory", tmp_path), Rejects(), {"train": Views(2, CROP)})
    assert isinstance(images["train"], CachedImages)
    assert len(images["train"].store) == 3 * 2 + 3


def test_views_made_anew_are_not_kept(captioner: CaptionerModel, samples: list[Sample], tmp_path: Path) -> None:
    views = Views(1, CROP, seed=5)
    images = cache_features(captioner, {"train": samples}, CacheOptions("auto", tmp_path), Rejects(), {"train": views})
    live = images["train"]
    assert isinstance(live, LiveImages)
    for epoch in (0, 1):
        made = np.stack([pixels(captioner, sample, views, epoch + 1) for sample in samples])
        assert np.array_equal(live.rows(range(6), epoch)["pixels"].numpy(), made)
    plain = np.stack([prepare(sample.read(), captioner.image_spec) for sample in samples])
    assert np.array_equal(live.rows(range(6))["pixels"].numpy(), plain)


def test_what_speaks_of_sides_is_not_mirrored(captioner: CaptionerModel, samples: list[Sample], tmp_path: Path) -> None:
    sided = Sample("sided", samples[0].image, ("a dog on the left",), "sided")
    plain, mirrored = prepare(samples[0].read(), captioner.image_spec), Views(1, FLIP)
    live = cache_features(
        captioner, {"train": [samples[0], sided]}, CacheOptions("off", tmp_path), Rejects(), {"train": mirrored}
    )["train"]
    found = live.rows([0, 1], 0)["pixels"].numpy()
    assert np.array_equal(found[0], plain[:, ::-1])
    assert np.array_equal(found[1], plain)
