"""Mixtures are exact, use every image evenly, and depend on seed and epoch alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.samples import Mixture

LABELS = np.repeat([0, 1, 2], [6, 3, 1])


def shares(mixture: Mixture, epoch: int, labels: np.ndarray = LABELS) -> list[int]:
    return np.bincount(labels[mixture.order(epoch)], minlength=3).tolist()


def test_without_ratios_every_image_comes_once_in_another_order_each_epoch() -> None:
    mixture = Mixture(LABELS, seed=3)
    first, second = mixture.order(0), mixture.order(1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert first.tolist() == Mixture(LABELS, seed=3).order(0).tolist()
    assert first.tolist() != Mixture(LABELS, seed=4).order(0).tolist()


def test_ratios_are_exact_in_every_epoch() -> None:
    mixture = Mixture(LABELS, ratios=[1, 2, 2])
    assert len(mixture) == 10
    assert [shares(mixture, epoch) for epoch in range(4)] == [[2, 4, 4]] * 4


def test_a_part_goes_on_where_it_stopped() -> None:
    """Two of six images an epoch: after three epochs each was shown once; six of three: each was shown twice."""
    mixture = Mixture(LABELS, ratios=[1, 3, 1])
    assert mixture.quotas == [2, 6, 2]
    counts = Counter(int(image) for epoch in range(3) for image in mixture.order(epoch))
    assert [counts[image] for image in range(6)] == [1] * 6
    assert [counts[image] for image in range(6, 9)] == [6] * 3


def test_repeats_make_an_image_count_more_often() -> None:
    mixture = Mixture(np.zeros(3, np.int64), repeats=np.array([1, 10, 2]))
    assert len(mixture) == 13
    assert Counter(mixture.order(5).tolist()) == {0: 1, 1: 10, 2: 2}


def test_a_part_without_images_gives_none() -> None:
    mixture = Mixture(np.array([1, 1]), ratios=[5, 1])
    assert mixture.order(0).tolist() in ([0, 1], [1, 0])
    assert len(Mixture(np.empty(0, np.int64), ratios=[1, 1]).order(0)) == 0


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5).flatmap(
        lambda sizes: st.tuples(
            st.just(sizes),
            st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)),
            st.integers(0, 2**40),
        )
    )
)
def test_quotas_add_up_and_are_the_nearest_shares(drawn: tuple[list[int], list[float], int]) -> None:
    sizes, ratios, seed = drawn
    labels = np.repeat(np.arange(len(sizes)), sizes)
    mixture = Mixture(labels, ratios, seed=seed)
    assert len(mixture.order(0)) == len(mixture) == sum(sizes)
    for quota, ratio in zip(mixture.quotas, ratios, strict=True):
        assert quota == pytest.approx(sum(sizes) * ratio / sum(ratios), abs=1)
    seen = Counter(int(image) for epoch in range(7) for image in mixture.order(epoch))
    for part in range(len(sizes)):
        times = [seen[image] for image in np.flatnonzero(labels == part)]
        assert max(times) - min(times) <= 1
