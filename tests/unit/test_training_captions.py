"""Captions as token ids: what an epoch leaves as it was is not tokenised again, and comes out the same as if it were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captrain.data.augment import generator
from captrain.data.caption_text import CaptionText
from captrain.data.samples import key_of
from captrain.records import Sample
from captrain.training.captions import TokenizedCaptions, VariedCaptions

SAMPLES = [Sample(f"{n}.jpg", Path(f"{n}.jpg"), (f"dog, grass, {n}", f"a cat number {n}"), "") for n in range(20)]
WAYS = {
    "dropped captions": CaptionText(drop_captions=0.3),
    "dropped tags": CaptionText(drop_tags=0.5),
    "shuffled tags": CaptionText(shuffle_tags=True, keep_tags=1, lower_case=True, prefix="a photo of"),
}


class Letters:
    """Tokenises by letters, and counts captions."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def tokenize(self, captions: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
        self.seen += captions
        ids = [[ord(letter) for letter in caption] for caption in captions]
        return [caption[: max_tokens - 1] for caption in ids], sum(len(caption) >= max_tokens for caption in ids)


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_varied_captions_are_those_of_seed_epoch_and_id(text: CaptionText) -> None:
    letters = Letters()
    varied = VariedCaptions(TokenizedCaptions(letters, SAMPLES, 12, text), letters, SAMPLES, seed=3)
    for epoch in range(3):
        for place, sample in enumerate(SAMPLES):
            random = generator(3, epoch, key_of(sample.id), "caption")
            expected, _ = Letters().tokenize(text.vary(text.clean(sample.captions), random), 12)
            assert varied.at(place, epoch) == expected


def test_only_changed_captions_are_tokenised_again() -> None:
    letters = Letters()
    kept = TokenizedCaptions(letters, SAMPLES, 12, CaptionText(drop_captions=0.3))
    assert len(letters.seen) == 40
    varied = VariedCaptions(kept, letters, SAMPLES, seed=3)
    found = [varied.at(place, 0) for place in range(len(SAMPLES))]
    dropped = sum(caption == [] for captions in found for caption in captions)
    assert dropped and letters.seen[40:] == [""] * dropped
    assert np.array_equal(kept.repeats, np.ones(20))
