"""The running average of weights: what it comes to, where it is used, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captrain.errors import RunError
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.testing import tiny_encoder_decoder
from captrain.training.optimization.weight_average import WeightAverage


@pytest.fixture
def captioner(tmp_path: Path) -> CaptionerModel:
    """A captioner of which everything learns."""
    return load_captioner(str(tiny_encoder_decoder(tmp_path / "tiny")))


def shift(captioner: CaptionerModel, by: float) -> None:
    """As if an optimizer had moved all weights by the same."""
    with torch.no_grad():
        for weight in captioner.parameters():
            weight += by


def test_the_average_of_three_steps(captioner: CaptionerModel) -> None:
    """a <- w a + (1 - w) weight, by hand; the window of the first steps is 2/11, 3/12, 4/13."""
    name, weight = next(iter(captioner.named_parameters()))
    average = WeightAverage(captioner, 0.999)
    expected = weight.detach().clone().double()
    for step, kept in enumerate((2 / 11, 3 / 12, 4 / 13), start=1):
        shift(captioner, 1.0)
        average.update(step)
        expected = kept * expected + (1 - kept) * weight.detach().double()
    torch.testing.assert_close(average.average[name].double(), expected, rtol=0, atol=1e-6)


def test_in_place_and_back(captioner: CaptionerModel) -> None:
    """The captioner has the average while it is open, and then its own weights again, to the bit."""
    average = WeightAverage(captioner, 0.5)
    before = {name: weight.detach().clone() for name, weight in captioner.named_parameters()}
    shift(captioner, 1.0)
    own = {name: weight.detach().clone() for name, weight in captioner.named_parameters()}
    with average.in_place():
        assert all(torch.equal(weight, before[name]) for name, weight in captioner.named_parameters())
    assert all(torch.equal(weight, own[name]) for name, weight in captioner.named_parameters())
    assert all(torch.equal(kept, before[name]) for name, kept in average.average.items())


def test_frozen_weights_have_none(captioner: CaptionerModel) -> None:
    """Only what learns takes memory."""
    for _, weight in captioner.parts()["vision"]:
        weight.requires_grad_(False)
    frozen = {name for name, _ in captioner.parts()["vision"]}
    assert frozen
    assert not frozen & WeightAverage(captioner, 0.9).average.keys()


def test_written_and_read(captioner: CaptionerModel, tmp_path: Path) -> None:
    """A resumed run goes on with the same average; a checkpoint without one is refused."""
    average = WeightAverage(captioner, 0.9)
    shift(captioner, 1.0)
    average.update(1)
    average.save(tmp_path)
    again = WeightAverage(captioner, 0.9)
    again.load(tmp_path)
    assert all(torch.equal(kept, average.average[name]) for name, kept in again.average.items())
    with pytest.raises(RunError, match="no average"):
        again.load(tmp_path / "elsewhere")
