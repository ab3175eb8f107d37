"""Words hidden from the text half while it learns: it has to look at the image to go on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from captrain.errors import SettingsError
from captrain.models.captioner import Captioner
from captrain.models.packing import PackedRows
from captrain.settings.schema import TrainingSettings

APART = 0x776F7264  # tells this draw from others of the same seed, epoch and image


class WordDropout:
    """Replaces a share of the tokens that are read; those to be written stay (Bowman et al. 2016).

    What is hidden is decided by seed, epoch and image alone, whoever else is in the batch.
    """

    def __init__(self, share: float, hidden_id: int, seed: int) -> None:
        self.share, self.hidden_id, self.seed = share, hidden_id, seed

    def __call__(self, packed: PackedRows, places: Iterable[tuple[int, int]], given: int) -> None:
        """Hide tokens of packed rows, in place.

        Args:
            places: epoch and image of each row. given: tokens at the start of each caption that are never hidden.
        """
        longest = packed.input_ids.shape[1]
        draws = [np.random.default_rng([APART, self.seed, *place]).random(longest) for place in places]
        hidden = (
            torch.from_numpy(np.stack(draws) < self.share) & (packed.position_ids >= given) & (packed.caption_ids > 0)
        )
        packed.input_ids[hidden] = self.hidden_id


def word_dropout(captioner: Captioner, training: TrainingSettings) -> WordDropout | None:
    """As the settings ask, None where they don't. Hidden words are read as the tokenizer's mask, or its unknown token.

    Raises `SettingsError` for a tokenizer that has neither.
    """
    if not training.word_dropout:
        return None
    found = (captioner.tokenizer.mask_token_id, captioner.tokenizer.unk_token_id)
    hidden = next((int(id) for id in found if id is not None), None)
    if hidden is None:
        raise SettingsError("word_dropout: the tokenizer has neither a mask nor an unknown token; leave it out")
    return WordDropout(training.word_dropout, hidden, training.seed)
