"""Groups of even rows: every row once, and fewer places than one rectangle takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from captrain.models.layers.packing import WORTH_SPLITTING, even_groups

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=64)


def places(lengths: list[int], groups: list[list[int]]) -> int:
    """Places of the rectangles that groups of rows take, padding counted in."""
    return sum(len(group) * max(lengths[row] for row in group) for group in groups)


@given(LENGTHS)
def test_every_row_is_in_one_group(lengths: list[int]) -> None:
    """Shorter rows come first, and the last row of a group is its longest."""
    groups = even_groups(lengths)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    in_order = [lengths[row] for group in groups for row in group]
    assert in_order == sorted(lengths)


@given(LENGTHS)
def test_each_split_saves_places(lengths: list[int]) -> None:
    """The first one alone saves a tenth."""
    groups = even_groups(lengths)
    whole = len(lengths) * max(lengths)
    if len(groups) > 1:
        assert places(lengths, groups) <= (1 - WORTH_SPLITTING) * whole


@given(st.integers(1, 200), st.integers(1, 64))
def test_even_rows_stay_together(length: int, rows: int) -> None:
    assert even_groups([length] * rows) == [list(range(rows))]
