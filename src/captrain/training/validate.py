"""What is measured while training: loss and scores of written captions, on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from captrain.features.images import Images
from captrain.inference.writing import features_of, write_captions
from captrain.metrics.judge import Judgement, judge
from captrain.models.captioner import Captioner
from captrain.progress import track
from captrain.records import Caption
from captrain.training.rows import TokenizedCaptions


@dataclass(frozen=True, slots=True)
class Validation:
    """`scores` by name (validation_loss, bleu_4, cider), and the captions they were computed from.

    `judgement` is what they were judged by.
    """

    scores: dict[str, float]
    predictions: list[Caption]
    judgement: Judgement


class Validator:
    """Validates a captioner on the first `limit` validation images, whose features or pixels are kept."""

    def __init__(self, images: Images, captions: TokenizedCaptions, batch_size: int, limit: int | None = None) -> None:
        self.images = images
        self.captions = captions
        self.batch_size = batch_size
        self.positions = range(len(images))[:limit]

    def __call__(self, captioner: Captioner) -> Validation:
        """Loss and scores now."""
        captioner.eval()
        scores = {"validation_loss": self._loss(captioner)}
        judgement = judge(self._write(captioner))
        scores |= judgement.scores
        return Validation(scores, judgement.captions, judgement)

    @torch.no_grad()
    def _loss(self, captioner: Captioner) -> float:
        """Mean loss a learned token, over all captions of all images; without label smoothing, so that runs compare."""
        smoothing, captioner.label_smoothing = captioner.label_smoothing, 0.0
        total = tokens = 0.0
        try:
            for start in range(0, len(self.positions), self.batch_size):
                batch = self.positions[start : start + self.batch_size]
                rows = captioner.pack([self.captions[position] for position in batch]).to(captioner.device)
                output = captioner(
                    features=features_of(captioner, self.images, batch), **rows.to_dict(), num_items_in_batch=1
                )
                total += float(output.loss)
                tokens += len(output.targets)
        finally:
            captioner.label_smoothing = smoothing
        return total / max(tokens, 1)

    def _write(self, captioner: Captioner) -> list[Caption]:
        """A caption for every validation image."""
        predictions = []
        with track("write validation captions", len(self.positions)) as advance:
            for position, written in write_captions(captioner, self.images, self.positions, self.batch_size):
                sample = self.images.samples[position]
                predictions.append(Caption.of(sample, written.text, written.score))
                advance(1)
        return predictions


def spread(predictions: Sequence[Caption], count: int) -> list[Caption]:
    """`count` of the predictions, evenly spread and always the same ones.

    >>> [caption.id for caption in spread([Caption(name, "") for name in "abcdef"], 3)]
    ['a', 'c', 'e']
    """
    step = max(1, len(predictions) // max(count, 1))
    return list(predictions[::step][:count])
