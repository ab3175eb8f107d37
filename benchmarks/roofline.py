"""How close a step comes to its matrix products: their time alone at this machine's rate, the step's time, where the rest goes.

    python benchmarks/roofline.py [--work blip flickr8k captions] [--precision auto] [--data FOLDER --encoder MODEL]

    blip        LoRA on BLIP base with random weights, 384 px, kept features, 4 images of 5 captions (`packing.py`, later epochs)
    flickr8k    recipes/flickr8k-mobilenet.yaml: 32 photos of --data a step, kept features, with clipping; full decoder
    captions    BLIP base writes captions of 20 tokens for 4 pictures, greedily, from pixels

Each work runs in a process of its own, on one thread, with the C library's and OpenMP's settings of the environment. All times
are CPU seconds, so that other processes disturb them little. One step is recorded: each matrix product that it made, with shapes
and layout. Then every kind of product is timed by itself, on matrices of the same shapes that take turns as those of layers do.
Steps and products are timed in turns, and the ratio is the median. Products of padding are counted as they are made; the share of
padding among the decoder's positions is told, for they are not needed. What a step spends beside its products is told by the
profiler, as shares of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from machine import cpu_name
from packing import NoTokenizer, packed_step, random_captions
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BlipConfig

from captrain.data.dataset import load_splits
from captrain.data.images import ImageSpec
from captrain.models.decoding import Decoding
from captrain.models.device import choose_precision
from captrain.models.families import blip
from captrain.models.layers.packing import PackedRows, pack, row_groups
from captrain.models.what_learns import lower_frozen
from captrain.settings.load import load_recipe, resolve
from captrain.training.captioner_setup import adapt, build_captioner, place
from captrain.training.filled import fill_defaults
from captrain.training.resolve import captioner_start, learning_of

CPU = torch.device("cpu")
RECIPE = Path(__file__).parents[1] / "recipes/flickr8k-mobilenet.yaml"
BATCHES = 2
COPIES = 6
"""Matrices of one shape that take turns: a layer's weights are not in the cache when their turn comes."""

Step = Callable[[], None]
Work = tuple[Sequence[Step], float]
"""Steps, each with shapes of its own, and the share of padding among the positions that their decoder reads."""
Matrix = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Shape, strides, kind of numbers."""

WORKS = ("blip", "flickr8k", "captions")
PARTS: dict[str, str] = {
    "products": r"aten::(addmm|mm|bmm|baddbmm|addbmm|mkldnn_.*|.*convolution.*|_conv_depthwise.*|linear|matmul|dot)_?",
    "attention kernels": r"aten::(_?scaled_dot.*|_softmax.*|softmax|masked_fill_?)",
    "optimizer": r"(Optimizer\..*|aten::_fused_adamw.*|aten::_foreach.*|aten::.*vector_norm)",
    "copies": r"aten::(copy_|_to_copy|to|cat|clone|contiguous|index.*|gather|zeros.*|zero_|fill_|new_.*|reshape)",
    "elementwise": r"aten::(add|mul|sub|div|gelu|tanh|native_layer_norm|sum|exp|where|embedding|rsub|neg|pow|mean)(_.*)?",
}
"""Names of operations by part; the first that matches counts. What matches none is dispatch, autograd and Python."""
INSIDE = {
    "loss": re.compile(r"_TokenLoss.*"),
    "dropout": re.compile(r"aten::random_"),
    "clipping": re.compile("clipping"),
    "optimizer": re.compile(r"Optimizer\..*"),
}
"""Operations that belong to a part because they happen inside of something."""


def main() -> None:
    """Measure each work in its own process, or one of them (as the inner process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=["blip", "captions"])
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--images", type=int, default=4, help="images of a step of blip and captions")
    parser.add_argument("--turns", type=int, default=3, help="how often steps and products are timed in turns")
    parser.add_argument("--data", help="Flickr8k, for its captions")
    parser.add_argument("--encoder", help="MobileNet, for --work flickr8k")
    parser.add_argument("--inner", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    precision = choose_precision(options.precision, CPU)
    if options.inner:
        torch.set_num_threads(1)
        measure(*steps_of(options, precision), options.turns)
        return
    print(f"{cpu_name()}, 1 thread, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {precision}")
    for work in options.work:
        command = [sys.executable, __file__, *sys.argv[1:], "--inner", work]
        output = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ONEDNN_VERBOSE": "profile_create"},
        ).stdout
        lines = output.splitlines()
        show(work, json.loads(lines[-1]), created(lines))


def steps_of(options: argparse.Namespace, precision: torch.dtype) -> Work:
    """The inner work."""
    torch.manual_seed(0)
    if options.inner == "blip":
        rows = pack(random_captions(options.images), start=1, end=2)
        step = packed_step(options.images, CPU, bf16=precision == torch.bfloat16, encode=False)
        return [step], padding([rows], False)
    if options.inner == "captions":
        return [caption_step(options.images, precision)], 0.0
    if not (options.data and options.encoder):
        raise SystemExit("flickr8k needs --data and --encoder")
    return recipe_steps(precision, options.data, options.encoder)


