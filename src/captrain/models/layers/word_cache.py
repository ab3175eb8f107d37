"""Keys and values of rows of words that began at different times, for all beams of an image, in one block of memory.

A row has columns for what its caption began with (vectors of the image, start token and prompt), and after them a ring: each step
of the search writes one column for each beam, and all rows write into the same columns. So rows can come and go at any time, and
a step copies nothing but its own keys and values. Beams do not change places: a mask says which columns belong to a beam.

Shape letters: A rows in use, K beams, H heads, L tokens, C columns, W width of a head.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer


class RowTable:
    """Tensors by name whose first dimension is a row. Rows come into chosen places and move, without a copy of the others.

    >>> table = RowTable()
    >>> table.put([0, 1], {"age": torch.tensor([3, 4])})
    >>> table.put([0, 2], {"age": torch.tensor([5, 6])})
    >>> table.move(2, 1)
    >>> table["age"].tolist()
    [5, 6, 6]
    """

    def __init__(self) -> None:
        self._columns: dict[Hashable, Tensor] = {}

    def __getitem__(self, name: Hashable) -> Tensor:
        """A tensor with all of its rows, used or not."""
        return self._columns[name]

    def put(self, places: Sequence[int], rows: Mapping[Any, Tensor], anew: bool = False) -> None:
        """Write rows into places; tensors grow as needed. `anew`: nothing that is there is needed any more."""
        for name, new in rows.items():
            here = self._columns.get(name)
            if here is None or (anew and list(places) == list(range(len(new)))):
                self._columns[name] = new
                continue
            missing = max(places) + 1 - len(here)
            if missing > 0:
                here = self._columns[name] = torch.cat([here, here.new_zeros(missing, *here.shape[1:])])
            here.index_copy_(0, torch.tensor(places, device=here.device), new.to(here.dtype))

    def move(self, source: int, target: int) -> None:
        """Write one row over another."""
        for column in self._columns.values():
            column[target] = column[source]


class WordCache(DynamicCache):
    """The keys and values of words, as a decoder of transformers asks for them in one step of a search.

    Args:
        beams: of each image. ring: the most words that a caption reads before it is finished.
    """

    def __init__(self, beams: int, ring: int) -> None:
        super().__init__()
        self.beams, self.ring = beams, max(1, ring)
        self.rows = self.before = self.steps = 0
        self.table = RowTable()

    def put(self, places: Sequence[int], begun: Cache, anew: bool) -> None:
        """Take in rows that have read what their captions begin with."""
        self.before = begun.get_seq_length()
        if anew:
            self.steps = 0
        rows: dict[Hashable, Tensor] = {}
        for layer, read in enumerate(begun.layers):
            for kind, states in enumerate((read.keys, read.values)):
                room = states.new_zeros(*states.shape[:2], self.before + self.ring * self.beams, states.shape[3])
                room[:, :, : self.before] = states
                rows[layer, kind] = room
        seen = torch.zeros(len(room), self.beams, room.shape[2], dtype=torch.bool, device=room.device)
        seen[..., : self.before] = True
        self.table.put(places, {**rows, "seen": seen}, anew)

    def mask(self) -> Tensor:
        """Which columns the next words of each beam attend to: (A, 1, K, C) bool, themselves included."""
        seen, place = self.table["seen"][: self.rows], self._place
        seen[..., place : place + self.beams] = torch.eye(self.beams, dtype=torch.bool, device=seen.device)
        return seen[:, None, :, : self._used]

    def follow(self, parents: Tensor) -> None:
        """Each beam goes on from one of its image's beams: `parents` (A, K)."""
        seen = self.table["seen"][: self.rows]
        seen.copy_(seen.gather(1, parents[..., None].expand_as(seen)))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep one layer's keys and values (A*K, H, 1, W) of the new words; returns those of all words, (A, H, C, W)."""
        kept = []
        for kind, states in enumerate((key_states, value_states)):
            own = self.table[layer_idx, kind][: self.rows]
            new = states.unflatten(0, (self.rows, self.beams))[:, :, :, 0].transpose(1, 2)
            own[:, :, self._place : self._place + self.beams] = new
            kept.append(own[:, :, : self._used])
        return kept[0], kept[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use."""
        return self._used

    @property
    def _place(self) -> int:
        return self.before + self.steps % self.ring * self.beams

    @property
    def _used(self) -> int:
        return self.before + min(self.steps + 1, self.ring) * self.beams


class Reading:
    """What a decoder reads in a search: the words of all rows, and for cross-attention the keys and values of their images."""

    def __init__(self, beams: int, ring: int) -> None:
        self.words = WordCache(beams, ring)
        self.images = RowTable()
        self._layers = 0

    def put(self, places: Sequence[int], begun: Cache, anew: bool) -> None:
        """Take in rows that have read what their captions begin with, as a plain cache has it."""
        if isinstance(begun, EncoderDecoderCache):
            crossed = begun.cross_attention_cache.layers
            self._layers = len(crossed)
            both = ((read.keys, read.values) for read in crossed)
            rows = {(layer, kind): states for layer, pair in enumerate(both) for kind, states in enumerate(pair)}
            self.images.put(places, rows, anew)
            begun = begun.self_attention_cache
        self.words.put(places, begun, anew)

    def move(self, source: int, target: int) -> None:
        """Write one row over another."""
        self.images.move(source, target)
        self.words.table.move(source, target)

    def cache(self, rows: int) -> Cache:
        """The cache of one step, of the first `rows` rows."""
        self.words.rows = rows
        if not self._layers:
            return self.words
        crossed = DynamicCache()
        crossed.layers = [
            _filled(self.images[layer, 0][:rows], self.images[layer, 1][:rows]) for layer in range(self._layers)
        ]
        return EncoderDecoderCache(self.words, crossed)


def _filled(keys: Tensor, values: Tensor) -> DynamicLayer:
    """A layer that holds these tensors themselves; `update` would copy them."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer
