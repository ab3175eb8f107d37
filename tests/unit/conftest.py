"""What tests of cached features share: a captioner of which nothing learns, and pictures that it can tell apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.records import Sample
from captrain.testing import clear_pictures


@pytest.fixture
def captioner(tiny_folders: dict[str, Path]) -> CaptionerModel:
    """A frozen BLIP."""
    captioner = load_captioner(str(tiny_folders["blip"]))
    captioner.requires_grad_(False)
    return captioner


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Twenty different pictures: more than one batch of the encoder."""
    found = []
    for number, picture in enumerate(clear_pictures(20)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(picture).save(path)
        found.append(Sample(path.name, path, ("a dog",), path.name))
    return found