def recipe_steps(precision: torch.dtype, data: str, encoder: str) -> Work:
    """Steps of the Flickr8k recipe on kept features, for some batches of photos."""
    settings = resolve(load_recipe(str(RECIPE)), {"model": {"encoder": encoder, "precision": _name(precision)}})
    samples = load_splits(data).train
    start = captioner_start(settings)
    captioner = build_captioner(start, (caption for sample in samples for caption in sample.captions), Path("-"))
    place(captioner, start.place)
    settings = fill_defaults(settings, captioner)
    adapt(captioner, learning_of(settings, captioner.device))
    captioner.train()
    learning = [weight for weight in captioner.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    images, spec = settings.training.batch_size, captioner.image_spec
    with torch.no_grad():
        picture = captioner.encode(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8)).to(precision)
    features = torch.randn(images, *picture.shape[1:]).to(precision)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()

    def packed(chosen: Sequence[int]) -> PackedRows:
        most = settings.data.max_tokens
        return captioner.pack([captioner.tokenize(list(samples[number].captions), most)[0] for number in chosen])

    def step_of(rows: PackedRows) -> Step:
        def step() -> None:
            captioner(features=features, **rows.to_dict()).loss.backward()
            with record_function("clipping"):
                torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    batches = [packed(order[start : start + images]) for start in range(0, BATCHES * images, images)]
    return [step_of(rows) for rows in batches], padding(batches, captioner.groups_rows)


def padding(batches: Sequence[PackedRows], split: bool) -> float:
    """The share of padding among the positions of batches, read in groups of even length if they are `split`."""
    tokens = sum(int(rows.caption_ids.count_nonzero()) for rows in batches)
    groups = [group for rows in batches for group in row_groups(rows.caption_ids, split)]
    whole = len(batches[0].caption_ids)
    places = sum((whole if isinstance(chosen, slice) else len(chosen)) * longest for chosen, longest in groups)
    return 1 - tokens / places


