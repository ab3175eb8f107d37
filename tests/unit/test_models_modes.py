"""What looks at a captioner leaves it in the mode that it was in, module by module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captrain.features.cache import CacheOptions, FeatureCache
from captrain.features.training_images import Images
from captrain.inference.captioner import features_of
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.lora import LoraOptions, add_lora
from captrain.records import Sample
from captrain.testing import TINY_CAPTIONERS, clear_pictures
from captrain.training.captions import TokenizedCaptions
from captrain.training.loop.validation import Validator


class Pictures(Images):
    """Samples whose pixels are there."""

    kind = "pixels"

    def __init__(self, samples: Sequence[Sample], pixels: Tensor) -> None:
        self.samples, self.pixels = samples, pixels

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        return {"pixels": self.pixels[list(positions)]}


@pytest.fixture(params=list(TINY_CAPTIONERS))
def captioner(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> CaptionerModel:
    """In training: the text half with dropout, the image half frozen and in evaluation mode."""
    captioner = load_captioner(str(tiny_folders[request.param]))
    add_lora(captioner, LoraOptions(2, 4, 0.1))
    captioner.decoding = Decoding(beams=1, max_new_tokens=3)
    return captioner.train()


def _modes(captioner: CaptionerModel) -> list[bool]:
    return [module.training for module in captioner.modules()]


def test_what_looks_at_a_captioner_leaves_it_learning(
    captioner: CaptionerModel, tmp_path: Path, samples: list[Sample]
) -> None:
    before = _modes(captioner)
    assert True in before
    assert False in before
    pixels = torch.from_numpy(clear_pictures(2, captioner.image_spec.height))
    images = Pictures(samples[:2], pixels)
    FeatureCache(captioner, CacheOptions("memory", tmp_path), 2)._compute(pixels)
    assert _modes(captioner) == before
    features = features_of(captioner, images, [0, 1])
    assert _modes(captioner) == before
    written = captioner.generate(features)
    assert _modes(captioner) == before
    Validator(images, TokenizedCaptions(captioner, samples[:2], 10), 2)(captioner)
    assert _modes(captioner) == before
    assert written == captioner.eval().generate(features), "dropout was on while it wrote"


def test_modes_are_put_back_after_an_error(captioner: CaptionerModel) -> None:
    before = _modes(captioner)
    with pytest.raises(ZeroDivisionError), evaluating(captioner):
        assert not any(_modes(captioner))
        raise ZeroDivisionError
    assert _modes(captioner) == before
    with evaluating(captioner.eval()):
        pass
    assert not any(_modes(captioner))
