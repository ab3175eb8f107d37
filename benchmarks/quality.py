"""Does captrain still learn as well as it did? Three trainings, held against figures that are kept in quality.json.

    python benchmarks/quality.py [--only demo] [--seeds 0 1 2] [--flickr8k FOLDER --encoder FOLDER] [--note FILE]

    demo       `captrain demo` with each seed: the share of scenes that it describes without a mistake
    blip-lora  a tiny BLIP with random weights, LoRA of rank 8, on 1,000 of the demo's scenes: the loss on others
    flickr8k   600 photos of Flickr8k for 8 epochs: loss and CIDEr on 200 photos of the dev split

Figures have bounds in quality.json, beyond all that were seen. A fault that once was in, batches sorted by length, took the demo
from 99 % to 78 %. --note FILE writes the figures of this run, to be added to those seen. Figures of Flickr8k have no bound yet:
compare those before and after a change.

Flickr8k is not part of captrain: `captrain data get flickr8k` fetches it. Without --flickr8k and --encoder this part is left out.

Ends with exit code 1 if a figure is beyond its bound. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from machine import cpu_name

import captrain
from captrain.demo.draw import write_dataset
from captrain.demo.run import SCENES, SIDE, check_captions_of, demo_settings, new_encoder
from captrain.testing import tiny_blip
from captrain.training.run import train

KEPT = Path(__file__).with_name("quality.json")
RECIPE = Path(__file__).parents[1] / "recipes" / "flickr8k-mobilenet.yaml"
Figures = Iterator[tuple[str, float]]


def main() -> None:
    """Run what was asked for, print each figure beside its bound, and say whether all are within."""
    arguments = parsed()
    logging.basicConfig(level=logging.ERROR)
    bounds = json.loads(KEPT.read_text(encoding="utf-8"))
    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    found: dict[str, list[float]] = {}
    for name, seed, figures in trainings(arguments):
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            for figure, value in figures(Path(folder), seed):
                found.setdefault(f"{name}: {figure}", []).append(value)
                print(f"{name}, seed {seed}: {figure} {value:.4f}", flush=True)
        print(f"{name}, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
    if arguments.note:
        arguments.note.write_text(
            json.dumps({"machine": machine(), "figures": found}, indent=2) + "\n", encoding="utf-8"
        )
    sys.exit(1 if report(found, bounds) else 0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("demo", "blip-lora", "flickr8k"), help="run this one alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the demo")
    parser.add_argument("--flickr8k", type=Path, default=from_environment("FLICKR8K"), help="or the variable FLICKR8K")
    parser.add_argument("--encoder", default=os.environ.get("ENCODER"), help="of flickr8k; or the variable ENCODER")
    parser.add_argument("--note", type=Path, help="write the figures to this JSON file")
    return parser.parse_args()


def from_environment(name: str) -> Path | None:
    """A path in an environment variable; None where it is not set."""
    return Path(os.environ[name]) if os.environ.get(name) else None


def trainings(arguments: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[Path, int], Figures]]]:
    """Each training that was asked for: its name, its seed, and what trains in a folder and gives figures."""
    wanted = {arguments.only} if arguments.only else {"demo", "blip-lora", "flickr8k"}
    if "flickr8k" in wanted and not (arguments.flickr8k and arguments.encoder):
        print("flickr8k: left out, because --flickr8k and --encoder do not say where it and an encoder are")
        wanted.discard("flickr8k")
    for seed in arguments.seeds:
        if "demo" in wanted:
            yield "demo", seed, lambda folder, seed: demo(folder, seed, arguments.precision)
        if "blip-lora" in wanted:
            yield "blip-lora", seed, blip_lora
        if "flickr8k" in wanted:
            yield "flickr8k", seed, lambda folder, seed: flickr8k(folder, seed, arguments.flickr8k, arguments.encoder)


def demo(folder: Path, seed: int, precision: str) -> Figures:
    """The demo as it is, without its report."""
    files = write_dataset(folder, **SCENES, seed=seed, side=SIDE)
    settings = demo_settings(new_encoder(folder / "encoder", seed), seed)
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"precision": precision})})
    train(settings, str(folder / "scenes"), folder / "run")
    captioner = captrain.load(str(folder / "run"))
    yield "right on new scenes", check_captions_of(captioner, files["test"]).share
    yield "right on combinations never seen", check_captions_of(captioner, files["held_out"]).share


def blip_lora(folder: Path, seed: int) -> Figures:
    """Adapters on random weights learn little beyond the wording, but that alike with every seed."""
    write_dataset(folder, train=1000, validation=100, test=1, held_out=1, seed=seed, side=SIDE)
    blip = tiny_blip(folder / "blip", size=48, width=64)
    run = captrain.train(
        str(folder / "scenes"), str(folder / "run"), model=str(blip), method="lora", rank=8, epochs=3, batch_size=16,
        learning_rate=5e-3, seed=seed, precision="fp32", test_split=(), metric="validation_loss", beams=1, max_new_tokens=24,
    )  # fmt: skip
    yield "validation loss", least_loss(run)


def flickr8k(folder: Path, seed: int, photos: Path, encoder: str) -> Figures:
    """The recipe on few photos: what frozen features, a decoder from scratch and beams come to."""
    small = folder / "flickr8k"
    small.mkdir()
    for split, count in (("train", 600), ("dev", 200)):
        lines = (photos / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        (small / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    run = captrain.train(
        str(small), str(folder / "run"), recipe=str(RECIPE), encoder=encoder, image_root=str(photos), epochs=8, views=2,
        evaluate_every=8, test_split=(), seed=seed,
    )  # fmt: skip
    yield "validation loss", least_loss(run)
    yield "cider", run.scores["cider"]


def least_loss(run: captrain.Run) -> float:
    """The lowest validation loss of all epochs."""
    return min(row["validation_loss"] for row in run.history if "validation_loss" in row)


def report(found: dict[str, list[float]], bounds: dict[str, dict[str, float]]) -> list[str]:
    """Print what was found beside the bounds; returns the figures that are beyond theirs.

    >>> report({"demo: right": [0.99, 0.9]}, {"demo: right": {"at least": 0.95}})
    demo: right                                       0.9000 to 0.9900, mean 0.9450; at least 0.95: WORSE
    ['demo: right']
    """
    worse = []
    for name, values in found.items():
        bound = bounds.get(name, {})
        least, most = bound.get("at least", float("-inf")), bound.get("at most", float("inf"))
        within = all(least <= value <= most for value in values)
        limits = [f"{kind} {bound[kind]}" for kind in ("at least", "at most") if kind in bound]
        verdict = f"{limits[0]}: {'good' if within else 'WORSE'}" if limits else "no bound"
        print(f"{name:49} {min(values):.4f} to {max(values):.4f}, mean {statistics.mean(values):.4f}; {verdict}")
        if not within:
            worse.append(name)
    return worse


def machine() -> str:
    """The processor and the number of its cores that may be used."""
    return f"{cpu_name()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


if __name__ == "__main__":
    main()
