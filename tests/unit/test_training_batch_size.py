"""`--batch-size auto`: a sensible number, found without changing the captioner or what is drawn at random."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from captrain.features.training_images import Images
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.records import Sample
from captrain.settings.schema import TrainingSettings
from captrain.testing import tiny_blip
from captrain.training.captions import TokenizedCaptions
from captrain.training.loop import batch_size
from captrain.training.loop.batch_size import choose_batch_size, find_batch_size, largest_by_estimate
from captrain.training.resolve import batches_of
from captrain.training.rows import TrainingRow, TrainingRows

GIB = 2**30


class GreyImages(Images):
    """As many grey pictures as there are samples."""

    kind = "pixels"

    def __init__(self, captioner: CaptionerModel, count: int) -> None:
        self.samples = [
            Sample(str(number), b"", ("a dog runs", "a " * (2 + number % 7)), "") for number in range(count)
        ]
        self.spec = captioner.image_spec

    def rows(self, positions, epoch=None):
        shape = (len(positions), self.spec.height, self.spec.width, 3)
        return {"pixels": torch.full(shape, 127, dtype=torch.uint8)}


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture
def captioner(blip: Path) -> CaptionerModel:
    return load_captioner(str(blip))


def rows_of(captioner: CaptionerModel, images: GreyImages) -> TrainingRows:
    return TrainingRows(TokenizedCaptions(captioner, images.samples, 64), None, 0)


def seed_all() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def free_memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(size)))


def test_more_memory_gives_larger_batches_up_to_a_sensible_most(captioner, monkeypatch) -> None:
    images = GreyImages(captioner, 2000)
    rows = rows_of(captioner, images)
    found = []
    for size in (0.005, 0.02, 0.1, 100):
        free_memory(monkeypatch, size * GIB)
        found.append(find_batch_size(captioner, images, rows))
    assert found == sorted(found)
    assert found[0] < found[-1] == 64
    assert all(size & (size - 1) == 0 for size in found)


def test_the_search_leaves_no_trace(captioner, monkeypatch) -> None:
    images = GreyImages(captioner, 40)
    for module in captioner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5  # so that the search draws
    captioner.train()
    next(captioner.modules()).training = False
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    modes = [module.training for module in captioner.modules()]
    seed_all()
    expected = (torch.rand(1).item(), random.random(), np.random.rand())
    seed_all()

    find_batch_size(captioner, images, rows_of(captioner, images))

    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert [module.training for module in captioner.modules()] == modes
    assert all(weight.grad is None for weight in captioner.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in captioner.state_dict().items())


def test_the_longest_row_counts(captioner) -> None:
    images = GreyImages(captioner, 40)
    batch = batch_size._longest_batches(captioner, images, rows_of(captioner, images))(3)
    longest = max(len(row.captions[1]) for row in (TrainingRow(*rows_of(captioner, images)[0, n]) for n in range(40)))
    lengths = (batch["caption_ids"] == 2).sum(1)
    assert lengths.tolist() == [longest + 1] * 3


def test_the_estimate_holds_for_a_batch_of_the_found_size(captioner) -> None:
    """What eight images keep is what one and two images foretell."""
    images = GreyImages(captioner, 40)
    batch = batch_size._longest_batches(captioner, images, rows_of(captioner, images))
    captioner.train()
    one, two, eight = (batch_size._kept(captioner, batch(size)) for size in (1, 2, 8))
    assert one < two < eight
    assert eight == pytest.approx(one + 7 * (two - one), rel=0.05)


def test_out_of_memory_while_trying_is_not_an_error(captioner) -> None:
    def batch(size: int) -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not batch_size._fits(captioner, batch, 2)
    with pytest.raises(RuntimeError, match="mismatch"):
        batch_size._fits(captioner, lambda size: (_ for _ in ()).throw(RuntimeError("size mismatch")), 2)


def test_an_earlier_session_decides(captioner) -> None:
    images = GreyImages(captioner, 40)
    rows = rows_of(captioner, images)
    assert choose_batch_size(captioner, images, rows, before=16) == 16
    assert choose_batch_size(captioner, images, rows, before=None) == 8


def test_only_filled_settings_have_batches() -> None:
    assert batches_of(TrainingSettings(batch_size=3, accumulate=2)).step == 6
    with pytest.raises(ValueError, match="not filled in"):
        batches_of(TrainingSettings(batch_size="auto"))


def test_little_memory_still_gives_one() -> None:
    assert largest_by_estimate(one=10**9, two=2 * 10**9, fixed=10**9, free=0, most=64) == 1
