"""The same captioner trained the plain way for the same wall time: one caption a row, nothing kept.

    python benchmarks/plain.py DATA OUT --recipe recipes/flickr8k-mobilenet.yaml --encoder MODEL --seconds 1100

It builds the model that `captrain train` builds from the same recipe, then trains it as a careful person would with plain
transformers: shuffled (picture, caption) pairs, pictures read and encoded in every step, captions padded to the longest of the
batch, padding out of the loss, AdamW, warm-up and cosine over the time that there is. What it writes to OUT/model is scored with
`captrain evaluate OUT/model DATA --split validation`.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from captrain.data.dataset import load_splits
from captrain.data.images import prepare
from captrain.models.checkpoint.folder import save_captioner
from captrain.models.contract import CaptionerModel
from captrain.records import Sample
from captrain.settings.load import load_recipe, resolve
from captrain.training.captioner_setup import adapt, build_captioner, place
from captrain.training.filled import decided, fill_defaults
from captrain.training.resolve import batches_of, captioner_start, learning_of

Pair = tuple[Sample, str]


def main() -> None:
    """Build, train for the given time, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    start = time.monotonic()

    settings = resolve(load_recipe(options.recipe), {"model": {"encoder": options.encoder}})
    samples = load_splits(options.data).train
    pairs = [(sample, caption) for sample in samples for caption in sample.captions]
    plan = captioner_start(settings)
    captioner = build_captioner(plan, (caption for _, caption in pairs), Path("-"))
    place(captioner, plan.place)
    settings = fill_defaults(settings, captioner)
    adapt(captioner, learning_of(settings, captioner.device))
    captioner.decoder.set_attn_implementation("eager")  # the fastest of transformers' own for bf16 on a CPU

    batch = 5 * batches_of(settings.training).images  # as many captions a step as five a picture
    rate, decay = decided(settings.training.learning_rate), settings.training.weight_decay
    train(captioner, pairs, batch, rate, decay, start, options.seconds)
    save_captioner(captioner, options.out / "model")


def train(
    captioner: CaptionerModel, pairs: list[Pair], batch: int, rate: float, decay: float, start: float, seconds: float
) -> None:
    """Steps over shuffled pairs until the time is over; the learning rate follows the clock."""
    optimizer = torch.optim.AdamW(
        [w for w in captioner.parameters() if w.requires_grad], lr=rate, weight_decay=decay, fused=True
    )
    captioner.train()
    step = seen = 0
    while True:
        order = np.random.default_rng([0, step]).permutation(len(pairs))
        for first in range(0, len(pairs) - batch + 1, batch):
            share = (time.monotonic() - start) / seconds
            if share >= 1:
                print(f"{step} steps, {seen} captions = {seen / len(pairs):.2f} epochs in {seconds:.0f} s", flush=True)
                return
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, share / 0.05) * 0.5 * (1 + math.cos(math.pi * share))
            loss = plain_loss(captioner, [pairs[index] for index in order[first : first + batch]])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step, seen = step + 1, seen + batch
            if step % 50 == 0:
                print(f"{time.monotonic() - start:.0f} s, step {step}, loss {loss.item():.3f}", flush=True)


def plain_loss(captioner: CaptionerModel, pairs: list[Pair]) -> torch.Tensor:
    """Loss of one caption a row, by transformers' own forward."""
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(lambda pair: prepare(pair[0].read(), captioner.image_spec), pairs))
    scaled = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    captions, _ = captioner.tokenize([caption for _, caption in pairs], 64)
    length = max(len(caption) for caption in captions) + 1
    inputs = torch.full((len(captions), length), captioner.pad_id)
    labels = torch.full((len(captions), length), -100)
    for row, caption in enumerate(captions):
        inputs[row, : len(caption) + 1] = torch.tensor([captioner.start_id, *caption])
        labels[row, : len(caption) + 1] = torch.tensor([*caption, captioner.end_id])
    with captioner.autocast():
        logits = captioner.model(
            pixel_values=(scaled - captioner.mean) / captioner.std,
            decoder_input_ids=inputs,
            decoder_attention_mask=(labels != -100).long(),
        ).logits
    smoothing = captioner.label_smoothing
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), label_smoothing=smoothing)


if __name__ == "__main__":
    main()
