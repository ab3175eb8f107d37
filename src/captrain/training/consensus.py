"""How much each caption counts: what most describers of a picture say is learned more than what one of them says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.scorer import Scorer

LEAST = 0.1
"""Added to each agreement (0 to 10), so that a caption that is like no other still counts."""


class CaptionWeights:
    """For each image the weights of its captions; their mean is 1, so that all images count alike.

    A caption's weight is its agreement with the image's other captions, CIDEr-D, to a power: the weighted cross entropy of
    Phan et al. 2017 (consensus-based sequence training), here by image. The only caption of an image has the weight 1.

    >>> captions = [["a dog runs", "a dog runs fast", "holiday"], ["two cats", "two small cats"], ["a tree"]]
    >>> weights = CaptionWeights(captions, power=1.0)
    >>> [[round(float(weight), 2) for weight in weights[image]] for image in range(3)]
    [[1.48, 1.48, 0.05], [1.0, 1.0], [1.0]]
    """

    def __init__(self, captions: Iterable[Sequence[str]], power: float) -> None:
        """`captions`: of each image. `power`: 0 weighs all alike, more than 1 tells them apart more sharply."""
        listed = [list(texts) for texts in captions]
        agreement = _agreement(listed)
        counts = np.array([len(texts) for texts in listed], dtype=np.int64)
        self.ends = np.cumsum(np.append(0, counts))
        image = np.repeat(np.arange(len(counts)), counts)
        raw = (agreement + LEAST) ** power
        totals = np.bincount(image, raw, minlength=len(counts))
        self.weights = (raw * counts[image] / totals[image]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, image: int) -> np.ndarray:
        """The weights of an image's captions, in their order (captions,)."""
        return self.weights[self.ends[image] : self.ends[image + 1]]


def _agreement(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each caption against the others of its image (captions,); 0 where there is no other.

    Scored against all of its image, a caption has a share that is its likeness with itself (10, less if it is shorter than
    four words): that is taken out again.
    """
    several = {str(image): texts for image, texts in enumerate(captions) if len(texts) > 1}
    found = np.zeros(sum(len(texts) for texts in captions))
    if not several:
        return found
    rarity = DocumentFrequencies.of(several)
    ids = [image for image, texts in several.items() for _ in texts]
    each = [text for texts in several.values() for text in texts]
    with_all = _scores(several, ids, each, rarity)
    alone = {str(number): [text] for number, text in enumerate(each)}
    with_itself = _scores(alone, list(alone), each, rarity)
    number = np.concatenate([np.full(len(texts), len(texts)) for texts in several.values()])
    has_others = np.concatenate([np.full(len(texts), len(texts) > 1) for texts in captions])
    found[has_others] = np.maximum(with_all * number - with_itself, 0) / (number - 1)
    return found


def _scores(
    references: Mapping[str, Sequence[str]], ids: Sequence[str], texts: Sequence[str], rarity: DocumentFrequencies
) -> np.ndarray:
    """CIDEr-D of each text."""
    return Scorer(references, ["cider"], document_frequencies=rarity).score(ids, texts)["cider"]
