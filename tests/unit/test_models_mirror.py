"""Pictures seen mirrored too: where their vectors go back to, and what has no grid."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.features.training_images import MIRRORED
from captrain.models.layers.vision import BEFORE_THE_GRID, grid_of, mean_with_mirrored, turned_back

PATCH = 16


@given(st.integers(4, 40), st.integers(4, 40), st.sampled_from(BEFORE_THE_GRID))
def test_the_grid_is_found(rows: int, columns: int, before: int) -> None:
    """Of any picture of whole patches, with what encoders put before it."""
    found, high, wide = grid_of(before + rows * columns, rows * PATCH, columns * PATCH)
    assert found + high * wide == before + rows * columns
    assert abs(high / wide - rows / columns) < 0.5


def test_twice_turned_is_as_before() -> None:
    """And one vector an image has no places."""
    vectors = torch.randn(2, 50, 3)
    assert torch.equal(turned_back(turned_back(vectors, 224, 224), 224, 224), vectors)
    assert torch.equal(turned_back(vectors[:, :1], 224, 224), vectors[:, :1])


def test_an_encoder_that_sees_cells_alone_sees_the_same_mirrored() -> None:
    """Where each cell's vector is the mean of its pixels, the mean with the mirror image changes nothing."""

    def look(pixels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2)

    pixels = torch.rand(3, 3, 32, 48)
    torch.testing.assert_close(mean_with_mirrored(look(pixels), look(pixels.flip(-1)), 32, 48), look(pixels))


@pytest.mark.parametrize("count", [35, 32, 46])
def test_what_is_no_grid_is_refused(count: int) -> None:
    """Learned queries, for one."""
    with pytest.raises(ModelError, match=f"mirror: the encoder's {count} vectors are no grid"):
        grid_of(count, 224, 224)


def test_kept_mirror_images_are_the_mirror_images() -> None:
    """View 1 of a picture that is kept mirrored too has its pixels the other way round, and a key of its own."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)).save(buffer, "png")
    spec = ImageSpec(4, 6, (0.5,) * 3, (0.5,) * 3)
    plain, mirrored = (MIRRORED.pixels(buffer.getvalue(), "0a", view, spec, 100) for view in (0, 1))
    assert np.array_equal(mirrored, plain[:, ::-1])
    assert MIRRORED.key("0a", 0) == "0a" != MIRRORED.key("0a", 1)
