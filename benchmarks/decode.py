"""How fast pictures are decoded: captrain against plain Pillow, on pictures made for it (noise over gradients).

    python benchmarks/decode.py [--rounds 3] [--small 400] [--large 4]

    (a) 640x480 JPEGs, all of each read and summed up as `captrain data check` does, on two threads, against Pillow's
        open and load in two processes: at least 0.9
    (b) 12-megapixel JPEGs of 3.4 MB to 384 x 384 by `captrain.data.images.prepare`, against open, convert and resize: exact,
        which gives the same pixels, at least 1; fast (`--decode fast`, other pixels) at least 4 is wanted. The rest is
        Huffman decoding, which no scale saves; so the same with 1.5 MB stands beside it
    (c) 640x480 JPEGs to 384 x 384, where both do the same, and to 224 x 224: at least 1
    (d) as (a), on two processes: whether processes would be better than threads

The ways take turns for some rounds and the best counts, so that whatever else runs on the machine slows all of them alike.
(b) and (c) are pictures a second of processor time, (a) and (d) of the clock.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import cycle, islice

import numpy as np
import PIL
from machine import cpu_name
from PIL import Image

from captrain.data.check.pictures import look_at
from captrain.data.images import MAX_PIXELS, ImageSpec, prepare

EXACT = ImageSpec(384, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FAST = replace(EXACT, decode="fast")
SMALL_EXACT, SMALL_FAST = replace(EXACT, height=224, width=224), replace(FAST, height=224, width=224)
DIFFERENT = 8  # pictures; they are used again and again
BATCH = 20
WORKERS = 2

Work = Callable[[list[bytes]], None]


def plain_load(pictures: list[bytes]) -> None:
    """What Pillow alone does to decode."""
    for data in pictures:
        Image.open(BytesIO(data)).load()


def check(pictures: list[bytes]) -> None:
    """What `captrain data check` does to each picture."""
    for data in pictures:
        look_at(data, MAX_PIXELS)


def plain_resize(pictures: list[bytes], edge: int = 384) -> None:
    """What the usual image processors do."""
    for data in pictures:
        np.array(Image.open(BytesIO(data)).convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC))


def captrain_resize(spec: ImageSpec, pictures: list[bytes]) -> None:
    """What training and captioning do."""
    for data in pictures:
        prepare(data, spec)


def photos(width: int, height: int, count: int, noise: float = 10, seed: int = 0) -> list[bytes]:
    """`count` JPEGs, of which a few are different."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width].astype(np.float32)
    made = []
    for _ in range(min(DIFFERENT, count)):
        slopes = random.uniform(0, 200, (3, 2)) / (height, width)
        channels = [30 + down * slope[0] + across * slope[1] for slope in slopes]
        grain = random.normal(0, noise, (height, width, 1)).astype(np.float32)
        pixels = (np.stack(channels, axis=-1) + grain).clip(0, 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return list(islice(cycle(made), count))


def rate(work: Work, pictures: list[bytes], pool: Executor | None = None) -> float:
    """Pictures a second, here or on a pool that is warm."""
    if pool is None:
        start = time.process_time()
        work(pictures)
        return len(pictures) / (time.process_time() - start)
    list(pool.map(work, [pictures[:1]] * 8))
    batches = [pictures[at : at + BATCH] for at in range(0, len(pictures), BATCH)]
    start = time.perf_counter()
    list(pool.map(work, batches))
    return len(pictures) / (time.perf_counter() - start)


def main() -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", type=int, default=400, help="pictures of 640x480")
    parser.add_argument("--large", type=int, default=4, help="pictures of 4000x3000")
    options = parser.parse_args()
    small, large = photos(640, 480, options.small), photos(4000, 3000, options.large)
    light = photos(4000, 3000, options.large, noise=4)
    best: dict[str, float] = {}
    with ProcessPoolExecutor(WORKERS) as processes, ThreadPoolExecutor(WORKERS) as threads:
        for _ in range(options.rounds):
            found = {
                "load, 2 processes": rate(plain_load, small, processes),
                "check, 2 threads": rate(check, small, threads),
                "check, 2 processes": rate(check, small, processes),
                "large, plain": rate(plain_resize, large),
                "large, exact": rate(partial(captrain_resize, EXACT), large),
                "large, fast": rate(partial(captrain_resize, FAST), large),
                "light, plain": rate(plain_resize, light),
                "light, exact": rate(partial(captrain_resize, EXACT), light),
                "light, fast": rate(partial(captrain_resize, FAST), light),
                "small, plain": rate(plain_resize, small),
                "small, exact": rate(partial(captrain_resize, EXACT), small),
                "smaller, plain": rate(partial(plain_resize, edge=224), small),
                "smaller, exact": rate(partial(captrain_resize, SMALL_EXACT), small),
                "smaller, fast": rate(partial(captrain_resize, SMALL_FAST), small),
            }
            best = {way: max(speed, best.get(way, 0.0)) for way, speed in found.items()}
    show(best)


def show(best: dict[str, float]) -> None:
    """The machine, then a line a comparison: pictures a second of both, and the ratio."""
    print(f"{cpu_name()}, {os.cpu_count()} cores, Pillow {PIL.__version__}, pictures a second")
    for title, ours, theirs in (
        ("(a) check 640x480, 2 threads, against Pillow's load in 2 processes", "check, 2 threads", "load, 2 processes"),
        ("(b) 4000x3000 of 3.4 MB to 384, exact", "large, exact", "large, plain"),
        ("    4000x3000 of 3.4 MB to 384, fast", "large, fast", "large, plain"),
        ("    4000x3000 of 1.5 MB to 384, exact", "light, exact", "light, plain"),
        ("    4000x3000 of 1.5 MB to 384, fast", "light, fast", "light, plain"),
        ("(c) 640x480 to 384", "small, exact", "small, plain"),
        ("    640x480 to 224, exact", "smaller, exact", "smaller, plain"),
        ("    640x480 to 224, fast", "smaller, fast", "smaller, plain"),
        ("(d) as (a), check in 2 processes", "check, 2 processes", "load, 2 processes"),
    ):
        print(f"{title:68} {best[ours]:8.1f} {best[theirs]:8.1f} {best[ours] / best[theirs]:6.2f}")


if __name__ == "__main__":
    main()
