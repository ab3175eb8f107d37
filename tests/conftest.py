"""What all tests share: where real inputs lie, and a calm, deterministic torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs (not part of the product); tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CAPTRAIN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(
            "real inputs are not on this machine: set CAPTRAIN_SHARED to the folder that holds data/ and models/"
        )
    return folder
