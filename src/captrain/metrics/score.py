"""Captions against references: the scores that papers report, for a whole set and for each image.

`score_captions` scores a set once. A `Scorer` prepares the references once and scores any number of candidates against them,
for evaluations and rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from captrain.errors import DataError, UserError, nearest
from captrain.metrics.bleu_rouge_cider import Cider, bleu, rouge_l, tally
from captrain.metrics.document_frequencies import DocumentFrequencies, check_captions, check_pairs, check_references
from captrain.metrics.ngrams import LONGEST, Numbers, References
from captrain.metrics.tokenizer import line_maker, token_lines
from captrain.metrics.tokenizer_choice import Choice, choose_tokenizer
from captrain.version import __version__


@dataclass(frozen=True)
class Scores:
    """Scores of a set of captions. BLEU and ROUGE-L lie in [0, 1], CIDEr in [0, 10] (papers print them times 100).

    `signature` says how they were computed; two numbers with the same signature compare. `notes` are sentences about
    what looks odd and is right.
    """

    scores: dict[str, float]
    images: int
    per_image: dict[str, dict[str, float]]
    signature: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What `scores.json` holds.

        >>> Scores({"bleu_4": 0.5}, 2, {}, "captrain:0.1.0|...").to_dict()
        {'scores': {'bleu_4': 0.5}, 'images': 2, 'signature': 'captrain:0.1.0|...'}
        """
        return {"scores": dict(self.scores), "images": self.images, "signature": self.signature}


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = ("bleu_4", "rouge_l", "cider"),
    *,
    tokenizer: str = "ptb",
    document_frequencies: DocumentFrequencies | None = None,
) -> Scores:
    """Score one caption an image against that image's references, all plain text.

    An empty caption scores 0. CIDEr weighs words by how few images mention them, in the references or in the corpus of
    `document_frequencies`. One BLEU brings all four. The tokenizer `auto` is the one that suits the references'
    script. For many rounds over the same references see `Scorer`.

    Raises `DataError` when ids do not match, an image has no reference or a caption is not text; `UserError` for an
    unknown metric or tokenizer.

    >>> captions = {"1": "a dog runs on grass", "2": "two cats sleep"}
    >>> result = score_captions(captions, {"1": ["A dog runs on grass."], "2": ["Two cats sleep on a sofa."]})
    >>> {name: round(value, 3) for name, value in result.scores.items()}
    {'bleu_1': 0.687, 'bleu_2': 0.687, 'bleu_3': 0.687, 'bleu_4': 0.687, 'rouge_l': 0.814, 'cider': 7.205}
    >>> result.signature.partition("|")[2]
    'tokenizer:ptb|metrics:bleu(closest)+rouge_l(beta=1.2)+cider(d,n=4,sigma=6)|df:references|images:2|references:1'
    """
    check_pairs(predictions, references)
    check_captions(predictions, predictions.values())
    check_references(references)
    choice = choose_tokenizer(tokenizer, references, document_frequencies)
    scorer = Scorer(references, metrics, tokenizer=choice.tokenizer, document_frequencies=document_frequencies)
    lines = token_lines(list(predictions.values()), choice.tokenizer)
    measured = scorer.measure(list(predictions), lines)
    columns = {name: values.tolist() for name, values in measured.each.items()}
    per_image = {id: {name: values[place] for name, values in columns.items()} for place, id in enumerate(predictions)}
    notes = tuple(_notes(scorer, lines, choice))
    return Scores(measured.whole, len(predictions), per_image, scorer.signature, notes)


def _notes(scorer: Scorer, lines: Sequence[str], choice: Choice) -> list[str]:
    notes = [choice.note] if choice.note else []
    if empty := sum(not line for line in lines):
        notes.append(f"{empty} of {len(lines)} captions have no words and score 0")
    if METRICS["cider"] in scorer.computed and len(lines) == 1 and scorer.frequencies is None:
        notes.append(
            "cider is 0 because there is one image only: it weighs words by how few images mention them; "
            "score more images, or give document frequencies of a larger corpus"
        )
    return notes


METRICS = {
    **{f"bleu_{order}": "bleu(closest)" for order in range(1, LONGEST + 1)},
    "rouge_l": "rouge_l(beta=1.2)",
    "cider": "cider(d,n=4,sigma=6)",
}
"""Metric name to what signatures call the computation. One BLEU brings all four."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Scores by name: of the whole set, and one value for each candidate."""

    whole: dict[str, float]
    each: dict[str, Values]


