"""Training and captioning on a GPU against plain transformers, in at most eight minutes, as one Markdown table.

    python benchmarks/gpu.py [--minutes 8] [--images 64] [--cases blip-base-lora,...] [--device cuda] > table.md

All models have the shapes of published ones and random weights: BLIP base and large at 384 pixels, ClipCap (ViT-B/32 and GPT-2,
ten prefix vectors), BLIP-2 (ViT-g, Q-Former, OPT-2.7B) at 224. An image has five captions of 10 to 18 tokens. Nothing is
downloaded.

    plain              transformers under bf16 autocast with its fused attention: one caption a row, each with its picture
    captrain           the picture encoded once, its captions in one row
    captrain, cached   the same on cached features, where the encoder is frozen
    ... compiled       the way before it with torch.compile;  ... graphs: with CUDA graphs too (mode "reduce-overhead")
    captioning         greedy captions of 20 tokens, encoding included

`use` is model FLOPs utilisation: products that a step makes, counted by torch.utils.flop_counter, over its time and the peak of
the data sheet (dense bf16), or else of a product of two large matrices. Each case runs in a process of its own and halves its
batch when memory runs out. The clock decides what is measured: of each case first plain and captrain, compiled ways with the time
that is left. What found no time says so. `*` marks the fastest way of a case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from gpu_shapes import CASES, NoTokenizer, Subject, make_subject
from torch.utils.flop_counter import FlopCounterMode

CAPTIONS, TOKENS, WRITTEN = 5, range(10, 19), 20
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}
"""Dense bf16 operations a second by data sheet, by a part of the device's name; longer names first."""
FIRST, LATER = ("plain", "captrain", "captrain, cached"), ("captrain, compiled", "captrain, graphs")
MODES = {"compiled": "default", "graphs": "reduce-overhead"}
LEAST = 3  # steps measured
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Line:
    """What one way of a case came to: seconds a step of so many images, operations of a step, peak memory; or why not."""

    case: str
    way: str
    images: int = 0
    captions: int = 0
    seconds: float = 0.0
    operations: float = 0.0
    memory: float = 0.0
    problem: str = ""


class Clock:
    """The time that is left, shared out: each of those who still come gets the same part of it."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.now, self.end = now, now() + seconds

    def left(self) -> float:
        """Seconds until the end, at least none."""
        return max(0.0, self.end - self.now())

    def share(self, coming: int) -> float:
        """Seconds for the next of so many."""
        return self.left() / max(1, coming)


def main() -> None:
    """All cases, each in its own process, or one case (as the inner process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--images", type=int, default=64, help="images a step to begin with")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models of the same kinds, to try the script")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        for line in measured_case(
            options.case, torch.device(options.device), options.images, options.minutes * 60, options.tiny
        ):
            print(json.dumps(asdict(line)), flush=True)
        return
    clock, lines = Clock(options.minutes * 60), []
    names = options.cases.split(",")
    for number, name in enumerate(names):
        lines += in_own_process(name, options, clock.share(len(names) - number))
    print(table(lines, peak_of(torch.device(options.device))))


def in_own_process(name: str, options: argparse.Namespace, seconds: float) -> list[Line]:
    """The lines of a case; those that were done when its time ran out are kept."""
    command = [sys.executable, __file__, "--case", name, "--device", options.device, "--images", str(options.images)]
    command += ["--minutes", str(seconds * 0.85 / 60), *(["--tiny"] if options.tiny else [])]
    problem = ""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        output = done.stdout
        if done.returncode:
            problem = (done.stderr.decode(errors="replace").strip().splitlines() or ["failed"])[-1][:80]
    except subprocess.TimeoutExpired as error:
        output, problem = error.stdout or b"", "no time"
    lines = [Line(**json.loads(text)) for text in output.decode().splitlines() if text.startswith("{")]
    return [*lines, Line(name, "the rest", problem=problem)] if problem else lines


def measured_case(name: str, device: torch.device, images: int, seconds: float, tiny: bool) -> Iterator[Line]:
    """Each way of a case, as it is done: what must be, then captioning, then what the time allows."""
    clock = Clock(seconds)
    case = CASES[name]
    ways = [way for way in FIRST if case.frozen or way != "captrain, cached"]
    todo = [*ways, "captioning, plain", "captioning, captrain"]
    later = [way.replace("captrain", ways[-1]) for way in LATER if device.type == "cuda"]
    for number, way in enumerate([*todo, *later]):
        if way in later and clock.left() < 0.1 * seconds:
            yield Line(name, way, problem="no time")
            continue
        yield measured_way(name, way, device, images, clock.share(len(todo) + len(later) - number) / 3, tiny)


