"""What a feature cache in fewer bytes costs: bytes, seconds to read, validation loss and CIDEr, dtype by dtype.

    python benchmarks/cache_dtype.py DATA --encoder FOLDER [--photos 600] [--epochs 4] [--seeds 2]
                                     [--dtypes float32 float16 bfloat16 int8] [--precision auto] [--threads 1]

DATA is a folder like Flickr8k's, with `train.jsonl`, `dev.jsonl` and the pictures. The first `--photos` training pictures are
learned with `recipes/flickr8k-mobilenet.yaml`, one view each and eight a step, and greedy captions are measured on half as many
dev pictures. For each seed all dtypes take turns, and the captioners differ in nothing else. Each run is told when it ends.

`read` is processor time for a batch of 32 pictures out of the cache's files, in the training's precision: the median of 50
batches in random order. The features of all pictures are read once before.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import captrain
from captrain.data.feature_store.store import FeatureStore, StoreSamples
from captrain.features.stored_images import StoredPositions
from captrain.models.device import PRECISIONS, choose_precision

RECIPE = Path(__file__).resolve().parent.parent / "recipes/flickr8k-mobilenet.yaml"
BATCH, BATCHES = 32, 50


def main() -> None:
    """Train, read, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16", "int8"])
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    losses: dict[str, list[float]] = {dtype: [] for dtype in options.dtypes}
    ciders: dict[str, list[float]] = {dtype: [] for dtype in options.dtypes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _few(options.data, folder / "photos", options.photos)
        for seed, dtype in itertools.product(range(options.seeds), options.dtypes):
            os.environ["CAPTRAIN_CACHE"] = str(folder / dtype)
            run = captrain.train(
                photos, folder / f"{dtype}-{seed}", recipe=RECIPE, encoder=options.encoder, epochs=options.epochs, seed=seed,
                precision=options.precision, device="cpu", views=1, crop_scale=None, flip=0.0, mirror=False, beams=1,
                cache_features="disk", cache_dtype=dtype, evaluate_every=options.epochs, validation_split="dev",
                batch_size=8, follow_links=True,
            )  # fmt: skip
            losses[dtype].append(run.scores["validation_loss"])
            ciders[dtype].append(run.scores["cider"])
            print(f"{dtype}, seed {seed}: loss {losses[dtype][-1]:.5f}, CIDEr {ciders[dtype][-1]:.4f}", flush=True)
        print(
            "| cache | bytes a picture | read, ms a batch | validation loss | CIDEr |\n| --- | --- | --- | --- | --- |"
        )
        for dtype in options.dtypes:
            size, read = _read(folder / dtype, choose_precision(options.precision, torch.device("cpu")))
            numbers = (_listed(losses[dtype], 4), _listed(ciders[dtype], 4))
            print(f"| {dtype} | {size:,} | {read:.2f} | {numbers[0]} | {numbers[1]} |")


def _few(data: Path, out: Path, photos: int) -> Path:
    """The first pictures of a data set: `photos` to learn, and half as many to measure on."""
    out.mkdir()
    (out / "images").symlink_to((data / "images").resolve())
    for split, count in (("train", photos), ("dev", photos // 2)):
        lines = (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (out / f"{split}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    return out


def _read(cache: Path, precision: torch.dtype) -> tuple[int, float]:
    """Bytes of a picture's features, and milliseconds of processor time for a batch of them."""
    [folder] = (cache / "kept").iterdir()
    store = FeatureStore(str(folder))
    samples = StoreSamples(store, list(range(len(store.parts))))
    places = StoredPositions.of(samples)
    assert places is not None
    places.rows(np.arange(len(samples)), precision)
    random = np.random.default_rng(0)
    seconds = []
    for _ in range(BATCHES):
        batch = random.integers(0, len(samples), BATCH)
        begin = time.process_time()
        places.rows(batch, precision)
        seconds.append(time.process_time() - begin)
    return store.features.row_bytes, 1e3 * statistics.median(seconds)


def _listed(numbers: Sequence[float], digits: int) -> str:
    return " ".join(f"{number:.{digits}f}" for number in numbers)


if __name__ == "__main__":
    main()