class Scorer:
    """References tokenized, counted and weighed once.

    >>> scorer = Scorer({"1": ["A dog runs fast."], "2": ["Two cats sleep well."]}, ["cider"])
    >>> scorer.score(["1", "1", "2"], ["a dog runs fast", "a dog", "a dog"])["cider"].round(3).tolist()
    [10.0, 3.038, 0.0]
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        metrics: Sequence[str] = ("bleu_4", "rouge_l", "cider"),
        *,
        tokenizer: str = "ptb",
        document_frequencies: DocumentFrequencies | None = None,
    ) -> None:
        """`references`: image id to its captions, plain text. CIDEr takes from `document_frequencies` how rare words are;
        by default from the references themselves, so that a score depends on the whole set and a single image has 0.

        Raises `DataError` if an image has no reference, `UserError` for an unknown metric or tokenizer.
        """
        self.computed = _computed(metrics)
        check_references(references)
        if document_frequencies and document_frequencies.tokenizer != tokenizer:
            raise UserError(
                f"document frequencies '{document_frequencies.name}' are of tokenizer "
                f"'{document_frequencies.tokenizer}', expected '{tokenizer}': count them again with that tokenizer"
            )
        self.tokenizer = tokenizer
        self.frequencies = document_frequencies
        self.images = {id: number for number, id in enumerate(references)}
        self._lines = token_lines([caption for captions in references.values() for caption in captions], tokenizer)
        self._per_image = [len(captions) for captions in references.values()]
        base = document_frequencies.table if document_frequencies else None
        self._references = References(self._per_image, self._lines, base)
        self._cider = self._weigh() if METRICS["cider"] in self.computed else None

    def score(self, ids: Sequence[str], candidates: Sequence[str]) -> dict[str, Values]:
        """Scores of plain-text captions by metric, each (candidates,); an id may come up any number of times.

        Every caption is tokenized by itself, so that its score does not depend on the others. Raises `DataError` for an
        id without references.
        """
        check_captions(ids, candidates)
        return self.measure(ids, list(map(line_maker(self.tokenizer), candidates))).each

    def measure(self, ids: Sequence[str], lines: Sequence[str]) -> Measured:
        """Scores of captions that are token lines already, each and as one set."""
        images = self._numbers(ids)
        lengths, counts = self._references.table.count(lines)
        found = self._references.find(images, counts)
        each: dict[str, Values] = {}
        whole: dict[str, float] = {}
        if METRICS["bleu_1"] in self.computed:
            tallied = tally(images, lengths, counts, found, self._references)
            names = [f"bleu_{order}" for order in range(1, LONGEST + 1)]
            each |= zip(names, bleu(tallied), strict=True)
            whole |= zip(names, bleu(tallied.total())[:, 0].tolist(), strict=True)
        if METRICS["rouge_l"] in self.computed:
            each["rouge_l"] = self._rouge(images, lines)
        if self._cider:
            each["cider"] = self._cider.score(images, lengths, counts, found)
        return Measured({name: whole.get(name, _mean(values)) for name, values in each.items()}, each)

    @property
    def signature(self) -> str:
        """All that a score depends on besides the captions, in one line that people can read and compare."""
        few, many = min(self._per_image, default=0), max(self._per_image, default=0)
        return "|".join(
            [
                f"captrain:{__version__}",
                f"tokenizer:{self.tokenizer}",
                *([f"metrics:{'+'.join(self.computed)}"] if self.computed else []),
                *([f"df:{self.frequencies.label if self.frequencies else 'references'}"] if self._cider else []),
                f"images:{len(self.images)}",
                f"references:{few}" if few == many else f"references:{few}-{many}",
            ]
        )

    def _weigh(self) -> Cider:
        references = self._references
        if self.frequencies is None:
            return Cider(references, references.images_with(), len(self.images))
        seen = []
        for known, moved, size in zip(
            self.frequencies.images_with, references.moved, references.table.sizes(), strict=True
        ):
            seen.append(np.zeros(size, np.int64))
            seen[-1][moved] = known
        return Cider(references, seen, self.frequencies.images)

    def _rouge(self, images: Numbers, lines: Sequence[str]) -> Values:
        first = self._references.first[images].tolist()
        number = self._references.number[images].tolist()
        values = [
            rouge_l(line, self._lines[start : start + count])
            for line, start, count in zip(lines, first, number, strict=True)
        ]
        return np.array(values, np.float64)

    def _numbers(self, ids: Sequence[str]) -> Numbers:
        try:
            return np.array([self.images[id] for id in ids], np.int64)
        except KeyError as error:
            raise DataError(f"no references for id {error}; add some, or leave its captions out") from None


def _computed(metrics: Sequence[str]) -> list[str]:
    """What computes the asked metrics, each once and in the order of `METRICS`."""
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"unknown metric '{name}'.{nearest(name, METRICS)} Known: {', '.join(METRICS)}")
    asked = {METRICS[name] for name in metrics}
    return [how for how in dict.fromkeys(METRICS.values()) if how in asked]


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else 0.0
