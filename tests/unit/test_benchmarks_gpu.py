"""What `benchmarks/gpu.py` does before and after it has a GPU: models, losses, counted operations, shared time, the table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BlipForConditionalGeneration

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402  # it lies beside the package
import gpu_shapes  # noqa: E402

CPU = torch.device("cpu")
TRUE_SIZES = {
    ("blip", "base"): 224,
    ("blip", "large"): 446,
    ("prefix", "base"): 243,
    ("blip-2", "base"): 3745,
}
"""Millions of weights, tied ones once: BLIP base and large, ClipCap of ViT-B/32 and GPT-2, BLIP-2 with OPT-2.7B."""


@pytest.mark.parametrize(("family", "size"), TRUE_SIZES)
def test_the_shapes_are_those_of_published_models(family: str, size: str) -> None:
    with torch.device("meta"):
        model = gpu_shapes.PLAIN[family](gpu_shapes.config_of(family, size))
    found = sum(weight.numel() for weight in model.parameters()) / 1e6
    assert found == pytest.approx(TRUE_SIZES[family, size], rel=0.02)


@pytest.mark.parametrize("name", gpu_shapes.CASES)
def test_each_way_learns_and_writes_at_tiny_size(name: str) -> None:
    """Captrain's products are fewer than plain ones: a picture is encoded once for five captions, or not at all."""
    operations = {}
    for way in ("plain", "captrain", "captrain, cached")[: 2 + gpu_shapes.CASES[name].frozen]:
        subject = gpu_shapes.make_subject(name, way == "plain", CPU, tiny=True)
        step, captions = gpu.step_of(subject, way, CPU, images=2)
        weights = [weight for weight in subject.model.parameters() if weight.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        operations[way] = gpu.counted(step)
        assert captions == 10
        assert any(not torch.equal(old, new) for old, new in zip(before, weights, strict=True))
    assert sorted(operations.values(), reverse=True) == list(operations.values())
    for way in ("captioning, plain", "captioning, captrain"):
        step, captions = gpu.step_of(gpu_shapes.make_subject(name, "plain" in way, CPU, tiny=True), way, CPU, images=2)
        step()
        assert captions == 2


@pytest.mark.parametrize("name", ["blip-base-full", "clipcap-full", "blip-2-bridge"])
def test_plain_and_captrain_have_one_loss(name: str) -> None:
    """The same weights, pictures and captions: what is compared learns the same."""
    losses = []
    for plain in (True, False):
        subject = gpu_shapes.make_subject(name, plain, CPU, tiny=True)
        subject.model.eval()
        torch.manual_seed(1)
        rows = gpu.random_captions(2)
        loss = subject.plain_loss(rows) if plain else subject.packed_loss(rows, cached=False)
        losses.append(float(loss()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_counted_operations_are_those_of_the_formula() -> None:
    """BLIP's forward pass by hand: two operations a multiplication of every product."""
    config = gpu_shapes.config_of("blip", "tiny")
    config.text_config._attn_implementation = config.vision_config._attn_implementation = "eager"
    model, length = BlipForConditionalGeneration(config).eval(), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.zeros(1, 3, 32, 32), input_ids=torch.ones(1, length, dtype=torch.int64))
    see, read = config.vision_config, config.text_config
    patches = (see.image_size // see.patch_size) ** 2
    seen, width, text = patches + 1, see.hidden_size, read.hidden_size
    vision = 2 * patches * 3 * see.patch_size**2 * width
    layer = 8 * seen * width**2 + 4 * seen**2 * width + 4 * seen * width * see.intermediate_size
    vision += see.num_hidden_layers * layer
    itself = 8 * length * text**2 + 4 * length**2 * text
    across = 4 * length * text**2 + 4 * seen * width * text + 4 * length * seen * text
    language = read.num_hidden_layers * (itself + across + 4 * length * text * read.intermediate_size)
    language += 2 * length * text**2 + 2 * length * text * read.vocab_size
    assert counter.get_total_flops() == vision + language


def ticks(*seconds: float) -> Iterator[float]:
    yield from seconds


def test_time_is_shared_among_those_who_still_come() -> None:
    times = ticks(0, 0, 60, 60, 200)
    clock = gpu.Clock(100, lambda: next(times))
    assert clock.share(4) == 25
    assert clock.share(2) == 20  # the first took more than its share: less is left for the others
    assert clock.share(1) == 40
    assert clock.left() == 0


def test_a_way_is_timed_by_the_median_after_two_steps_that_do_not_count() -> None:
    done = []
    times = ticks(0, 1, 2, 2, 5, 5, 6, 99)
    assert gpu.timed(lambda: done.append(1), 0.0, CPU, lambda: next(times)) == 1
    assert len(done) == 5


def test_memory_that_runs_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def step_of(subject: object, way: str, device: torch.device, images: int) -> tuple[gpu.Step, int]:
        tried.append(images)
        if images > 2:
            raise torch.OutOfMemoryError("full")
        return (lambda: None), images

    monkeypatch.setattr(gpu, "step_of", step_of)
    line = gpu.measured_way("clipcap-full", "captioning, captrain", CPU, 8, 0.0, tiny=True)
    assert (tried, line.images, line.problem) == ([8, 4, 2], 2, "")
    monkeypatch.setattr(gpu, "step_of", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in gpu.measured_way("clipcap-full", "plain", CPU, 8, 0.0, tiny=True).problem


def test_the_table_says_rates_ratios_and_what_found_no_time() -> None:
    lines = [
        gpu.Line("one", "plain", 10, 50, 2.0, 4e12, 2**30),
        gpu.Line("one", "captrain", 10, 50, 0.5, 3e12, 2**31),
        gpu.Line("one", "captrain, graphs", problem="no time"),
        gpu.Line("one", "captioning, plain", 10, 10, 1.0),
    ]
    assert gpu.table(lines, 10e12).splitlines()[2:] == [
        "| one | plain | 10 | 5.0 | 25.0 | 1.0 | 20% | 1.0 |",
        "| one | captrain * | 10 | 20.0 | 100.0 | 4.0 | 60% | 2.0 |",
        "| one | captrain, graphs | no time | | | | | |",
        "| one | captioning, plain | 10 | 10.0 | 10.0 | 1.0 |  | 0.0 |",
    ]


def test_the_whole_script_on_a_cpu() -> None:
    command = [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--device", "cpu", "--images", "2", "--minutes", "0.5"]
    done = subprocess.run([*command, "--case", "blip-base-lora"], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["way"] for line in lines] == [*gpu.FIRST, "captioning, plain", "captioning, captrain"]
    assert all(line["seconds"] > 0 and not line["problem"] for line in lines)