def measured_way(name: str, way: str, device: torch.device, images: int, seconds: float, tiny: bool) -> Line:
    """One way, with half the images whenever memory runs out."""
    while True:
        try:
            _forget(device)
            subject = make_subject(name, way.startswith(("plain", "captioning, plain")), device, tiny)
            step, captions = step_of(subject, way, device, images)
            operations = 0.0 if way.startswith("captioning") else counted(step, compiled=way.endswith(tuple(MODES)))
            return Line(name, way, images, captions, timed(step, seconds, device), operations, _peak_memory(device))
        except torch.OutOfMemoryError:
            if images == 1:
                return Line(name, way, problem="no memory")
            images //= 2
        except Exception as error:  # one way that fails, as compilers do, leaves the others
            return Line(
                name, way, problem=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:80]
            )


def step_of(subject: Subject, way: str, device: torch.device, images: int) -> tuple[Step, int]:
    """A step of a way, and how many captions are learned or written in it."""
    rows = random_captions(images)
    if way.startswith("captioning"):
        return partial(subject.write, images, WRITTEN), images
    model = subject.model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=device.type == "cuda")
    if mode := next((mode for end, mode in MODES.items() if way.endswith(end)), None):
        model.compile(dynamic=mode == "default", mode=mode)
    loss = subject.plain_loss(rows) if way == "plain" else subject.packed_loss(rows, cached="cached" in way)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, images * CAPTIONS


def random_captions(images: int) -> list[list[list[int]]]:
    """Token ids of five captions for each image, the same for every way."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(TOKENS.start, TOKENS.stop, (images, CAPTIONS), generator=generator).tolist()
    return [
        [torch.randint(10, NoTokenizer.words, (length,), generator=generator).tolist() for length in row]
        for row in lengths
    ]


def counted(step: Step, compiled: bool = False) -> float:
    """Operations of the products of a step, forward and backward: two for each multiplication.

    A compiled step makes the same products, but its kernels can't be counted: it is counted as it is.
    """
    stance = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
    with stance, FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def timed(step: Step, seconds: float, device: torch.device, now: Callable[[], float] = time.perf_counter) -> float:
    """The median of the seconds that steps take, for about so long, after two that do not count."""
    begin = now()
    for _ in range(2):
        step()
        _wait(device)
    taken: list[float] = []
    while len(taken) < LEAST or now() - begin < min(seconds, 10.0):
        start = now()
        step()
        _wait(device)
        taken.append(now() - start)
    return statistics.median(taken)


def peak_of(device: torch.device) -> float:
    """Operations a second that the device makes at best in bf16."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if known := next((peak for part, peak in PEAKS.items() if part in name), None):
        return known
    size = 8192 if device.type == "cuda" else 512
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    return 2 * size**3 / timed(lambda: one @ one, 1.0, device)


def table(lines: Sequence[Line], peak: float) -> str:
    """The Markdown table: images and captions a second, times plain, utilisation, GiB."""
    rows = ["| case | way | images a step | images/s | captions/s | times plain | use | GiB |", "| --- " * 8 + "|"]
    for line in lines:
        if line.problem:
            rows.append(f"| {line.case} | {line.way} | {line.problem} | | | | | |")
            continue
        rate = line.images / line.seconds
        alike = [
            other for other in lines if other.case == line.case and _kind(other) == _kind(line) and not other.problem
        ]
        plain = next((other.images / other.seconds for other in alike if other.way.endswith("plain")), None)
        star = " *" if len(alike) > 1 and rate == max(other.images / other.seconds for other in alike) else ""
        times = f"{rate / plain:.1f}" if plain else ""
        use = f"{line.operations / line.seconds / peak:.0%}" if line.operations else ""
        captions = line.captions / line.seconds
        rows.append(
            f"| {line.case} | {line.way}{star} | {line.images} | {rate:,.1f} | {captions:,.1f} | {times} | {use} "
            f"| {line.memory / 2**30:.1f} |"
        )
    return "\n".join(rows)


def _kind(line: Line) -> str:
    """Captioning is compared with captioning, training with training."""
    return "captioning" if line.way.startswith("captioning") else "training"


def _forget(device: torch.device) -> None:
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> float:
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0.0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
