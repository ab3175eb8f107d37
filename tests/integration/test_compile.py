"""A compiled training has the losses, scores and files of a plain one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from run_tools import QUICK, Cli, losses_of
from safetensors.torch import load_file

from captrain.models.device import compile_captioner
from captrain.testing import tiny_blip, tiny_photos
from captrain.training import captioner_setup


def test_a_compiled_training_ends_like_a_plain_one(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`aot_eager` runs torch's graphs as they are: the compiler itself would take minutes.

    Six pictures to learn, in batches of two: what a single one in a batch needs is compiled in `test_models_compiled.py`.
    One layer a half: a second one is traced like the first, and takes as long again.
    """
    photos, blip = tiny_photos(tmp_path / "photos", count=8), tiny_blip(tmp_path / "blip", layers=1)
    monkeypatch.setattr(captioner_setup, "compile_captioner", partial(compile_captioner, backend="aot_eager"))
    words = f"--validation-share 0.25 --epochs 1 --dropout 0 {QUICK}"
    assert cli("train", photos, tmp_path / "plain", "--model", blip, words).code == 0
    assert cli("train", photos, tmp_path / "compiled", "--model", blip, words, "--compile").code == 0
    assert losses_of(tmp_path / "compiled") == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-4)
    adapters = [load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("plain", "compiled")]
    assert set(adapters[0]) == set(adapters[1])
