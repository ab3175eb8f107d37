"""Validation: the loss, and the scores of generated captions, on validation images.

Also chooses the tokenizer of the scores, and warns if a score can't choose the best model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from captrain.features.training_images import Images
from captrain.inference.captioner import features_of, write_captions
from captrain.metrics.best import blind_spot
from captrain.metrics.judging import Judgement, judge
from captrain.metrics.own import Metric
from captrain.metrics.tokenizer_choice import AUTO, choose_tokenizer
from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.progress import track
from captrain.records import Caption, Sample
from captrain.training.captions import TokenizedCaptions
from captrain.training.distributed.group import here

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Validation:
    """`scores` by name (validation_loss, bleu_4, cider), and the captions they were computed from.

    `judgement` holds their scores and how varied they are; `cut_off` counts those that the limit of tokens cut off.
    `positions` describes the decoder's positions if they are that limit.
    """

    scores: dict[str, float]
    predictions: list[Caption]
    judgement: Judgement
    cut_off: int = 0
    positions: str | None = None


class Validator:
    """Validates a captioner on the first `limit` validation images, whose features or pixels stay in memory.

    `metric` is the score that decides: METEOR and SPICE are computed only if `metric` asks for them. `tokenizer` splits captions
    into words. `own` are the user's metrics by name.

    Each of several processes takes a part of the images; the first one scores all captions, and tells the others.
    All compute equally many batches, because sharded weights are gathered for each batch: a process with fewer images ends
    with a batch that does not count.
    """

    def __init__(
        self,
        images: Images,
        captions: TokenizedCaptions,
        batch_size: int,
        limit: int | None = None,
        metric: str = "cider",
        tokenizer: str = "auto",
        own: Mapping[str, Metric] | None = None,
    ) -> None:
        self.images = images
        self.metric, self.tokenizer, self.own_metrics = metric, tokenizer, own or {}
        self.captions = captions
        self.batch_size = batch_size
        self.positions = range(len(images))[:limit]
        self.group = here()
        count, rank, size = len(self.positions), self.group.rank, self.group.size
        self.own = self.positions[count * rank // size : count * (rank + 1) // size]
        most = -(-count // size)
        parts = [self.own[start:][:batch_size] for start in range(0, most, batch_size)]
        self.batches = [(part or self.positions[:1], bool(part)) for part in parts]  # and whether it counts

    def __call__(self, captioner: CaptionerModel) -> Validation:
        """Compute loss and scores of the captioner as it is now."""
        with evaluating(captioner):
            scores = {"validation_loss": self._loss(captioner)}
            parts = self.group.gather(self._write(captioner))
        written = [caption for predictions, _ in parts for caption in predictions]
        with self.group.together():
            judged = (
                judge(written, tokenizer=self.tokenizer, asked=(self.metric,), own=self.own_metrics)
                if self.group.is_first
                else None
            )
        judgement = self.group.from_first(judged)
        assert judgement is not None
        scores |= judgement.scores
        room = captioner.room()
        positions = room.told if captioner.decoding.max_new_tokens >= room.most else None
        return Validation(scores, judgement.captions, judgement, sum(cut_off for _, cut_off in parts), positions)

    @torch.no_grad()
    def _loss(self, captioner: CaptionerModel) -> float:
        """Mean loss per learned token, over all captions of all images; without label smoothing, so that runs compare."""
        smoothing, captioner.label_smoothing = captioner.label_smoothing, 0.0
        total = tokens = 0.0
        try:
            for batch, counts in self.batches:
                rows = captioner.pack([self.captions[position] for position in batch]).to(captioner.device)
                output = captioner(
                    features=features_of(captioner, self.images, batch), **rows.to_dict(), num_items_in_batch=1
                )
                if counts:
                    total += float(output.loss)
                    tokens += len(output.targets)
        finally:
            captioner.label_smoothing = smoothing
        totals, learned = zip(*self.group.gather((total, tokens)), strict=True)
        return sum(totals) / max(sum(learned), 1)

    def _write(self, captioner: CaptionerModel) -> tuple[list[Caption], int]:
        """A caption for each of this process's images, and the number that were cut off."""
        predictions, cut_off = [], 0
        longest = min(captioner.decoding.max_new_tokens, captioner.room().most)
        with track("write validation captions", len(self.own)) as advance:
            for batch, counts in self.batches:
                found = list(write_captions(captioner, self.images, batch, self.batch_size))
                for position, written in found if counts else []:
                    sample = self.images.samples[position]
                    predictions.append(Caption.of(sample, written.text, written.score))
                    cut_off += len(written.tokens) >= longest
                    advance(1)
        return predictions, cut_off


def spread_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` evenly spaced items, always the same ones.

    >>> spread_evenly("abcdef", 3)
    ['a', 'c', 'e']
    """
    step = max(1, len(items) // max(count, 1))
    return [items[position] for position in range(0, len(items), step)[:count]]


def decide_tokenizer(samples: Sequence[Sample], asked: str, limit: int | None = None, before: str | None = None) -> str:
    """The tokenizer of a run's scores. For `auto`, that of the run's earlier session, or what suits the references.

    Args:
        samples: the validation samples, of which the first `limit` are used; without any, `auto` is returned.
    """
    if not len(samples):
        return asked
    choice = choose_tokenizer(asked, _references(samples, limit), before)
    if asked == AUTO:
        logger.info("scores count the words of the tokenizer %s (--tokenize auto): %s", choice.tokenizer, choice.why)
    elif choice.note:
        logger.warning(choice.note)
    return choice.tokenizer


def blind_spot_of(samples: Sequence[Sample], metric: str, tokenizer: str, limit: int | None = None) -> str | None:
    """Why a score can't tell epochs apart, judged by the references; None if it can, or if nothing is validated."""
    return blind_spot(_references(samples, limit), metric, tokenizer) if len(samples) else None


def advice(reason: str, patience: int | None) -> str:
    """What it means for the run that a score can't tell epochs apart, and what to do.

    >>> advice("cider is 0", patience=None)[:72]
    'cider is 0: it cannot tell epochs apart, the validation loss does so ins'
    """
    counted = ", and --patience counts by it" if patience else ""
    return (
        f"{reason}: it cannot tell epochs apart, the validation loss does so instead{counted}. To choose by a score hold out "
        "more pictures (--validation-share, --validation-data), or try --tokenize or another --metric; --metric "
        "validation_loss leaves this out"
    )


def _references(samples: Sequence[Sample], limit: int | None = None) -> dict[str, Sequence[str]]:
    """The captions of the first `limit` samples, by id; samples without captions are left out."""
    chosen = (samples[index] for index in range(len(samples))[:limit])
    return {sample.id: sample.captions for sample in chosen if sample.captions}
