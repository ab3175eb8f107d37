"""From JPEG files to a file of captions: plain transformers against captrain, BLIP base with random weights, 384 px.

    python benchmarks/caption.py [--pictures 32] [--single 8] [--batch-size 16] [--beams 1 3] [--ends fixed varied]
                                 [--rounds 3] [--threads N] [--by clock]

    (a) plain transformers, fp32, one picture at a time (the first `--single` pictures)
    (b) plain transformers, fp32, in batches
    (c) plain transformers, bf16, in batches; only where the CPU has units for it, or a GPU
    (d) captrain, in batches, in the precision that it chooses

All ways run in one process and take turns (abcd, abcd, ...); the ratios are formed round by round, and their median counts.
`--by cpu` counts seconds of processor time instead of the clock, which other work on the machine disturbs less; give it
`--threads 1`.

Random weights never end a caption. With `fixed` ends every caption has 20 tokens. With `varied` ends the score of the end token
is fitted to the hidden states, so that greedy captions of plain transformers have 7 to 19 tokens, 11.5 in the mean, as those of
COCO do. Beams see other hidden states than the greedy search, so their lengths differ; the table says what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from decode import photos
from machine import cpu_name
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

from captrain.data.dataset import list_images
from captrain.inference.captioner import Captioner
from captrain.models.decoding import Decoding
from captrain.models.device import fast_bf16
from captrain.records import Rejects

TOKENS = 20
WAYS = {
    "a": "plain transformers, fp32, one by one",
    "b": "plain transformers, fp32, batches",
    "c": "plain transformers, bf16, batches",
    "d": "captrain",
}
MEAN_LENGTH, DEVIATION, SHORTEST, LONGEST = 11.5, 2.5, 7, 19


@dataclass(frozen=True)
class Spent:
    """Seconds of one run of a way, a caption, and the captions themselves."""

    clock: float
    work: float
    captions: list[str]


Write = Callable[[list[Path], Path, int], object]
"""Writes captions of pictures into a file, with so many beams."""


def main() -> None:
    """Make the checkpoint and the pictures, run the ways in turn, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--single", type=int, default=8, help="pictures that are captioned one by one")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--ends", nargs="+", choices=("fixed", "varied"), default=["fixed", "varied"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--by", choices=("clock", "cpu"), default="clock")
    parser.add_argument("--ways", default="abcd")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """All ways in turn, for each number of beams and each kind of ends."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    pictures = write_pictures(folder / "pictures", options.pictures)
    checkpoint = random_blip(folder / "blip")
    captioner = Captioner.load(str(checkpoint), device.type)
    print(
        f"{machine}, {len(os.sched_getaffinity(0))} cores, {options.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, captrain in {captioner.model.precision}, by {options.by}",
        flush=True,
    )
    ways = options.ways if fast_bf16(device) else options.ways.replace("c", "")
    plain = {
        way: PlainBlip(checkpoint, torch.bfloat16 if way == "c" else torch.float32, device)
        for way in ways.replace("d", "")
    }
    models = [captioner.model.core(), *(writer.model for writer in plain.values())]
    writes: dict[str, Write] = {
        way: writer.one_by_one if way == "a" else writer.in_batches(options.batch_size) for way, writer in plain.items()
    }
    if "d" in ways:
        writes["d"] = with_captrain(captioner, options.batch_size)
    weight, bias = fitted_end(checkpoint, pictures, captioner, options.batch_size)
    for ends in options.ends:
        for model in models:
            set_end(model, weight, bias if ends == "varied" else -1e4)
        for beams in options.beams:
            spent = take_turns(writes, pictures, folder, beams, options)
            show(spent, f"{beams} beam{'s' * (beams > 1)}, {ends} ends", options.by)


class PlainBlip:
    """BLIP as a usual script runs it."""

    def __init__(self, checkpoint: Path, precision: torch.dtype, device: torch.device) -> None:
        model = BlipForConditionalGeneration.from_pretrained(checkpoint, dtype=precision).eval()
        self.model, self.precision, self.device = model.to(device), precision, device
        self.prepare = BlipImageProcessorPil.from_pretrained(checkpoint)
        self.tokenizer = BertTokenizer.from_pretrained(checkpoint)

    def write(self, pictures: Sequence[Path], output: Path, beams: int, size: int) -> None:
        """Captions of pictures, so many at a time."""
        with output.open("w", encoding="utf-8") as file:
            for at in range(0, len(pictures), size):
                group = pictures[at : at + size]
                images = [Image.open(path).convert("RGB") for path in group]
                pixels = self.prepare(images, return_tensors="pt").pixel_values.to(self.device, self.precision)
                with torch.inference_mode():
                    ids = self.model.generate(
                        pixel_values=pixels, max_new_tokens=TOKENS, num_beams=beams, do_sample=False
                    )
                for path, text in zip(
                    group, self.tokenizer.batch_decode(ids.cpu(), skip_special_tokens=True), strict=True
                ):
                    file.write(json.dumps({"id": path.name, "caption": text.strip()}) + "\n")

    def one_by_one(self, pictures: list[Path], output: Path, beams: int) -> None:
        """A picture at a time."""
        self.write(pictures, output, beams, 1)

    def in_batches(self, size: int) -> Write:
        """In batches."""
        return lambda pictures, output, beams: self.write(pictures, output, beams, size)


def with_captrain(captioner: Captioner, size: int) -> Write:
    """As `captrain caption` writes captions."""

    def write(pictures: list[Path], output: Path, beams: int) -> None:
        samples = list_images([str(path) for path in pictures], Rejects())
        how = Decoding(beams=beams, max_new_tokens=TOKENS)
        with output.open("w", encoding="utf-8") as file:
            for index, line in captioner.stream(samples, how, Rejects(), size):
                file.write(json.dumps({"id": samples[index].id, "caption": line.text}) + "\n")

    return write


def take_turns(
    writes: dict[str, Write], pictures: list[Path], folder: Path, beams: int, options: argparse.Namespace
) -> dict[str, list[Spent]]:
    """Every way once in each round; a first run on a few pictures only warms up."""
    spent: dict[str, list[Spent]] = {way: [] for way in writes}
    for write in writes.values():
        write(pictures[:2], folder / "warm.jsonl", beams)
    for _ in range(options.rounds):
        for way, write in writes.items():
            chosen, output = pictures[: options.single] if way == "a" else pictures, folder / f"{way}.jsonl"
            start, worked = time.perf_counter(), time.process_time()
            write(chosen, output, beams)
            clock, work = time.perf_counter() - start, time.process_time() - worked
            captions = [json.loads(line)["caption"] for line in output.read_text(encoding="utf-8").splitlines()]
            spent[way].append(Spent(clock / len(chosen), work / len(chosen), captions))
    return spent


def show(spent: dict[str, list[Spent]], title: str, by: str) -> None:
    """Seconds a caption of each way, and how many times faster captrain is."""
    print(f"\n{title:46}{'s/caption':>11}{'captrain is':>13}{'tokens':>8}{'same as (b)':>13}")

    def seconds(way: str) -> list[float]:
        return [run.clock if by == "clock" else run.work for run in spent[way]]

    for way, runs in spent.items():
        captions = runs[-1].captions
        ratios = (
            [theirs / ours for theirs, ours in zip(seconds(way), seconds("d"), strict=True)] if "d" in spent else []
        )
        times = f"{statistics.median(ratios):.2f} times" if ratios and way != "d" else ""
        tokens = statistics.mean(len(caption.split()) for caption in captions)
        equal = (
            sum(ours == theirs for ours, theirs in zip(captions, spent["b"][-1].captions, strict=False))
            if "b" in spent
            else 0
        )
        print(
            f"({way}) {WAYS[way]:42}{statistics.median(seconds(way)):11.3f}{times:>13}{tokens:8.1f}"
            f"{f'{equal} of {len(captions)}':>13}",
            flush=True,
        )


def write_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 x 480, all of them different."""
    folder.mkdir()
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:04}.jpg")
        [data] = photos(640, 480, 1, noise=10, seed=number)
        paths[-1].write_bytes(data)
    return paths


