"""Hidden words and dropped image vectors: what goes, what stays, and by what it is decided."""

from __future__ import annotations

import copy

import numpy as np
import torch

from captrain.models.layers.packing import pack
from captrain.models.layers.vision import drop_patches
from captrain.training.rows import WordDropout

HIDDEN = 99
ROWS = [[list(range(10, 40)), list(range(40, 60))], [list(range(10, 30))]]
PLACES = [(0, 7), (0, 3)]


def test_only_read_words_are_hidden() -> None:
    """Starts, prompt, labels and padding stay; about the share of the rest goes."""
    packed = pack(ROWS, start=1, end=2, prompt=[5])
    before = copy.deepcopy(packed)
    WordDropout(0.5, HIDDEN, seed=0)(packed, PLACES, given=2)
    hidden = packed.input_ids == HIDDEN
    assert torch.equal(packed.input_ids[~hidden], before.input_ids[~hidden])
    assert torch.equal(packed.labels, before.labels)
    assert not hidden[before.position_ids < 2].any()
    assert not hidden[before.caption_ids == 0].any()
    words = int(((before.position_ids >= 2) & (before.caption_ids > 0)).sum())
    assert words == 70
    assert 0.3 < int(hidden.sum()) / words < 0.7


def test_an_image_hides_the_same_words_in_any_batch() -> None:
    """Alone, or behind another image; in another epoch they are others."""
    both, alone, later = pack(ROWS, 1, 2), pack(ROWS[1:], 1, 2), pack(ROWS[1:], 1, 2)
    dropout = WordDropout(0.5, HIDDEN, seed=0)
    dropout(both, PLACES, given=1)
    dropout(alone, PLACES[1:], given=1)
    dropout(later, [(1, 3)], given=1)
    length = alone.input_ids.shape[1]
    assert torch.equal(both.input_ids[1, :length], alone.input_ids[0])
    assert not torch.equal(later.input_ids, alone.input_ids)


def test_patches_keep_their_order() -> None:
    """Each image loses its own; what stays is in the order it was, unchanged."""
    vectors = torch.arange(4 * 20, dtype=torch.float32).view(4, 20, 1)
    torch.manual_seed(0)
    kept = drop_patches(vectors, 0.3)
    assert kept.shape == (4, 14, 1)
    assert bool((kept.diff(dim=1) > 0).all())
    assert len({tuple((row - row.min() // 20 * 20).flatten().tolist()) for row in kept}) > 1
    np.testing.assert_array_equal(kept[1].numpy() // 20, np.ones((14, 1)))


def test_at_least_one_patch_stays() -> None:
    """However large the share is."""
    assert drop_patches(torch.zeros(2, 3, 4), 0.99).shape == (2, 1, 4)
