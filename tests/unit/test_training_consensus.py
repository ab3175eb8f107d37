"""Weights of captions: by agreement with the image's others alone, all images alike, in the loss as often as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.scorer import Scorer
from captrain.models.bundle import load_captioner
from captrain.testing import tiny_blip
from captrain.training.consensus import LEAST, CaptionWeights
from captrain.training.rows import Row, TrainingRows, _token_weights

CAPTIONS = [
    ["a dog runs on grass", "a brown dog runs on the grass", "my holiday"],
    ["two cats sleep", "two cats sleep on a sofa", "cats sleep", "a sofa with two cats"],
    ["a tree"],
    [],
]


def test_weights_are_agreement_with_the_others() -> None:
    """Each caption scored against the others of its image alone, with words as rare as in all of them."""
    weights = CaptionWeights(CAPTIONS, power=1.0)
    rarity = DocumentFrequencies.of({str(image): texts for image, texts in enumerate(CAPTIONS) if len(texts) > 1})
    for image in (0, 1):
        agreement = []
        for number, text in enumerate(CAPTIONS[image]):
            others = [other for place, other in enumerate(CAPTIONS[image]) if place != number]
            scorer = Scorer({"image": others}, ["cider"], document_frequencies=rarity)
            agreement.append(float(scorer.score(["image"], [text])["cider"][0]) + LEAST)
        np.testing.assert_allclose(weights[image], np.array(agreement) / np.mean(agreement), rtol=1e-6)


def test_images_count_alike() -> None:
    """Whatever the power; an image with one caption, or none, is no trouble."""
    for power in (0.5, 1.0, 3.0):
        weights = CaptionWeights(CAPTIONS, power)
        assert [len(weights[image]) for image in range(4)] == [3, 4, 1, 0]
        assert all(weights[image].mean() == pytest.approx(1, abs=1e-6) for image in range(3))
    assert weights[0].argmin() == 2


def test_no_power_weighs_all_alike() -> None:
    assert np.array_equal(CaptionWeights(CAPTIONS, 0.0).weights, np.ones(8, np.float32))


class Numbers:
    """Captions whose token is their number."""

    def __len__(self) -> int:
        return len(CAPTIONS)

    def at(self, sample: int, epoch: int) -> list[list[int]]:
        return [[10 + number] for number in range(len(CAPTIONS[sample]))]


def test_a_drawn_caption_keeps_its_weight() -> None:
    weights = CaptionWeights(CAPTIONS, 1.0)
    rows = TrainingRows(Numbers(), 2, 0, weights)
    for epoch in range(5):
        row = rows[epoch, 1]
        assert row.weights is not None
        assert row.weights.tolist() == [weights[1][ids[0] - 10] for ids in row.captions]


def test_the_loss_is_that_of_captions_repeated_as_often_as_they_weigh(tmp_path: Path) -> None:
    """Weights 2 and 1 of two captions: the summed loss of the first twice and the second once."""
    captioner = load_captioner(str(tiny_blip(tmp_path / "blip")))
    captioner.eval()
    features = captioner.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    first, second = [20, 21, 22], [23, 24]
    packed = captioner.pack([[first, second]])
    weights = _token_weights([Row(0, 0, [first, second], np.array([2, 1], np.float32))], packed)
    weighted = captioner(**packed.to_dict(), features=features, weights=weights, num_items_in_batch=1).loss
    repeated = captioner.pack([[first, first, second]])
    torch.testing.assert_close(
        weighted, captioner(**repeated.to_dict(), features=features, num_items_in_batch=1).loss, rtol=1e-6, atol=1e-6
    )