def random_blip(folder: Path) -> Path:
    """A BLIP base of random weights, whose vectors depend on the picture, with made-up words."""
    torch.manual_seed(0)
    config = BlipConfig(vision_config={"initializer_range": 0.02})
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "crossattention" in name and "dense.weight" in name:
                weight.mul_(8)  # or all pictures would have the same caption
    model.save_pretrained(folder)
    # The start token is beyond the vocabulary, as in the published checkpoints.
    special = ["[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"w{number}" for number in range(config.text_config.bos_token_id - len(special)))]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 384, "width": 384}).save_pretrained(folder)
    return folder


def fitted_end(checkpoint: Path, pictures: list[Path], captioner: Captioner, size: int) -> tuple[Tensor, float]:
    """Weights (H) and bias of the end token with which captions have lengths as people's captions do.

    The score of the end is a straight line over the hidden states, fitted so that it passes all other words' at the drawn length.
    """
    model = captioner.model
    set_end(model.core(), torch.zeros(model.core().config.text_config.hidden_size), -1e4)
    generator = torch.Generator().manual_seed(0)
    lengths = (
        torch.normal(MEAN_LENGTH, DEVIATION, (len(pictures),), generator=generator).round().clip(SHORTEST, LONGEST)
    )
    states, highest = [], []
    with torch.no_grad(), model.autocast():
        for group in batches_of_pixels(captioner, pictures, size):
            features = captioner.encode(group)
            captions = [line.tokens for line in model.generate(features, Decoding(beams=1, max_new_tokens=TOKENS))]
            rows = model.pack([[caption[: TOKENS - 1]] for caption in captions]).to(features.device)
            mask = (
                torch.ones(TOKENS, TOKENS, dtype=torch.bool, device=features.device)
                .tril()
                .expand(len(group), 1, -1, -1)
            )
            hidden = model.decode(model.project(features), rows.input_ids, rows.position_ids, mask)
            states.append(model.core().text_decoder.cls.predictions.transform(hidden).float().cpu())
            highest.append(model.head(hidden).float().amax(-1).cpu())
    hidden, top = torch.cat(states), torch.cat(highest)
    late = torch.arange(TOKENS) - lengths[:, None] + 0.5  # above 0 where the caption should have ended
    known = torch.cat([hidden, torch.ones(*hidden.shape[:2], 1)], -1).flatten(0, 1).double()
    wanted = (20 * late.clip(-3, 3) + top).flatten().double()
    ridge = 1e-4 * known.square().sum(0).mean() * torch.eye(known.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted)
    return solved[:-1].float(), float(solved[-1])


def batches_of_pixels(captioner: Captioner, pictures: list[Path], size: int) -> Iterator[Tensor]:
    """Prepared pixels of pictures, so many at a time."""
    from captrain.data.images import prepare

    for at in range(0, len(pictures), size):
        pixels = [
            torch.from_numpy(prepare(path.read_bytes(), captioner.model.image_spec))
            for path in pictures[at : at + size]
        ]
        yield torch.stack(pixels)


def set_end(model: BlipForConditionalGeneration, weight: Tensor, bias: float) -> None:
    """Give the end token's score its weights and bias."""
    end, head = model.config.text_config.sep_token_id, model.text_decoder.cls.predictions.decoder
    with torch.no_grad():
        head.weight[end] = weight.to(head.weight)
        head.bias[end] = bias


if __name__ == "__main__":
    main()
