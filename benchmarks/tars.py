"""Samples a second out of tar shards: webdataset against captrain's stream, each image's bytes and caption, in order.

    python benchmarks/tars.py [--samples 5000] [--shards 5] [--rounds 5]

Shards of random 30 to 60 KB "pictures" with a text each are written to a temporary folder and read once by both, so that the
system holds them in memory; then the ways take turns for some rounds, and the median counts. `index` reads headers and captions
alone, as `captrain train` does before it begins.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset
from machine import cpu_name

from captrain.data.readers.webdataset import read
from captrain.data.shards.stream import IN_ORDER, stream_samples
from captrain.records import Rejects

SIZES = range(30_000, 60_000)  # bytes of a picture


def main() -> None:
    """Write the shards, run the ways in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{cpu_name()}, Python {platform.python_version()}, webdataset {webdataset.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), options.samples, options.shards)
        seconds = measure(paths, options.samples, options.rounds)
    base = seconds["webdataset"]
    print(f"{'':12}{'samples/s':>12}{'times webdataset':>18}")
    for way, spent in seconds.items():
        print(f"{way:12}{options.samples / spent:12.0f}{base / spent:18.2f}")


def measure(paths: list[str], samples: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way. Raises if a way misses a sample or a byte."""
    ways: dict[str, Callable[[list[str]], tuple[int, int]]] = {
        "webdataset": with_webdataset,
        "captrain": with_captrain,
        "index": with_index,
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    found = {}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            found[way] = run(paths)
            if turn:  # the first round only brings the files into memory
                spent[way].append(time.perf_counter() - start)
    assert found["webdataset"] == found["captrain"], found
    assert found["index"][0] == samples, found
    return {way: statistics.median(times) for way, times in spent.items()}


def with_webdataset(paths: list[str]) -> tuple[int, int]:
    """Samples and bytes that webdataset gives."""
    count = size = 0
    for image, text in webdataset.WebDataset(paths, shardshuffle=False).to_tuple("jpg", "txt"):
        count += 1
        size += len(image) + len(text.decode())
    return count, size


def with_captrain(paths: list[str]) -> tuple[int, int]:
    """Samples and bytes that the stream gives."""
    count = size = 0
    for sample in stream_samples(paths, order=IN_ORDER):
        count += 1
        size += len(sample.read()) + len(sample.captions[0])
    return count, size


def with_index(paths: list[str]) -> tuple[int, int]:
    """Samples that the reader indexes, none of their pictures read."""
    rejects = Rejects()
    return sum(len(samples) for samples in read(",".join(paths), rejects).values()), len(rejects)


def write_shards(folder: Path, samples: int, shards: int) -> list[str]:
    """Shards with the same number of samples each, or one more."""
    random = np.random.default_rng(0)
    paths = [str(folder / f"{number:05d}.tar") for number in range(shards)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for sample in range(number, samples, shards):
                add(tar, f"{sample:09d}.jpg", random.bytes(int(random.integers(SIZES.start, SIZES.stop))))
                add(tar, f"{sample:09d}.txt", f"picture {sample} of a dog on grass beside a red ball".encode())
    return paths


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
