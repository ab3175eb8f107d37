"""Seconds a caption: plain transformers against captrain, BLIP base with random weights, 384 px, 5 captions an image, LoRA.

    python benchmarks/packing.py [--images 4] [--steps 2] [--rounds 2] [--device cpu]

Each way of training runs in a process of its own, so that its peak memory is its own; the ways take turns for some rounds and
the median counts, so that a machine whose speed drifts slows all of them alike.

    (a) plain, fp32           one caption a row, the picture encoded for each: what the usual notebooks do
    (b) plain, bf16           the same under autocast
    (c) captrain, first epoch the picture encoded once, its five captions packed in one row
    (d) captrain, later       the same on kept features
    (e), (f)                  (c) and (d) with everything in fp32
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from machine import cpu_name
from peft import LoraConfig, get_peft_model
from transformers import BlipConfig, BlipForConditionalGeneration

from captrain.data.images import ImageSpec
from captrain.models.families import blip
from captrain.models.layers.attention import quicken_dropout
from captrain.models.layers.packing import pack
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.what_learns import lower_frozen

CAPTIONS = 5
TOKENS = range(10, 19)
WAYS = {
    "a": "plain transformers, fp32, one caption a row",
    "b": "plain transformers, bf16, one caption a row",
    "c": "captrain, first epoch (encode once, packed), bf16",
    "d": "captrain, later epochs (kept features, packed), bf16",
    "e": "captrain, first epoch, fp32",
    "f": "captrain, later epochs, fp32",
}


class NoTokenizer:
    """Stands where a captioner's tokenizer is; the captions here are token ids already."""

    pad_token_id = 0


def main() -> None:
    """Run all ways in turn and print the table, or one way (as the inner process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4, help="images a step")
    parser.add_argument("--steps", type=int, default=2, help="steps measured, after one that is not")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", default="abcdef")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.images, options.steps, torch.device(options.device))))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """All ways, round after round, each in its own process; then medians and ratios."""
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.device}")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for _ in range(options.rounds):
        for way in options.ways:
            command = [sys.executable, __file__, "--way", way, "--device", options.device]
            command += ["--images", str(options.images), "--steps", str(options.steps)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(output.splitlines()[-1]))
    print(f"{'':4}{'':56}{'s/caption':>10}{'times (a)':>11}{'peak GiB':>10}")
    seconds = {way: statistics.median(run["seconds"] for run in runs) for way, runs in found.items()}
    for way, runs in found.items():
        ratio = f"{seconds['a'] / seconds[way]:.1f}" if "a" in seconds else ""
        memory = max(run["memory"] for run in runs) / 2**30
        print(f"({way}) {WAYS[way]:56}{seconds[way]:10.4f}{ratio:>11}{memory:10.2f}")


def measure(way: str, images: int, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds a caption and peak memory of one way."""
    torch.manual_seed(0)
    step = (
        plain_step(images, device, way == "b") if way in "ab" else packed_step(images, device, way in "cd", way in "ce")
    )
    step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    seconds = (time.perf_counter() - start) / (steps * images * CAPTIONS)
    peak = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {"seconds": seconds, "memory": float(peak)}


def plain_step(images: int, device: torch.device, bf16: bool) -> Callable[[], None]:
    """A step of the usual recipe: peft on transformers, a row a caption, padded to the longest, each with its picture."""
    model = BlipForConditionalGeneration(BlipConfig())
    config = model.config.text_config
    targets = (
        r"text_decoder\.bert\.encoder\.layer\.\d+\."
        r"((cross)?attention\.(self\.(query|key|value)|output\.dense)|(intermediate|output)\.dense)"
    )
    tuned = (
        get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=targets))
        .to(device)
        .train()
    )
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], lr=1e-4)
    captions = [caption for row in random_captions(images) for caption in row]
    length = max(len(caption) for caption in captions) + 2
    ids = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, caption in enumerate(captions):
        ids[row, : len(caption) + 2] = torch.tensor([config.bos_token_id, *caption, config.sep_token_id])
    ids = ids.to(device)
    mask = (ids != 0).long()
    labels = ids.masked_fill(mask == 0, -100)
    pixels = torch.randn(images, 3, 384, 384, device=device).repeat_interleave(CAPTIONS, 0)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = tuned(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def packed_step(images: int, device: torch.device, bf16: bool, encode: bool) -> Callable[[], None]:
    """A step of captrain's, with or without the encoding of its pictures."""
    spec = ImageSpec(384, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    captioner = blip.BlipCaptioner(blip.BlipForConditionalGeneration(BlipConfig()), NoTokenizer(), spec)  # type: ignore[arg-type]
    captioner.precision = torch.bfloat16 if bf16 else torch.float32
    captioner.to(device)
    add_lora(captioner, LoraOptions(rank=16, alpha=32, dropout=0.05))
    if bf16:
        lower_frozen(captioner)
    quicken_dropout(captioner)
    captioner.train()
    optimizer = torch.optim.AdamW(
        [weight for weight in captioner.parameters() if weight.requires_grad], lr=1e-4, fused=True
    )
    rows = pack(random_captions(images), captioner.start_id, captioner.end_id).to(device).to_dict()
    pixels = torch.randint(0, 255, (images, 384, 384, 3), dtype=torch.uint8, device=device)

    def features() -> torch.Tensor:
        with torch.no_grad():
            return captioner.encode(pixels).to(captioner.precision)

    kept = features()

    def step() -> None:
        captioner(features=features() if encode else kept, **rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def random_captions(images: int) -> list[list[list[int]]]:
    """Random captions of 10 to 18 tokens, 14 in the mean."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(TOKENS.start, TOKENS.stop, (images, CAPTIONS), generator=generator).tolist()
    return [[torch.randint(1000, 30000, (length,), generator=generator).tolist() for length in row] for row in lengths]


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
