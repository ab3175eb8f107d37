"""Vectors in 8 bits: a whole number from -127 to 127 for each number, and one scale for each vector.

`vector = values * scale`, with `scale = max|vector| / 127`. Scales are rounded to 17 bits: a value has 7, so that their product
fits the 24 bits of fp32. It is the same number on every machine, and quantising it again gives the same value and scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 127
SCALE_BITS = 17
SCALE_BYTES = 4  # fp32
_FP32 = np.finfo(np.float32)
SMALLEST_SCALE = float(_FP32.tiny)
"""Of vectors of zeros too. Smaller scales would not have 17 bits in fp32."""
LARGEST_SCALE = float(np.ldexp(np.floor(np.ldexp(float(_FP32.max) / MOST, SCALE_BITS - 122)), 122 - SCALE_BITS))
"""The largest with which 127 still is a number of fp32."""


@dataclass(frozen=True, slots=True)
class Int8Vectors:
    """Vectors of images: `values` (images, N, D) int8 and `scales` (images, N) float32.

    >>> vectors = quantise(np.array([[[254.0, -100.0], [0.0, 0.0]]]))
    >>> vectors.values.tolist(), vectors.scales[0, 0].item()
    ([[[127, -50], [0, 0]]], 2.0)
    >>> np.asarray(vectors).tolist()
    [[[254.0, -100.0], [0.0, 0.0]]]
    """

    values: np.ndarray
    scales: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, N, D)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, images: slice) -> Int8Vectors:
        """The vectors of some images, on the same memory."""
        return Int8Vectors(self.values[images], self.scales[images])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All vectors as fp32, or as numbers of `dtype`. Raises `ValueError` where no copy is wanted."""
        if copy is False:
            raise ValueError("int8 vectors are multiplied by their scales, which makes a copy")
        made = self.values * self.scales[..., None]
        return made if dtype is None else made.astype(dtype)

    def write_row(self, image: int, out: np.ndarray) -> None:
        """The vectors of one image into `out` (N, D), fp32: nothing is made in between."""
        np.copyto(out, self.values[image])
        out *= self.scales[image][:, None]


StoredVectors = np.ndarray | Int8Vectors
"""Vectors as a shard holds them (images, N, D): numbers, bf16 as its bits, or int8 with scales."""


def quantise(vectors: np.ndarray) -> Int8Vectors:
    """Vectors (images, N, D) in 8 bits: each number to the nearest step of its vector's scale, halves to the even step.

    The error of a number is at most half the scale of its vector. Numbers must be finite.
    """
    largest = np.abs(vectors).max(-1, initial=0.0).astype(np.float64)
    mantissa, exponent = np.frexp(largest / MOST)
    rounded = np.ldexp(np.rint(np.ldexp(mantissa, SCALE_BITS)), exponent - SCALE_BITS)
    scales = np.clip(rounded, SMALLEST_SCALE, LARGEST_SCALE)
    values = np.empty(vectors.shape, np.int8)
    for made, vector, scale in zip(values, vectors, scales, strict=True):  # an image at a time, in the CPU's cache
        exact = vector / scale[:, None]  # fp64: in fp32 what lies beside a half would be rounded to it first
        np.copyto(made, np.rint(exact, out=exact), casting="unsafe")
    return Int8Vectors(values, scales.astype(np.float32))
