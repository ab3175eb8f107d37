"""Whether tokenizer and decoder hold the captions that are to be learned: looked at before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from captrain.errors import DataError, SettingsError
from captrain.models.captioner import Captioner
from captrain.models.room import Room
from captrain.models.round_trip import RoundTrip, round_trip, spread_captions
from captrain.records import Sample
from captrain.settings.schema import Settings
from captrain.settings.schema.conflicts import asked
from captrain.training.variation import caption_text

logger = logging.getLogger(__name__)


def check_words(captioner: Captioner, samples: Sequence[Sample], settings: Settings) -> RoundTrip:
    """Look at how many words of the captions come back from the tokenizer, and tell what does not.

    Some captions are looked at, evenly spread, as they are learned: after what the settings do to their text.

    Raises `DataError` where more are lost than a training can do with, unless the settings accept that; `SettingsError` where
    captions are longer than the decoder's positions, and the settings ask for their whole length.
    """
    captions = caption_text(settings.data).clean(tuple(spread_captions(samples)))
    _check_lengths(captioner, captions, settings)
    found = round_trip(captioner.tokenizer, captions)
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


def _check_lengths(captioner: Captioner, captions: list[str], settings: Settings) -> None:
    """Hold a limit of tokens that was asked for against the decoder's positions. Where no caption needs more it does no harm."""
    room, asked_for = Room.of(captioner), settings.data.max_tokens
    if not asked(settings.data, "max_tokens") or asked_for <= room.most or not captions:
        return
    ids = captioner.tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"]
    longest = 1 + max(len(caption) for caption in ids)
    if longest > room.most:
        raise SettingsError(
            f"max_tokens: found {asked_for}, and captions of up to {longest} tokens, but {room.told}; expected at most "
            f"{room.most}, which cuts longer captions and counts them"
        )
    logger.warning("max_tokens: found %d, but %s: there is room for %d", asked_for, room.told, room.most)
