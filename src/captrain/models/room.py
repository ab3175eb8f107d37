"""How many tokens a caption can have: what the decoder's positions leave behind the image, the start token and the prompt."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from captrain.errors import SettingsError
from captrain.models.decoding import Decoding

if TYPE_CHECKING:
    from captrain.models.captioner import Captioner

logger = logging.getLogger(__name__)

LEAST = 2
"""Tokens of the shortest caption: a word, and the end."""


@dataclass(frozen=True, slots=True)
class Room:
    """Positions of a decoder, and how many of them the image takes, and start and prompt. The rest is for the caption.

    >>> room = Room("blip", positions=512, image=0, before=4)
    >>> room.most
    508
    """

    family: str
    positions: int
    image: int
    before: int

    @classmethod
    def of(cls, captioner: Captioner) -> Room:
        """That of a captioner with its prompt. Raises `SettingsError` where the prompt leaves none."""
        image, before = captioner.image_positions, 1 + len(captioner.prompt_ids())
        room = cls(captioner.family, captioner.max_positions + image, image, before)
        if room.most < LEAST:
            raise SettingsError(
                f"prompt: found {before - 1} tokens, which leave no room for a caption; {room.told}; "
                f"expected at most {before - 1 + room.most - LEAST}"
            )
        return room

    @property
    def most(self) -> int:
        """Most tokens of a caption, its end token included."""
        return self.positions - self.image - self.before

    @property
    def told(self) -> str:
        """Where the limit comes from, in words.

        >>> Room("prefix", 64, 9, 1).told
        'the decoder of this prefix captioner holds 64 positions, of which the image takes 9, start and prompt 1'
        """
        taken = f"of which {f'the image takes {self.image}, ' if self.image else ''}start and prompt"
        return (
            f"the decoder of this {self.family} captioner holds {self.positions} positions, "
            f"{taken}{'' if self.image else ' take'} {self.before}"
        )

    def require(self, name: str, tokens: int) -> None:
        """Raise `SettingsError` unless captions of so many tokens fit, as the setting `name` asks for."""
        if tokens > self.most:
            raise SettingsError(f"{name}: found {tokens}, but {self.told}; expected at most {self.most}")

    def fitted(self, decoding: Decoding, asked: Collection[str] = ()) -> Decoding:
        """A way of writing whose captions fit.

        Raises `SettingsError` where a length among the settings that were `asked` for does not; another one, which a default
        or another model has left, is lowered, and that is told.
        """
        for name in ("max_new_tokens", "min_new_tokens"):
            if name in asked or name == "min_new_tokens":
                self.require(name, getattr(decoding, name))
        if decoding.max_new_tokens <= self.most:
            return decoding
        logger.warning("captions end at %d tokens, not at %d: %s", self.most, decoding.max_new_tokens, self.told)
        return replace(decoding, max_new_tokens=self.most)
