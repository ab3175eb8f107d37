"""Captions against references: the scores that papers report, for a whole set and for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.scorer import METRICS as METRICS
from captrain.metrics.scorer import Scorer
from captrain.metrics.suited import Choice, choose_tokenizer
from captrain.metrics.texts import check_captions, check_pairs, check_references
from captrain.metrics.tokenizer import token_lines


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

    Raises `DataError` when ids do not match, an image has no reference or a caption is no text; `UserError` for an
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