def caption_step(images: int, precision: torch.dtype) -> Step:
    """Captions of 20 tokens from pictures of 384 x 384 pixels, greedily."""
    spec = ImageSpec(384, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    captioner = blip.BlipCaptioner(blip.BlipForConditionalGeneration(BlipConfig()), WritesNothing(), spec)  # type: ignore[arg-type]
    captioner.precision = precision
    if precision == torch.bfloat16:
        captioner.requires_grad_(False)
        lower_frozen(captioner)
    captioner.eval()
    pixels = torch.randint(0, 255, (images, 384, 384, 3), dtype=torch.uint8)
    decoding = Decoding(beams=1, max_new_tokens=20, min_new_tokens=20)

    @torch.no_grad()
    def step() -> None:
        captioner.generate(captioner.encode(pixels), decoding)

    return step


class WritesNothing(NoTokenizer):
    """A tokenizer of no words."""

    def batch_decode(self, captions: Sequence[Sequence[int]], **how: Any) -> list[str]:
        """An empty text for each caption."""
        return [""] * len(captions)


class Recorder(TorchDispatchMode):
    """Counts the matrix products of what runs inside, by shapes and layout. An attention kernel counts as its products."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[Matrix, Matrix]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.found[_matrix(args[0]), _matrix(args[1])] += 1
        elif name in ("addmm", "baddbmm", "addmm_", "baddbmm_"):
            self.found[_matrix(args[1]), _matrix(args[2])] += 1
        elif "scaled_dot_product" in name or name == "convolution":
            self._kernel(name, args)
        return func(*args, **(kwargs or {}))

    def _kernel(self, name: str, args: Any) -> None:
        """Products inside of a kernel: two of an attention forward, four backward; a convolution as one product."""
        if name == "convolution":
            picture, weight, groups = args[0], args[1], args[8]
            if groups == 1:
                places = picture.shape[0] * picture.shape[2] * picture.shape[3] // (args[3][0] * args[3][1])
                size = weight[0].numel()
                self.found[_plain(places, size, kind=weight.dtype), _plain(size, len(weight), kind=weight.dtype)] += 1
            return
        query, key = args[1:3] if "backward" in name else args[:2]
        batch, length, width = query.shape[0] * query.shape[1], query.shape[2], query.shape[3]
        keys, kind = key.shape[2], query.dtype
        times = 2 if "backward" in name else 1
        self.found[_plain(batch, length, width, kind=kind), _plain(batch, width, keys, kind=kind)] += times
        self.found[_plain(batch, length, keys, kind=kind), _plain(batch, keys, width, kind=kind)] += times


def _matrix(tensor: Tensor) -> Matrix:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def _plain(*shape: int, kind: torch.dtype) -> Matrix:
    return _matrix(torch.empty(shape, dtype=kind, device="meta"))


def measure(steps: Sequence[Step], padded: float, turns: int) -> None:
    """Print a work's figures as JSON."""
    for step in steps:
        step()
    with Recorder() as recorder:
        for step in steps:
            step()
    products = [Product(left, right, times) for (left, right), times in recorder.found.items()]
    alone, whole = [], []
    faults = system = 0.0
    for _ in range(turns):
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.process_time()
        for step in steps:
            step()
        whole.append(time.process_time() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        faults, system = faults + after.ru_minflt - before.ru_minflt, system + after.ru_stime - before.ru_stime
        alone.append(sum(product.times * product.seconds() for product in products))
    number = len(steps)
    figures = {
        "padding": padded,
        "gflop": sum(product.times * product.flops for product in products) / number / 1e9,
        "products": statistics.median(alone) / number,
        "step": statistics.median(whole) / number,
        "ratio": statistics.median(w / a for w, a in zip(whole, alone, strict=True)),
        "faults": faults / turns / number,
        "system": system / turns / number,
        "parts": parts(steps),
        "largest": [product.told(number) for product in sorted(products, key=Product.share, reverse=True)[:8]],
    }
    print(json.dumps(figures))


class Product:
    """One kind of matrix product, and how often the steps made it."""

    def __init__(self, left: Matrix, right: Matrix, times: int) -> None:
        self.left, self.right, self.times = left, right, times
        *batch, rows, inner = left[0]
        columns = right[0][-1]
        self.shape = (*batch, rows, inner, columns)
        self.flops = 2.0 * torch.Size(self.shape).numel()
        self.last = 0.0

    def share(self) -> float:
        """Seconds of all products of this kind."""
        return self.times * self.last

    def seconds(self) -> float:
        """CPU seconds of one product: some are made until 5 ms are over. The matrices are made before and dropped after."""
        pairs = [(_filled(self.left), _filled(self.right)) for _ in range(COPIES)]
        multiply = torch.bmm if len(self.shape) == 4 else torch.mm
        out = multiply(*pairs[0])
        turns, count, start = cycle(pairs), 0, time.process_time()
        while (passed := time.process_time() - start) < 0.005 or count < COPIES:
            multiply(*next(turns), out=out)
            count += 1
        self.last = passed / count
        return self.last

    def told(self, steps: int) -> dict[str, Any]:
        """For the list of the largest."""
        kind = str(self.left[2]).removeprefix("torch.")
        shape = " x ".join(map(str, self.shape[-3:])) + (f" ({self.shape[0]})" if len(self.shape) == 4 else "")
        return {
            "shape": f"{shape} {kind}", "times": self.times / steps, "ms": self.share() / steps * 1e3,
            "rate": self.flops / self.last / 1e9,
        }  # fmt: skip


def _filled(matrix: Matrix) -> Tensor:
    shape, strides, kind = matrix
    tensor = torch.empty_strided(shape, strides, dtype=kind)
    return tensor.fill_(0.01)


def parts(steps: Sequence[Step]) -> dict[str, float]:
    """The share of each part of the steps' time, by the profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for step in steps:
            step()
    seconds: Counter[str] = Counter()
    for event in profiler.events():
        seconds[_part(event)] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {name: spent / total for name, spent in seconds.most_common()}


def _part(event: Any) -> str:
    """The part that an operation belongs to, by what it happens in, or else by its name."""
    name = event.name
    above = event
    while above is not None:
        for part, pattern in INSIDE.items():
            if pattern.fullmatch(above.name.rpartition(": ")[2].removesuffix("Backward")):
                return part
        above = above.cpu_parent
    return next((part for part, pattern in PARTS.items() if re.fullmatch(pattern, name)), "dispatch, autograd, Python")


def created(lines: Sequence[str]) -> tuple[int, float]:
    """How many kernels oneDNN made while the work ran, and the seconds that it took, by its own report."""
    found = [line.split(",") for line in lines if line.startswith("onednn_verbose") and "create:cache_miss" in line]
    return len(found), sum(float(fields[-1]) for fields in found) / 1e3


def show(work: str, figures: dict[str, Any], kernels: tuple[int, float]) -> None:
    """Print a work's table."""
    print(f"\n{work}: {figures['gflop']:.1f} GFLOP in products")
    print(f"  products alone {figures['products']:8.3f} s  {figures['gflop'] / figures['products']:.1f} GFLOP/s")
    print(f"  captrain       {figures['step']:8.3f} s  {figures['ratio']:.2f} times the products")
    print(f"  padding        {figures['padding']:8.1%} of the decoder's positions")
    print(f"  page faults    {figures['faults']:8.0f}    {figures['system']:.3f} s in the kernel")
    print(f"  oneDNN made {kernels[0]} kernels in {kernels[1]:.2f} s, all steps and products together")
    print("  share of the step: " + ", ".join(f"{name} {share:.1%}" for name, share in figures["parts"].items()))
    for line in figures["largest"]:
        print(f"    {line['shape']:34}{line['times']:7.1f} times{line['ms']:9.1f} ms{line['rate']:9.1f} GFLOP/s")


def _name(precision: torch.dtype) -> str:
    return "bf16" if precision == torch.bfloat16 else "fp32"


if __name__ == "__main__":
    main()
