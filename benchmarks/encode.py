"""Pictures a second of `captrain encode` against its encoder alone on the same batches, and against decoding alone.

    python benchmarks/encode.py [--encoder FOLDER] [--pictures 256] [--edge 500] [--batch-size 32] [--rounds 3] [--workers N]
                                [--threads N]

Without an encoder a MobileNet of 0.75 with random weights is taken. With one thread to encode and one to decode on two cores,
decoding keeps up, and what the pipeline itself costs is seen.

JPEGs of smooth noise are written as one tar shard to a temporary folder. The ways take turns, and the median counts: `encoder` is
given batches that are decoded already; `decode` is captrain's own decoding on its threads, `pillow` plain Pillow (open, convert,
resize) in as many processes; `encode` is everything, from the tar to the finished store, less what it does before its first
picture (it loads the encoder and looks at a black picture). All have the same number of threads to compute with. `reachable`
follows from the times: no pipeline is done before the slower of encoder and decoding, or before the cores have done the work of
both (their seconds of processor time, over the number of cores). Which of these three is the longest is what binds. Where the
cores are shared, `encode` can't come near the bare encoder, whatever it does.

The last line counts processor time, which other work on the machine disturbs less than the clock: what encoder and decoding
need by themselves, and what all the rest (reading the tar, keys, checks, writing) adds.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import cpu_name
from PIL import Image
from transformers import MobileNetV1Config, MobileNetV1ImageProcessorPil, MobileNetV1Model

from captrain.data.images import prepare
from captrain.features.encode import EncoderOpening, encode
from captrain.features.encoder import open_encoder
from captrain.features.stream import Batching, default_workers


def main() -> None:
    """Write the shard, run the ways in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--edge", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=default_workers(), help="threads that decode")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that encode")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        options.encoder = options.encoder or random_encoder(Path(folder, "encoder"))
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """All ways in turn, on one machine."""
    model = open_encoder(options.encoder)
    machine = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else cpu_name()
    print(
        f"{machine}, {cores()} cores, torch {torch.__version__}, {model.precision}, {torch.get_num_threads()} threads encode, "
        f"{options.workers} decode"
    )
    pictures = [jpeg(number, options.edge) for number in range(options.pictures)]
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder, "pictures.tar"), pictures)
        pixels = np.stack([prepare(picture, model.spec) for picture in pictures])
        batches = [
            torch.from_numpy(part)
            for part in np.split(pixels, range(options.batch_size, len(pixels), options.batch_size))
        ]
        size = (model.spec.width, model.spec.height)
        with ProcessPoolExecutor(options.workers) as processes, ThreadPoolExecutor(options.workers) as threads:
            ways: dict[str, Callable[[int], object]] = {
                "encoder": lambda turn: [model.encode(batch).cpu() for batch in batches],
                "decode": lambda turn: list(threads.map(partial(prepare, spec=model.spec), pictures)),
                "pillow": lambda turn: list(processes.map(partial(with_pillow, size=size), pictures, chunksize=8)),
                "encode": lambda turn: encode(
                    str(shard),
                    f"{folder}/store-{turn}",
                    EncoderOpening(options.encoder),
                    batching=Batching(options.batch_size, options.workers),
                ),
                "start": lambda turn: open_encoder(options.encoder).features("float32"),
            }
            spent = measure(ways, options.rounds)
    show(spent, options.pictures)


def random_encoder(folder: Path) -> str:
    """A MobileNetV1 of 0.75 at 224 pixels with random weights, as a checkpoint."""
    MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.75, image_size=224)).save_pretrained(folder)
    MobileNetV1ImageProcessorPil().save_pretrained(folder)
    return str(folder)


class Spent(NamedTuple):
    """Seconds by the clock, and of processor time over all threads of this process."""

    clock: float
    work: float


def measure(ways: dict[str, Callable[[int], object]], rounds: int) -> dict[str, Spent]:
    """Median seconds of each way; a first round only warms up."""
    clock: dict[str, list[float]] = {way: [] for way in ways}
    work: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            start, worked = time.perf_counter(), time.process_time()
            run(turn)
            if turn:
                clock[way].append(time.perf_counter() - start)
                work[way].append(time.process_time() - worked)
    return {way: Spent(statistics.median(clock[way]), statistics.median(work[way])) for way in ways}


def show(spent: dict[str, Spent], pictures: int) -> None:
    """The table, and what binds; loading the encoder is not counted."""
    seconds = {way: spent[way].clock for way in ("encoder", "decode", "pillow")}
    seconds["encode"] = spent["encode"].clock - spent["start"].clock
    limits = {
        "the encoder": seconds["encoder"],
        "decoding": seconds["decode"],
        "the cores that both share": (spent["encoder"].work + spent["decode"].work) / cores(),
    }
    binds = max(limits, key=lambda limit: limits[limit])
    seconds["reachable"] = limits[binds]
    print(f"{'':10}{'img/s':>10}")
    for way, needed in seconds.items():
        print(f"{way:10}{pictures / needed:10.1f}")
    needed = {way: 1000 * spent[way].work / pictures for way in ("encoder", "decode", "encode", "start")}
    rest = needed["encode"] - needed["start"] - needed["encoder"] - needed["decode"]
    print(
        f"{binds} binds; encode reaches {seconds['encoder'] / seconds['encode']:.2f} of the bare encoder, "
        f"{seconds['reachable'] / seconds['encode']:.2f} of what can be reached here"
    )
    print(
        f"processor time a picture: encoder {needed['encoder']:.2f} ms, decoding {needed['decode']:.2f} ms, "
        f"the rest {rest:.2f} ms"
    )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def with_pillow(data: bytes, size: tuple[int, int]) -> tuple[int, ...]:
    """Decode and resize one picture as a plain script does."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC)).shape


def jpeg(number: int, edge: int) -> bytes:
    """A JPEG with about the bytes of a photo of its size."""
    coarse = np.random.default_rng(number).integers(0, 255, (edge // 8, edge // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((edge, edge), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_shard(path: Path, pictures: list[bytes]) -> Path:
    """All pictures with a caption each, in one tar."""
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            for suffix, data in (("jpg", picture), ("txt", f"picture {number}".encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


if __name__ == "__main__":
    main()
