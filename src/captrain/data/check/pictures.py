"""A look at each picture: whether it can be used, how large it is, and what tells it from others.

What a picture's bytes say beside its pixels: whether EXIF turns it, whether it moves. Nothing is decoded.

Which pictures are the same, and which look the same, among very many.

Two pictures look the same if their 64-bit perceptual hashes differ in at most `NEAR_BITS` bits and their 8 x 8 colour
patches by at most `NEAR_COLOUR` levels in the mean. (Of the 24 million pairs of Flickr8k's 7,000 pictures, the two files
that are the same are the only one; the next differs in 8 bits and 30 levels. Copies of COCO photos at JPEG quality 40,
half or double size are all found, copies with 2 % cut off mostly.) Pairs are found without comparing each with each
(multi-index hashing: Norouzi, Punjani, Fleet 2012) but only if in one of three bands of bits they differ in at most one:
that holds for all that differ in five bits, and for most of those that differ in up to eight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from captrain.data.decode import Size, decode, orientation_of
from captrain.memory_budget import counted

EDGE = 32  # of the grey picture that the hash is taken of
DECODED = 2 * EDGE  # least edge that a JPEG is decoded at: libjpeg's own scaling is rough, and would move the hash
PATCH = 8  # edge of the colour picture that is kept to tell false alarms from true ones

_FREQUENCIES = np.cos(np.pi / EDGE * (np.arange(EDGE) + 0.5) * np.arange(8)[:, None])  # (8, 32): rows of a DCT


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of a picture: 250 bytes, whatever its size.

    content: 64 bits of the hash of its bytes. look: its perceptual hash. patch: uint8 (8 * 8 * 3), the picture in 8 x 8.
    """

    width: int
    height: int
    orientation: int
    animated: bool
    content: int
    look: int
    patch: np.ndarray


@counted()
def look_at(data: bytes, max_pixels: int) -> Look:
    """Decode a picture (a JPEG at an eighth of its size, which reads all of its bytes nevertheless) and sum it up.

    Raises `PictureError` for what training would reject.
    """
    content = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    upright: list[Size] = []  # a JPEG's size before it is scaled down

    def enough(size: Size) -> Size:
        upright.append(size)
        return DECODED, DECODED

    image = decode(data, max_pixels, enough)
    width, height = upright[0] if upright else image.size
    patch = np.asarray(image.resize((PATCH, PATCH), Image.Resampling.BOX)).reshape(-1)
    return Look(width, height, orientation(data), is_animated(data), content, perceptual_hash(image), patch)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay much the same when a picture is scaled, recompressed or made a little brighter.

    The signs, around their median, of the 8 x 8 lowest frequencies of the grey picture at 32 x 32 ("pHash", Zauner
    2010; as imagehash.phash).
    """
    grey = np.asarray(image.convert("L").resize((EDGE, EDGE), Image.Resampling.BOX), dtype=np.float64)
    low = (_FREQUENCIES @ grey @ _FREQUENCIES.T).reshape(-1)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_SCAN, _APP1 = 0xDA, 0xE1  # of a JPEG: pixels from here on; the segment that may hold EXIF


def orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP, 1 to 8; 1 (upright) where nothing says otherwise."""
    return orientation_of(next(_exif_blocks(data), b""))


def is_animated(data: bytes) -> bool:
    """Whether a GIF, PNG or WebP has more than one frame."""
    if data.startswith(b"GIF8"):
        return _frames_of_gif(data, 2) > 1
    if data.startswith(_PNG):
        return any(kind == b"acTL" for kind, _ in _png_chunks(data))
    return _is_webp(data) and data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)


