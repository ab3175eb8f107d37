"""Batches of even rows: every image once, little padding, and an order that still differs from epoch to epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.mix import Mixture
from captrain.training.rows import LengthMixture, by_length

LENGTHS = np.random.default_rng(0).integers(30, 120, 1000)


def padded(order: np.ndarray, batch_size: int) -> int:
    """Places of the rows of an epoch, padding counted in."""
    batches = [LENGTHS[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return int(sum(lengths.max() * len(lengths) for lengths in batches))


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 9))
def test_every_row_stays_once(rows: int, batch_size: int, window: int) -> None:
    """Whatever the sizes; what is left of the last batch stays at the end."""
    order = np.random.default_rng(rows).permutation(rows)
    ordered = by_length(order, LENGTHS, batch_size, window)
    assert sorted(ordered.tolist()) == list(range(rows))
    left = rows % batch_size
    assert ordered[rows - left :].tolist() == order[rows - left :].tolist()


def test_little_is_padded() -> None:
    """Eight batches sorted together leave a fifth of the padding of a random order."""
    random = Mixture(np.zeros(1000, int))
    even = LengthMixture(random, LENGTHS, batch_size=32, window=8)
    before, after = (padded(mixture.order(0), 32) - int(LENGTHS.sum()) for mixture in (random, even))
    assert after < before / 5


def test_batches_come_from_their_window() -> None:
    """No row moves farther than its window is long: what the order keeps together stays together."""
    order = np.arange(1000)
    ordered = by_length(order, LENGTHS, 10, 4)
    assert (np.abs(ordered - order) < 40).all()


@pytest.mark.parametrize("epoch", [1, 2, 9])
def test_epochs_differ_and_repeat(epoch: int) -> None:
    """By seed and epoch alone."""
    even = LengthMixture(Mixture(np.zeros(1000, int), seed=3), LENGTHS, 32, 8)
    again = LengthMixture(Mixture(np.zeros(1000, int), seed=3), LENGTHS, 32, 8)
    assert np.array_equal(even.order(epoch), again.order(epoch))
    assert not np.array_equal(even.order(epoch), even.order(0))


def test_the_longest_rows_do_not_come_last() -> None:
    """Inside a window batches are shuffled: a step's length says nothing about when it comes."""
    order = by_length(np.arange(960), LENGTHS, 32, 30)
    means = LENGTHS[order].reshape(-1, 32).mean(1)
    assert abs(np.corrcoef(means, np.arange(30))[0, 1]) < 0.5
