"""A cache of keys and values whose rows can start at different times, and whose beams never change places.

The first columns of a row hold what its caption starts with: the vectors of the image, the start token and the prompt. A ring
follows, in which each step of the search has one column for each beam; all rows use the same columns in the same step. So rows
can come and go at any time, and a step copies only its own keys and values. A mask says which columns belong to which beam.

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
    """Named tensors with rows as first dimension. Single rows are written and moved without copying the others.

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
        """A tensor with all its rows, in use or not."""
        return self._columns[name]

    def put(self, places: Sequence[int], rows: Mapping[Any, Tensor], anew: bool = False) -> None:
        """Write rows to places; tensors grow as needed. With `anew` no row that is there is needed any more."""
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
        """Copy one row over another."""
        for column in self._columns.values():
            column[target] = column[source]


class WordCache(DynamicCache):
    """The keys and values of the words, as a decoder of transformers uses a cache in one step of a search.

    Args:
        beams: of each image. ring: the most words of a caption that the decoder reads.
    """

    def __init__(self, beams: int, ring: int) -> None:
        super().__init__()
        self.beams, self.ring = beams, max(1, ring)
        self.rows = self.before = self.steps = 0
        self.table = RowTable()

    def put(self, places: Sequence[int], begun: Cache, anew: bool) -> None:
        """Take in rows that have read what their captions start with."""
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
        """Let each beam continue one of its image's beams, `parents` (A, K)."""
        seen = self.table["seen"][: self.rows]
        seen.copy_(seen.gather(1, parents[..., None].expand_as(seen)))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's keys and values (A*K, H, 1, W) of the new words. Returns those of all words (A, H, C, W)."""
        kept = []
        for kind, states in enumerate((key_states, value_states)):
            own = self.table[layer_idx, kind][: self.rows]
            new = states.unflatten(0, (self.rows, self.beams))[:, :, :, 0].transpose(1, 2)
            own[:, :, self._place : self._place + self.beams] = new
            kept.append(own[:, :, : self._used])
        return kept[0], kept[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of columns in use."""
        return self._used

    @property
    def _place(self) -> int:
        return self.before + self.steps % self.ring * self.beams

    @property
    def _used(self) -> int:
        return self.before + min(self.steps + 1, self.ring) * self.beams


class Reading:
    """All keys and values of a search: those of the words, and for cross-attention those of the images."""

    def __init__(self, beams: int, ring: int) -> None:
        self.words = WordCache(beams, ring)
        self.images = RowTable()
        self._layers = 0

    def put(self, places: Sequence[int], begun: Cache, anew: bool) -> None:
        """Take in rows from a plain cache that has read what their captions start with."""
        if isinstance(begun, EncoderDecoderCache):
            crossed = begun.cross_attention_cache.layers
            self._layers = len(crossed)
            both = ((read.keys, read.values) for read in crossed)
            rows = {(layer, kind): states for layer, pair in enumerate(both) for kind, states in enumerate(pair)}
            self.images.put(places, rows, anew)
            begun = begun.self_attention_cache
        self.words.put(places, begun, anew)

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        self.images.move(source, target)
        self.words.table.move(source, target)

    def cache(self, rows: int) -> Cache:
        """The cache for one step of the first `rows` rows."""
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
