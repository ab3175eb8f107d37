"""Tiny real checkpoints, tiny data, and the command line in this process: what all integration tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cyclopts import App
from run_tools import QUICK, Cli, Remembered, Result

from captrain.cli import main
from captrain.report import page
from captrain.report.curves import draw_curve
from captrain.testing import tiny_blip, tiny_photos, tiny_text_decoder, tiny_vision_encoder


@pytest.fixture(scope="session")
def _remembered() -> Remembered:
    """A command line is parsed in a quarter of the time. The tests of commands in `tests/unit` parse as ever."""
    return Remembered()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _remembered: Remembered) -> Iterator[None]:
    """No hub, a cache of one's own, one thread, and a working folder that nothing else writes into.

    Nothing waits for the disk: a training does so 86 times, and no test here cuts the power. That files are synced, and in
    which order, is tested in `test_disk.py` and `test_training_checkpoints.py`. Nor are charts drawn, which takes a third of
    a tiny training: `charts` draws them.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(page, "draw_curve", lambda *_: "<svg></svg>")
    monkeypatch.setattr(App, "assemble_argument_collection", lambda app, **options: _remembered.of(app, **options))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def charts(_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have their charts."""
    monkeypatch.setattr(page, "draw_curve", draw_curve)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run `captrain WORDS` in this process; a word with spaces in it is split unless it is a path."""

    def run(*words: str | Path) -> Result:
        capfd.readouterr()
        code = main([part for word in words for part in ([str(word)] if isinstance(word, Path) else word.split())])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BLIP."""
    return tiny_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT."""
    return tiny_vision_encoder(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2."""
    return tiny_text_decoder(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tiny photos with five captions each; do not write into it."""
    return tiny_photos(tmp_path_factory.mktemp("data") / "photos", count=12)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, blip: Path, photos: Path) -> Path:
    """A finished LoRA run of two epochs on the photos, a quarter held out; do not write into it."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    words = ["--validation-share", "0.25", "--epochs", "2", "--keep", "memory", *QUICK.split()]
    assert main(["-q", "train", str(photos), str(run), "--model", str(blip), *words]) == 0
    return run
