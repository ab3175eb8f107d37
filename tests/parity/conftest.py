"""What tests against plain transformers share: a captioner of the folder under test, and pictures that it can tell apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.testing import clear_pictures


@pytest.fixture
def captioner(folder: Path) -> CaptionerModel:
    return load_captioner(str(folder)).eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(clear_pictures(8))
