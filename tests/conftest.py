"""What all tests share: where real inputs lie, tiny checkpoints made once, and a calm, deterministic torch."""

from __future__ import annotations

import gc
import os
from itertools import chain, islice
from pathlib import Path

import pytest

# Before torch loads, and for all processes that tests start: tiny models on many test processes, so more threads only wait
# for each other, and what waits must not spin on a core that another test could use.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of several workers begin with long tests, file by file, and end with short ones, which those that are done take.

    xdist gives each worker a piece of the list, of the same length, and moves tests from the end of the longest queue.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    long = [tests for path, tests in files.items() if path.parent.name != "unit"]
    short = iter([item for item in items if item.path.parent.name == "unit"])
    pieces = [list(chain.from_iterable(long[number::workers])) for number in range(workers)]
    for piece in pieces:
        piece.extend(islice(short, max(0, len(items) // workers - len(piece))))
    items[:] = [*chain.from_iterable(pieces), *short]


def pytest_collection_finish() -> None:
    """What is imported by now stays: each garbage collection, one a training, would look through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs (not part of the product); tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CAPTRAIN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(
            "real inputs are not on this machine: set CAPTRAIN_SHARED to the folder that holds data/ and models/"
        )
    return folder


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family, as plain transformers wrote it. Not to be changed."""
    from captrain.testing import TINY_CAPTIONERS

    folder = tmp_path_factory.mktemp("tiny")
    return {family: make(folder / family) for family, make in TINY_CAPTIONERS.items()}


@pytest.fixture(scope="session")
def taught_folders(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same after a few training steps: their captions differ from picture to picture, and end. Not to be changed."""
    from captrain.models.checkpoint.folder import load_captioner, save_captioner
    from captrain.testing import teach

    folder = tmp_path_factory.mktemp("taught")
    for family, tiny in tiny_folders.items():
        captioner = load_captioner(str(tiny))
        teach(captioner, steps=40)
        save_captioner(captioner, folder / family)
    return {family: folder / family for family in tiny_folders}
