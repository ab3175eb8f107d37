"""Image preparation as checkpoints state it, and pixels as transformers would make them of it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from captrain.data.images import ImageSpec, prepare
from captrain.errors import ModelError
from captrain.models.checkpoint.image_preparation import IMAGENET, adjust, read_preparation, write_preparation
from captrain.models.layers.vision import scale

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Salesforce/blip-image-captioning-base": {
        "do_normalize": True, "do_resize": True, "image_processor_type": "BlipImageProcessor", "resample": 3, **CLIP,
        "size": {"height": 384, "width": 384},
    },
    "openai/clip-vit-base-patch32": {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type":
        "CLIPFeatureExtractor", "image_processor_type": "CLIPImageProcessor", **CLIP, "resample": 3, "size": 224,
    },
    "google/vit-base-patch16-224-in21k": {
        "do_normalize": True, "do_resize": True, "image_processor_type": "ViTImageProcessor", **HALF, "resample": 2,
        "size": 224,
    },
    "google/mobilenet_v1_0.75_192": {
        "crop_size": {"height": 192, "width": 192}, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_processor_type": "MobileNetV1ImageProcessor", **HALF, "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 220},
    },
    "facebook/dinov2-small": {
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
        "do_resize": True, "image_processor_type": "BitImageProcessor", "image_mean": list(IMAGENET[0]),
        "image_std": list(IMAGENET[1]), "resample": 3, "size": {"shortest_edge": 256},
    },
    "facebook/convnext-tiny-224": {
        "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "image_processor_type": "ConvNextImageProcessor",
        "image_mean": list(IMAGENET[0]), "image_std": list(IMAGENET[1]), "resample": 3, "size": 224,
    },
    "a MobileNet of old": {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, **HALF, "resample": 2,
        "image_processor_type": "MobileNetV1ImageProcessor", "size": {"shortest_edge": 256},
    },
}  # fmt: skip
EXPECTED = {
    "Salesforce/blip-image-captioning-base": (384, "squash", None, "bicubic"),
    "openai/clip-vit-base-patch32": (224, "crop", 224, "bicubic"),
    "google/vit-base-patch16-224-in21k": (224, "squash", None, "bilinear"),
    "google/mobilenet_v1_0.75_192": (192, "crop", 220, "bilinear"),
    "facebook/dinov2-small": (224, "crop", 256, "bicubic"),
    "facebook/convnext-tiny-224": (224, "crop", 256, "bicubic"),
    "a MobileNet of old": (224, "crop", 256, "bilinear"),
}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """310 x 230: smooth shading with a sharp edge and a fine pattern, where resampling shows."""
    down, across = np.mgrid[0:230, 0:310]
    red = across * 255 / 310
    green = np.where(across + down < 250, 40.0, 210.0)
    blue = 127 + 100 * np.sin(down / 5) * np.cos(across / 9)
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def _write(folder: Path, config: dict[str, Any], name: str = "preprocessor_config.json") -> str:
    (folder / name).write_text(json.dumps(config))
    return str(folder)


def _ours(picture: Image.Image, spec: ImageSpec) -> np.ndarray:
    """Normalised pixels (3, height, width)."""
    file = BytesIO()
    picture.save(file, "PNG")
    pixels = torch.from_numpy(prepare(file.getvalue(), spec))[None]
    return scale(pixels, torch.tensor(spec.mean), torch.tensor(spec.std))[0].numpy()


def _theirs(picture: Image.Image, folder: str) -> np.ndarray:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return np.asarray(processor(picture, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_preparations_are_read_right(name: str, tmp_path: Path) -> None:
    spec = read_preparation(_write(tmp_path, PUBLISHED[name]))
    size, resize, resize_to, resample = EXPECTED[name]
    assert (spec.height, spec.width, spec.resize, spec.resample) == (size, size, resize, resample)
    assert spec.resize_to == resize_to
    assert list(spec.mean) == PUBLISHED[name]["image_mean"]
    assert list(spec.std) == PUBLISHED[name]["image_std"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_are_those_of_transformers(name: str, picture: Image.Image, tmp_path: Path) -> None:
    folder = _write(tmp_path, PUBLISHED[name])
    ours, theirs = _ours(picture, read_preparation(folder)), _theirs(picture, folder)
    assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_is_read_as_the_same_by_both(name: str, picture: Image.Image, tmp_path: Path) -> None:
    spec = read_preparation(_write(tmp_path, PUBLISHED[name]))
    (tmp_path / "saved").mkdir()
    processor = "CLIPImageProcessor" if spec.resize == "crop" else "ViTImageProcessor"
    write_preparation(tmp_path / "saved", spec, processor)
    assert read_preparation(str(tmp_path / "saved")) == spec
    assert np.array_equal(_ours(picture, spec), _theirs(picture, str(tmp_path / "saved")))


def test_nested_processor_config(tmp_path: Path) -> None:
    nested = {"processor_class": "BlipProcessor", "image_processor": PUBLISHED["Salesforce/blip-image-captioning-base"]}
    spec = read_preparation(_write(tmp_path, nested, "processor_config.json"))
    assert (spec.height, spec.resize) == (384, "squash")


def test_without_normalising_pixels_stay_between_0_and_1(tmp_path: Path) -> None:
    spec = read_preparation(_write(tmp_path, {"size": 64, "do_normalize": False}))
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_without_preparation_a_size_must_be_given(tmp_path: Path) -> None:
    assert read_preparation(str(tmp_path), default_size=96) == ImageSpec(96, 96, *IMAGENET)
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json.*--image-size"):
        read_preparation(str(tmp_path))


@pytest.mark.parametrize("content", ["nope", "[1, 2]", ""])
def test_broken_preparation_names_the_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: "):
        read_preparation(str(tmp_path))


def test_adjusted_size_keeps_the_margin_of_a_crop() -> None:
    spec = ImageSpec(224, 224, *IMAGENET, resize="crop", resize_to=256)
    assert adjust(spec, size=112) == ImageSpec(112, 112, *IMAGENET, resize="crop", resize_to=128)
    assert adjust(spec, resize="squash") == ImageSpec(224, 224, *IMAGENET)
    assert adjust(spec, decode="fast") == ImageSpec(224, 224, *IMAGENET, "crop", 256, decode="fast")
    assert adjust(spec) == spec
    assert adjust(ImageSpec(224, 224, *IMAGENET), resize="crop").resize_to is None
