"""A compiled captioner learns the same; without a compiler it is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from captrain.errors import SettingsError
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.device import compile_captioner
from captrain.testing import clear_pictures, tiny_blip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BLIP of one layer a half: a second one is traced like the first, and takes as long again."""
    return tiny_blip(tmp_path / "blip", layers=1)


@pytest.fixture
def blip(folder: Path) -> CaptionerModel:
    return load_captioner(str(folder)).eval()


def test_loss_and_gradients_stay_for_rows_of_any_length(blip: CaptionerModel, folder: Path) -> None:
    """What torch traces and differentiates, without the compiler's minutes: `aot_eager` runs its graphs as they are."""
    compiled = load_captioner(str(folder)).eval()
    names = list(compiled.state_dict())
    compile_captioner(compiled, backend="aot_eager")
    assert list(compiled.state_dict()) == names
    for rows in ([[[6, 7], [8]], [[8, 9, 10], [7, 6]]], [[[6, 7, 8, 9, 10]], [[8]]], [[[9]]]):
        pixels = torch.from_numpy(clear_pictures(len(rows), blip.image_spec.height))
        losses = []
        for captioner in (blip, compiled):
            captioner.zero_grad()
            output = captioner(**captioner.pack(rows).to_dict(), pixels=pixels)
            output.loss.backward()
            losses.append(output.loss.detach())
        torch.testing.assert_close(losses[0], losses[1])
        for (name, weight), twin in zip(blip.named_parameters(), compiled.parameters(), strict=True):
            if weight.grad is not None:
                torch.testing.assert_close(weight.grad, twin.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_without_a_compiler_it_is_refused(blip: CaptionerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SettingsError, match=r"compile: needs a C\+\+ compiler, found none"):
        compile_captioner(blip)
