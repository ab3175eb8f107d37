"""How much speed is left on two cores when another process wants one of them: encoding, training, captioning.

    python benchmarks/neighbour.py [--seconds 15] [--rounds 3] [--works encode,train,caption] [--plain]

Each work runs in a process of its own that may use two cores, with the rules that `captrain` sets in its processes
(`captrain doctor` shows them), or with `--plain` without them. It is measured alone, and then while a process beside it counts on
the second core without a pause. Both take turns, and the median of the rounds' ratios counts. The exit code is 1 if one is below
the bound. What can be kept is 0.75, as the neighbour takes half of one core; threads that share each layer keep 0.5 at most.

    encode    a MobileNet of 0.75 at 224 pixels, from a tar of JPEGs to a feature store
    train     steps of BLIP base at 384 pixels with LoRA: 2 pictures with 5 captions each, the encoder's features kept
    caption   JPEGs to captions of 20 tokens, greedily, by a BLIP of 2 + 2 layers of the usual width
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import cpu_name

BOUND = 0.45
PICTURES = 256  # of a turn of encoding
UNITS = {"encode": "pictures/s", "train": "captions/s", "caption": "captions/s"}
BUSY = "while True: pass"

Turn = Callable[[], int]
"""Does a piece of work, and returns how many pictures or captions that were."""


def main() -> int:
    """Measure all works alone and beside a neighbour, or one of them (as the inner process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement, after a turn that warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--works", default=",".join(UNITS))
    parser.add_argument("--plain", action="store_true", help="without the rules that captrain sets")
    parser.add_argument("--work", choices=UNITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(measure(options.work, options.seconds, plain=options.plain)))
        return 0
    return compare(options)


def compare(options: argparse.Namespace) -> int:
    """All works, alone and beside a neighbour, round after round; then medians and ratios. 1 if a bound is broken."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("found one core, expected two: a neighbour on the only core leaves half")
        return 1
    rules = "without captrain's rules" if options.plain else "with captrain's rules"
    print(f"{cpu_name()}, cores {cores[0]} and {cores[1]}, {rules}, medians of {options.rounds} rounds")
    print(f"{'':10}{'alone':>10}{'busy':>10}  {'':12}{'ratio':>7}{'MB':>8}   ratios of the rounds")
    broken = False
    for work in options.works.split(","):
        alone, busy, ratios, memory = [], [], [], 0.0
        for _ in range(options.rounds):
            quiet = run(work, options, cores)
            with neighbour(cores[1]):
                beside = run(work, options, cores)
            alone.append(quiet["rate"])
            busy.append(beside["rate"])
            ratios.append(beside["rate"] / quiet["rate"])
            memory = max(memory, quiet["memory"])
        kept = statistics.median(ratios)
        broken |= kept < BOUND
        print(
            f"{work:10}{statistics.median(alone):10.2f}{statistics.median(busy):10.2f}  {UNITS[work]:12}{kept:7.2f}"
            f"{memory / 2**20:8.0f}   {' '.join(f'{ratio:.2f}' for ratio in ratios)}",
            flush=True,
        )
    print(f"{'BROKEN' if broken else 'kept'}: at least {BOUND} of the speed beside a neighbour")
    return int(broken)


def run(work: str, options: argparse.Namespace, cores: list[int]) -> dict[str, float]:
    """One measurement, in a process of its own on both cores."""
    command = [sys.executable, __file__, "--work", work, "--seconds", str(options.seconds)]
    command += ["--plain"] if options.plain else []
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY",)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    os.sched_setaffinity(process.pid, cores)  # it has not looked yet how many there are
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{work} failed; run: {' '.join(command)}")
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


@contextmanager
def neighbour(core: int) -> Iterator[None]:
    """A process that counts on one core meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    os.sched_setaffinity(process.pid, {core})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(work: str, seconds: float, *, plain: bool) -> dict[str, float]:
    """How many pictures or captions a second, and the peak of memory in bytes. Torch is loaded after the rules are set."""
    import resource

    if not plain:
        from captrain import share_machine

        share_machine()
    begin = {"encode": begin_encoding, "train": begin_training, "caption": begin_captioning}[work]
    with tempfile.TemporaryDirectory() as folder:
        turn = begin(Path(folder))
        turn()
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < seconds:
            done += turn()
        rate = done / (time.perf_counter() - start)
    return {"rate": rate, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def begin_encoding(folder: Path) -> Turn:
    """From a tar to a new store; the encoder is opened each time, which is a few hundredths of a turn."""
    from encode import jpeg, random_encoder, write_shard

    from captrain.features.encode import EncoderOpening
    from captrain.features.encode import encode as encode_data

    encoder = random_encoder(folder / "encoder")
    shard = write_shard(folder / "pictures.tar", [jpeg(number, 300) for number in range(PICTURES)])
    stores = iter(range(1_000_000))

    def turn() -> int:
        encode_data(str(shard), str(folder / f"store-{next(stores)}"), EncoderOpening(encoder))
        return PICTURES

    return turn


def begin_training(folder: Path) -> Turn:
    """The step of benchmarks/packing.py, in the precision that this machine is fast at."""
    import torch
    from packing import CAPTIONS, packed_step

    from captrain.models.device import fast_bf16

    images = 2
    step = packed_step(images, torch.device("cpu"), fast_bf16(torch.device("cpu")), encode=False)

    def turn() -> int:
        step()
        return images * CAPTIONS

    return turn


def begin_captioning(folder: Path) -> Turn:
    """Batches of 16 pictures; 577 vectors an image, as BLIP base has them."""
    from encode import jpeg

    import captrain
    from captrain.testing import tiny_blip

    captioner = captrain.load(tiny_blip(folder / "blip", size=192, width=768), device="cpu")
    pictures = [jpeg(number, 300) for number in range(16)]

    def turn() -> int:
        return len(captioner.caption(pictures, beams=1, min_new_tokens=20, max_new_tokens=20))

    return turn


if __name__ == "__main__":
    sys.exit(main())
