"""A search whose pictures come and go: finished captions leave, and new pictures take their places.

Shape letters: I images that come in, A rows (one for each image), K beams, P tokens that every caption begins with, C vectors of
an image, H width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache

from captrain.models.choosing import NONE, Beams, Greedy, Rules, State
from captrain.models.layers.word_cache import Reading, RowTable


class Reads(Protocol):
    """What a search needs of a captioner."""

    def begin(self, context: Tensor) -> Cache:
        """A cache for words that follow images with this context."""

    def decode(self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Hidden states of words."""

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finished caption: its picture's number, token ids without the end token, mean log-probability a token (end included)."""

    number: int
    tokens: list[int]
    score: float


class Search:
    """Captions that are being written.

    `admit` takes pictures in, `step` adds a word to each caption; both return those that are finished. A step that runs out of
    memory can be tried again, with fewer rows after `give_up`.

    Args:
        model: whose decoder reads. rules: how words are chosen. prompt: (P) ids that every caption begins with.
    """

    def __init__(self, model: Reads, rules: Rules, prompt: Sequence[int]) -> None:
        self.model, self.rules, self.prompt = model, rules, list(prompt)
        self.choice: Greedy | Beams = Greedy(rules) if rules.beams == 1 else Beams(rules)
        self.reading = Reading(rules.beams, rules.most - 1)
        self.table = RowTable()
        self.numbers: list[int] = []
        """Of the pictures in the rows."""
        self._holes: list[int] = []
        self._names = (*self.choice.fresh(1, torch.device("cpu")),)

    @property
    def rows(self) -> int:
        """Captions that are being written."""
        return len(self.numbers) - len(self._holes)

    def admit(self, numbers: Sequence[int], context: Tensor) -> list[Found]:
        """Take in pictures by what the decoder attends to, (I, C, H), and choose their first words."""
        cache = self.model.begin(context)
        images, length, before = len(context), len(self.prompt), cache.get_seq_length()
        ids = torch.tensor([self.prompt] * images, device=context.device)
        positions = torch.arange(length, device=context.device).expand(images, -1)
        mask = torch.ones(length, before + length, dtype=torch.bool, device=context.device).tril(before)
        hidden = self.model.decode(context, ids, positions, mask.expand(images, 1, -1, -1), cache)
        logits = self.model.head(hidden[:, -1]).float()
        state = self.choice.fresh(images, context.device)
        _, finished = self.choice.choose(state, logits.repeat_interleave(self.rules.beams, 0))
        done = self._found([*numbers], state, finished)
        going, rest = (~finished).nonzero()[:, 0], context[:, -1:].clone()
        if len(going) == images:
            self._place([*numbers], cache, {**state, "context": rest})
        elif len(going):
            chosen = {name: part[going] for name, part in {**state, "context": rest}.items()}
            cache.batch_select_indices(going)
            self._place([numbers[row] for row in going.tolist()], cache, chosen)
        return done

    def step(self) -> list[Found]:
        """One more word for each caption."""
        self._close_holes()
        rows, beams = len(self.numbers), self.rules.beams
        cache = self.reading.cache(rows)
        state = {name: self.table[name][:rows] for name in self._names}
        ids = self.choice.last(state).reshape(-1, 1)
        positions = (state["age"] + (len(self.prompt) - 1)).repeat_interleave(beams)[:, None]
        context = self.table["context"][:rows].repeat_interleave(beams, 0)
        hidden = self.model.decode(context, ids, positions, self.reading.words.mask(), cache)
        parents, finished = self.choice.choose(state, self.model.head(hidden[:, -1]).float())
        if parents is not None:
            self.reading.words.follow(parents)
        self.reading.words.steps += 1
        done = self._found(self.numbers, state, finished)
        self._holes = finished.nonzero()[:, 0].tolist()
        return done

    def give_up(self, rows: int) -> list[int]:
        """Put the last rows out again, unfinished; returns the numbers of their pictures."""
        self._close_holes()
        kept = max(0, len(self.numbers) - rows)
        given_up, self.numbers = self.numbers[kept:], self.numbers[:kept]
        return given_up

    def _place(self, numbers: list[int], cache: Cache, state: State) -> None:
        """Give rows to new pictures, those of finished captions first."""
        anew = self.rows == 0
        taken = 0 if anew else len(self.numbers)
        holes = [] if anew else self._holes[: len(numbers)]
        places = [*holes, *range(taken, taken + len(numbers) - len(holes))]
        self.reading.put(places, cache, anew)
        self.table.put(places, state, anew)
        if anew:
            self.numbers, self._holes = [], []
        for place, number in zip(places, numbers, strict=True):
            self.numbers[place : place + 1] = [number]
        self._holes = self._holes[len(holes) :]

    def _close_holes(self) -> None:
        """Move the last rows to where captions have left."""
        holes = sorted(self._holes)
        while holes:
            last = len(self.numbers) - 1
            if holes[-1] == last:
                holes.pop()
            else:
                place = holes.pop(0)
                self.reading.move(last, place)
                self.table.move(last, place)
                self.numbers[place] = self.numbers[last]
            self.numbers.pop()
        self._holes = []

    def _found(self, numbers: Sequence[int], state: State, finished: Tensor) -> list[Found]:
        """The finished captions."""
        rows = finished.nonzero()[:, 0]
        if not len(rows):
            return []
        captions, totals = self.choice.found({name: part[rows] for name, part in state.items() if name in self._names})
        found = []
        for row, written, total in zip(rows.tolist(), captions, totals, strict=True):
            chosen = [token for token in written if token != NONE]
            words = chosen[:-1] if chosen[-1] == self.rules.end else chosen
            found.append(Found(numbers[row], words, total / len(chosen)))
        return found
