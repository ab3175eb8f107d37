"""BLEU and CIDEr number for number against pycocoevalcap's own classes, on captions made up here."""

from __future__ import annotations

import random

import pytest

from captrain.metrics.bleu import BleuScorer
from captrain.metrics.cider import CiderScorer

pytest.importorskip(
    "pycocoevalcap", reason="the reference scores need pycocoevalcap: pip install 'captrain[java-metrics]'"
)

WORDS = [
    "a",
    "the",
    "man",
    "dog",
    "bus",
    "red",
    "two",
    "on",
    "of",
    "street",
    "riding",
    "near",
    "'s",
    "n't",
    "-lrb-",
    "-rrb-",
]


def corpus(images: int, seed: int) -> tuple[dict[str, list[str]], dict[str, list[list[str]]]]:
    """Candidates (some empty, some copied) and one to five references for each image."""
    rng = random.Random(seed)

    def caption(low: int) -> list[str]:
        return [rng.choice(WORDS) for _ in range(rng.randint(low, 14))]

    references = {str(image): [caption(1) for _ in range(rng.randint(1, 5))] for image in range(images)}
    candidates = {id: rng.choice([caption(0), list(rng.choice(captions))]) for id, captions in references.items()}
    return candidates, references


def as_text(tokens: dict[str, list[list[str]]]) -> dict[str, list[str]]:
    return {id: [" ".join(caption) for caption in captions] for id, captions in tokens.items()}


@pytest.mark.parametrize(("images", "seed"), [(1, 0), (2, 1), (60, 2), (200, 3)])
def test_bleu(images: int, seed: int) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    candidates, references = corpus(images, seed)
    expected, expected_per_image = Bleu(4).compute_score(
        as_text(references), as_text({id: [caption] for id, caption in candidates.items()}), verbose=0
    )
    found, per_image = BleuScorer(references).score(candidates)
    assert found == pytest.approx(expected, rel=1e-9)
    for order in range(4):
        values = [image[order] for image in per_image.values()]
        assert values == pytest.approx(expected_per_image[order], rel=1e-9)


@pytest.mark.parametrize(("images", "seed"), [(1, 0), (2, 1), (60, 2), (200, 3)])
def test_cider(images: int, seed: int) -> None:
    from pycocoevalcap.cider.cider import Cider

    candidates, references = corpus(images, seed)
    expected, expected_per_image = Cider().compute_score(
        as_text(references), as_text({id: [caption] for id, caption in candidates.items()})
    )
    found, per_image = CiderScorer(references).score(candidates)
    assert found == pytest.approx(expected, rel=1e-9)
    assert list(per_image.values()) == pytest.approx(list(expected_per_image), rel=1e-9)
