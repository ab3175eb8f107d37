"""An alarm for captioners that stopped saying anything: one caption for all pictures, or captions that never end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from captrain.records import Caption

FEWEST = 10  # captions; of fewer, some may be alike by chance
ALIKE = 0.8  # share of pictures with one and the same caption
DISTINCT = 0.02  # different captions over pictures
ENDLESS = 0.9  # share of captions that the limit of tokens cut off

HELP = (
    "What usually helps: a lower --learning-rate, --label-smoothing 0.1, a look at the data (captrain data check), "
    "the --prompt that the model was trained with"
)
HELP_ENDLESS = (
    "If your captions are longer than that, {longer}; if not, what usually helps: "
    "a lower --learning-rate, more epochs, captions that --max-tokens does not cut, a look at the data (captrain data check)"
)


def collapse(written: Sequence[Caption], cut_off: int, positions: str | None = None) -> str | None:
    """What is wrong with written captions as a whole, and what usually helps; None while they look alive.

    Args:
        written: a caption for each validation picture, with its references. cut_off: how many of them never ended.
        positions: what there is to say of the decoder's positions, where these are what cut them off.

    Captions may well be alike where the references are: then there is no alarm. Ten captions are the fewest to judge by.

    >>> dogs = [Caption(str(number), "a dog", references=(f"a dog with {number} bones",)) for number in range(20)]
    >>> collapse(dogs, cut_off=0)[:58]
    "captions collapse: 20 of 20 pictures get the caption 'a do"
    >>> collapse(dogs[:5], cut_off=0)
    """
    count = len(written)
    if count < FEWEST:
        return None
    if cut_off >= ENDLESS * count:
        longer = "take a model with more positions" if positions else "raise --max-new-tokens"
        limit = f"the end of the decoder's positions ({positions})" if positions else "--max-new-tokens"
        return (
            f"captions do not end: {cut_off} of {count} were cut off at {limit}. {HELP_ENDLESS.format(longer=longer)}"
        )
    texts = Counter(caption.text for caption in written)
    known = Counter(caption.references[0] for caption in written if caption.references)
    [(commonest, often)] = texts.most_common(1)
    if often >= ALIKE * count and _share(known) < often / count / 2:
        said = "no words at all" if not commonest else f"the caption '{commonest}'"
        return f"captions collapse: {often} of {count} pictures get {said}. {HELP}"
    if len(texts) <= DISTINCT * count and len(known) > 5 * len(texts):
        return f"captions collapse: {count} pictures get only {len(texts)} different captions. {HELP}"
    return None


def _share(known: Counter[str]) -> float:
    """The share of the commonest among texts; 0 where there are none."""
    return max(known.values(), default=0) / max(known.total(), 1)
