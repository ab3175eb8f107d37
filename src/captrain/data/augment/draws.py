"""Random numbers that hang on the seed, the epoch and the sample alone: not on workers, order or batch size."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Use = Literal["picture", "caption"]


def generator(seed: int, draw: int, key: int, use: Use = "picture") -> np.random.Generator:
    """The random numbers of one sample in one draw.

    `draw` is an epoch's or a view's number, `key` the sample's `captrain.data.samples.key_of`. Pictures and captions get
    numbers of their own: with the same ones, the captions that are dropped would be those of the closest crops.

    >>> generator(0, 1, 7).random() == generator(0, 1, 7).random()
    True
    >>> len({generator(0, 1, 7, use).random() for use in ("picture", "caption")})
    2
    """
    place = (int(draw), int(key), get_args(Use).index(use))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed) % 2**64, spawn_key=place)))