def _exif_blocks(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\xff\xd8"):
        yield from (body for kind, body in _jpeg_segments(data) if kind == _APP1 and body.startswith(_EXIF))
    elif data.startswith(_PNG):
        yield from (body for kind, body in _png_chunks(data) if kind == b"eXIf")
    elif _is_webp(data):
        yield from (body for kind, body in _riff_chunks(data) if kind == b"EXIF")


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment before the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        if marker == _SCAN:
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _frames_of_gif(data: bytes, enough: int) -> int:
    """Frames of a GIF, counted up to `enough`: blocks are walked over, nothing is unpacked. A broken one ends there."""
    if len(data) < 13:
        return 0
    at = 13 + _palette(data[10])
    frames = 0
    while at < len(data) and frames < enough:
        if data[at] == 0x21:  # an extension: its label, then blocks
            at = _after_blocks(data, at + 2)
        elif data[at] == 0x2C and at + 10 <= len(data):  # a frame: ten bytes, a palette, the code size, then blocks
            frames += 1
            at = _after_blocks(data, at + 10 + _palette(data[at + 9]) + 1)
        else:
            break
    return frames


def _palette(flags: int) -> int:
    """Bytes of the palette that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


NEAR_BITS = 8
NEAR_COLOUR = 8.0  # of 255
FLAT = 2.0  # deviation of a patch below which a picture is one colour, about which a hash says nothing
BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width
AT_ONCE = 1 << 21  # pairs compared at a time


def same_groups(keys: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
    """Groups of at least two pictures with equal keys, each in ascending order.

    >>> same_groups(np.array([7, 8, 7], dtype=np.uint64), np.array([0, 4, 5]))
    [array([0, 5])]
    """
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1
    return [np.sort(pictures[group]) for group in np.split(order, starts) if len(group) > 1]


def near_groups(looks: np.ndarray, patches: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
    """Groups of pictures of which each looks like another of its group.

    Args:
        looks: uint64 (n,), perceptual hashes.
        patches: uint8 (n, d), what is compared for pictures with close hashes.
        pictures: int64 (n,), what the pictures are called in the result.
    """
    structured = np.flatnonzero(_deviation(patches) >= FLAT)
    looks, patches, pictures = looks[structured], patches[structured], pictures[structured]
    groups = _Groups(len(looks))
    for left, right in _candidates(looks):
        close = _distance(patches, left, right) <= NEAR_COLOUR
        groups.join(left[close], right[close])
    return same_groups(groups.labels(), pictures)


def _candidates(looks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs with close hashes. Of those with equal hashes only neighbours, so that a million equal ones stay few pairs."""
    order = np.argsort(looks, kind="stable")
    ordered = looks[order]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, bool)
    yield order[:-1][~fresh[1:]], order[1:][~fresh[1:]]
    unique, first = ordered[fresh], order[fresh]
    for start, width in BANDS:
        for left, right in _sharing_band(unique, start, width):
            yield first[left], first[right]


def _sharing_band(hashes: np.ndarray, start: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of close hashes whose bits from `start` on differ in at most one place."""
    band = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    for flip in (0, *(1 << bit for bit in range(width))):
        wanted = ordered ^ np.uint64(flip)
        begin, end = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
        # Each pair once: from its lower place on. With no bit flipped, a place also finds itself.
        begin = np.maximum(begin, np.arange(1, len(order) + 1))
        for left, right in _expanded(begin, np.maximum(end, begin)):
            one, other = order[left], order[right]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= NEAR_BITS
            yield one[close], other[close]


def _expanded(begin: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j) for each i and each j in begin[i] .. end[i] - 1, a bounded number at a time."""
    sizes = end - begin
    places = np.flatnonzero(sizes)
    totals = np.cumsum(sizes[places])
    at = done = 0
    while at < len(places):
        stop = max(at + 1, int(np.searchsorted(totals, done + AT_ONCE, "right")))
        left = np.repeat(places[at:stop], sizes[places[at:stop]])
        offsets = np.arange(len(left)) - np.repeat(
            totals[at:stop] - sizes[places[at:stop]] - done, sizes[places[at:stop]]
        )
        yield left, begin[left] + offsets
        at, done = stop, int(totals[stop - 1])


def _distance(patches: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean absolute difference of pairs of patches."""
    return np.abs(patches[left].astype(np.int16) - patches[right].astype(np.int16)).mean(axis=1)


def _deviation(patches: np.ndarray) -> np.ndarray:
    """How much each patch varies from cell to cell; patches in slices, for they become floats."""
    parts = [
        patches[at : at + 65536].reshape(-1, 64, 3).std(axis=1).max(axis=1) for at in range(0, len(patches), 65536)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


class _Groups:
    """Things that are joined pair by pair (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self.parents = np.arange(count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            a, b = self._root(one), self._root(other)
            self.parents[max(a, b)] = min(a, b)

    def labels(self) -> np.ndarray:
        """The same number for all things of a group: roots have smaller numbers, so one pass upwards finds them."""
        labels = self.parents.copy()
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
        return labels

    def _root(self, thing: int) -> int:
        parents = self.parents
        while parents[thing] != thing:
            parents[thing] = parents[parents[thing]]
            thing = int(parents[thing])
        return thing
