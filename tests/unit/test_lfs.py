"""A checkpoint of which Git LFS has not fetched the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from captrain.errors import ModelError
from captrain.models.checkpoint.folder import load_captioner


def test_a_pointer_in_place_of_weights_is_called_that(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folders["blip"], tmp_path / "model"))
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    )
    with pytest.raises(ModelError, match=r"model\.safetensors: is a Git LFS pointer.*git lfs pull"):
        load_captioner(str(folder))
