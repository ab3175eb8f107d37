"""Whether the tokenizer holds the captions that are to be learned: looked at before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from captrain.errors import DataError
from captrain.models.captioner import Captioner
from captrain.models.round_trip import RoundTrip, round_trip, spread_captions
from captrain.records import Sample
from captrain.settings.schema import Settings
from captrain.training.variation import caption_text

logger = logging.getLogger(__name__)


def check_words(captioner: Captioner, samples: Sequence[Sample], settings: Settings) -> RoundTrip:
    """Look at how many words of the captions come back from the tokenizer, and tell what does not.

    Some captions are looked at, evenly spread, as they are learned: after what the settings do to their text.

    Raises `DataError` where more are lost than a training can do with, unless the settings accept that.
    """
    text = caption_text(settings.data)
    found = round_trip(captioner.tokenizer, text.clean(tuple(spread_captions(samples))))
    if found.is_refused and not settings.data.accept_lost_words:
        joined = settings.model.encoder is not None
        cure = "--tokenizer word-pieces, or a folder or hub id" if joined else "--model, or --encoder with --tokenizer"
        raise DataError(
            f"the tokenizer does not keep {found.told}. The model could never write them. Choose a model whose tokenizer "
            f"knows them ({cure}), or go on with --accept-lost-words"
        )
    if found.lost:
        logger.warning("the tokenizer does not keep %s", found.told)
    if found.case:
        logger.info("captions lose their capitals: %s from the tokenizer", found.case_told)
    return found
