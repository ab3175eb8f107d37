"""Captions that are written while others come and go equal those of each picture alone, for every family and kind of decoding."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captrain.inference.writer import BatchLimit, CaptionWriter, write_all, write_ways
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding, Written
from captrain.models.families import FAMILIES
from captrain.models.search import Search
from captrain.testing import clear_pictures

PICTURES, PLACES, LENGTH = 11, 4, 9
BOUND = 1e-5
"""The most that a score in fp32 may change with the pictures beside it: sums are added up in another order."""
WAYS = {
    "greedy": {"beams": 1},
    "beams": {"beams": 3},
    "short": {"beams": 3, "length_penalty": -1.0},
    "repetition": {"beams": 2, "repetition_penalty": 2.0, "min_new_tokens": 4},
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def captioner(request: pytest.FixtureRequest, taught_folders: dict[str, Path]) -> CaptionerModel:
    """Taught captioners write captions that end at different lengths."""
    return load_captioner(str(taught_folders[request.param])).eval()


@pytest.fixture(scope="module")
def features(captioner: CaptionerModel) -> Tensor:
    pictures = torch.from_numpy(clear_pictures(PICTURES, captioner.image_spec.height))
    with torch.no_grad():
        return captioner.encode(pictures)


@pytest.mark.parametrize("prompt", ["", "a small"])
@pytest.mark.parametrize("way", WAYS)
def test_captions_equal_those_of_single_pictures(
    captioner: CaptionerModel, features: Tensor, way: str, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner, "prompt", prompt)
    how = Decoding(max_new_tokens=LENGTH, **WAYS[way])
    single = [captioner.generate(one, how)[0] for one in features.split(1)]
    _assert_same(_streamed(captioner, features, how), single)
    _assert_same(captioner.generate(features, how), single)


def test_finished_captions_make_room_at_once(captioner: CaptionerModel, features: Tensor, monkeypatch: Any) -> None:
    """Fewer steps than batches that wait for their longest caption, and never more pictures than places."""
    how = Decoding(beams=1, max_new_tokens=LENGTH)
    if captioner.search(how) is None:
        pytest.skip("transformers writes the captions of this decoder")
    original, rows = Search.step, []

    def step(self: Search) -> Any:
        rows.append(self.rows)
        return original(self)

    lengths = [len(line.tokens) for line in captioner.generate(features, how)]
    monkeypatch.setattr(Search, "step", step)
    _streamed(captioner, features, how)
    waiting = sum(max(lengths[at : at + PLACES]) for at in range(0, PICTURES, PLACES))
    assert max(rows) <= PLACES
    assert len(rows) <= waiting
    if len(set(lengths)) > 2:
        assert sum(rows) < waiting * PLACES


def test_several_ways_come_together_in_order(captioner: CaptionerModel, features: Tensor) -> None:
    ways = [Decoding(beams=beams, max_new_tokens=length) for beams, length in ((1, 3), (3, LENGTH))]
    groups = [(range(at, min(at + 3, PICTURES)), {False: features[at : at + 3]}) for at in range(0, PICTURES, 3)]
    found = list(write_ways(captioner, ways, groups, BatchLimit(3)))
    assert [number for number, _ in found] == list(range(PICTURES))
    for place, way in enumerate(ways):
        _assert_same([lines[place] for _, lines in found], captioner.generate(features, way))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_batches_halve_themselves_when_memory_runs_out(
    captioner: CaptionerModel,
    features: Tensor,
    beams: int,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In whatever step it runs out, each caption is what it is otherwise, and one line says it."""
    how = Decoding(beams=beams, max_new_tokens=LENGTH)
    expected = captioner.generate(features, how)
    calls, heads = iter(range(1000)), captioner.head

    def head(hidden: Tensor) -> Tensor:
        if len(hidden) > 2 * beams and next(calls) % 3 == 2:
            raise error
        return heads(hidden)

    monkeypatch.setattr(captioner, "head", head)
    with caplog.at_level(logging.WARNING):
        found = write_all(captioner, features, how, BatchLimit(8))
    _assert_same(found, expected)
    if captioner.search(how) is not None:
        assert [record.getMessage() for record in caplog.records] == [
            "out of memory with 8 pictures in a batch; going on with smaller batches"
        ]


def test_one_picture_that_does_not_fit_is_an_error(
    captioner: CaptionerModel, features: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(hidden: Tensor) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(captioner, "head", head)
    with pytest.raises(MemoryError):
        write_all(captioner, features[:1], Decoding(beams=1, max_new_tokens=3), BatchLimit(8))


def _streamed(captioner: CaptionerModel, features: Tensor, how: Decoding) -> list[Written]:
    """Through a writer with few places, to which pictures come three at a time."""
    writer = CaptionWriter(captioner, how, BatchLimit(PLACES))

    def written() -> Iterator[tuple[int, Written]]:
        for at in range(0, PICTURES, 3):
            part = features[at : at + 3]
            yield from writer.put(range(at, at + len(part)), part)
        yield from writer.finish()

    found = list(written())
    assert [number for number, _ in found] == list(range(PICTURES))
    return [line for _, line in found]


def _assert_same(found: list[Written], expected: list[Written]) -> None:
    assert [line.tokens for line in found] == [line.tokens for line in expected]
    assert [line.text for line in found] == [line.text for line in expected]
    assert [line.score for line in found] == pytest.approx([line.score for line in expected], abs=BOUND)
