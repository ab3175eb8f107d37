"""A training in several processes, as far as one process can tell: who gets which rows, what fits, how processes are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.samples import Mixture
from captrain.errors import SettingsError
from captrain.settings.schema import DistributedSettings, ModelSettings, Settings, TrainingSettings
from captrain.training.distributed.group import ProcessGroup, here
from captrain.training.distributed.launch import worker_environments
from captrain.training.distributed.processes import DeadWorkerError, run_workers
from captrain.training.distributed.sharding import layers
from captrain.training.distributed.strategy import (
    ZeroSettings,
    check_configuration,
    zero_configuration,
)
from captrain.training.resolve import check_processes
from captrain.training.rows import EpochSampler


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_each_image_is_seen_once_an_epoch(images: int, each: int, size: int, epoch: int) -> None:
    """Whatever the number of processes: they have as many batches, and a batch is the same images."""
    mixture = Mixture(np.zeros(images, dtype=np.int64))
    samplers = [EpochSampler(mixture, each * size, rank, size) for rank in range(size)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    dealt = [list(sampler) for sampler in samplers]
    alone = EpochSampler(mixture, each * size)
    alone.set_epoch(epoch)
    assert {len(batches) for batches in dealt} == {len(alone)}
    for whole, *shares in zip(alone, *dealt, strict=True):
        assert all(shares)
        learned = [row for share in shares for row in share if row[1] >= 0]
        assert sorted(learned) == sorted(whole)
        assert max(map(len, shares)) <= each


def of(devices: str, batch: int = 4, **distributed: object) -> Settings:
    """Settings of a training on the processor."""
    return Settings(
        model=ModelSettings(device="cpu"),
        training=TrainingSettings(batch_size=batch),
        distributed=DistributedSettings(devices=devices, **distributed),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (of("cpu:3"), "batch_size 4: can't be shared out evenly over 3 devices; expected a multiple of 3, such as 6"),
        (of("cpu:0"), "devices cpu:0: expected at least one process"),
        (of("all"), "devices all: found no GPU for it, only cpu; expected cpu:2"),
        (of("0,1"), "devices 0,1: found no GPU for it, only cpu"),
        (of("cpu:2", strategy="deepspeed"), "strategy deepspeed: needs GPUs (cuda), found cpu"),
        (of("cpu:2", zero_offload=True), "zero_offload: is for --strategy deepspeed alone"),
    ],
)
def test_what_does_not_fit_is_refused(settings: Settings, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        worker_environments(settings)
    assert words in str(error.value)


@pytest.mark.parametrize("devices", ["two", "cpu:", "0,", "-1", "cuda:0"])
def test_devices_are_names_or_numbers(devices: str) -> None:
    with pytest.raises(ValueError, match="devices"):
        DistributedSettings(devices=devices)


def test_no_process_is_started_in_one_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun has started as many as there shall be."""
    assert len(worker_environments(of("cpu:2"))) == 2
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert worker_environments(of("cpu:2")) == []
    assert worker_environments(Settings()) == []


@pytest.mark.parametrize(
    ("training", "words"),
    [(TrainingSettings(ema=0.9), "--ema"), (TrainingSettings(optimizer="adafactor"), "adamw, found adafactor")],
)
def test_what_needs_whole_weights_is_refused_where_they_are_shared_out(training: TrainingSettings, words: str) -> None:
    settings = Settings(training=training, distributed=DistributedSettings(strategy="fsdp"))
    with pytest.raises(SettingsError, match=words):
        check_processes(settings, 2, "cuda")
    whole = settings.model_copy(update={"distributed": DistributedSettings()})
    check_processes(whole, 2, "cuda")


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_the_configuration_of_zero(stage: int, offload: bool) -> None:
    """Under the names that DeepSpeed's documentation has."""
    found = zero_configuration(ZeroSettings(stage, offload), torch.float16)
    sharing = found["zero_optimization"]
    assert sharing["stage"] == stage
    assert ("offload_optimizer" in sharing, "offload_param" in sharing) == (offload, offload and stage == 3)
    assert found["fp16"] == {"enabled": "auto"}
    assert "fp16" not in zero_configuration(ZeroSettings(stage, offload), torch.bfloat16)


def test_deepspeed_knows_the_configuration() -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: its schema can't judge the configuration")
    for stage in (1, 2, 3):
        check_configuration(zero_configuration(ZeroSettings(stage, True), torch.float32))


def test_only_outermost_layers_come_together_for_themselves() -> None:
    """A layer that holds layers is one unit; what has no weights is none."""
    inner = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
    layer = torch.nn.Sequential(inner, torch.nn.Linear(1, 1))
    model = torch.nn.Sequential(torch.nn.Embedding(2, 1), torch.nn.ModuleList([layer, torch.nn.Identity(), layer]))
    assert layers(model) == [layer, layer]


def test_a_group_of_one_waits_for_nobody() -> None:
    group = here()
    assert (group.rank, group.size, group.is_first) == (0, 1, True)
    assert group.gather("a") == ["a"]
    assert group.from_first("a") == "a"
    assert group.main_process_first(lambda: "a") == "a"
    with pytest.raises(KeyError), group.together():
        raise KeyError
    assert not ProcessGroup(1, 2).is_first


# Processes that are watched. The work is of the standard library, so that they start at once.


def test_the_first_process_tells_the_result() -> None:
    assert run_workers([{"A": "x"}, {"A": "y"}], os.getenv, "RANK") == "0"
    assert run_workers([{"A": "x"}], os.getenv, "A") == "x"
    assert "RANK" not in os.environ


def test_what_the_work_raises_comes_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_workers([{}, {}], int, "x")


@pytest.mark.parametrize(("code", "words"), [(7, "ended with exit code 7"), (1, "ended with exit code 1")])
def test_a_process_that_ends_without_a_word(code: int, words: str) -> None:
    with pytest.raises(DeadWorkerError, match=words):
        run_workers([{}, {}], os._exit, code)


def test_a_crash_is_told_by_its_signal() -> None:
    with pytest.raises(DeadWorkerError, match="was ended by SIGABRT"):
        run_workers([{}], os.abort)


def test_no_process_outlives_a_failure() -> None:
    """The one that fails at once ends the one that would sleep."""
    start = time.monotonic()
    with pytest.raises(DeadWorkerError, match="process 1 of 2 ended with exit code 9"):
        run_workers([{}, {}], exec, "import os, time; os._exit(9) if os.environ['RANK'] == '1' else time.sleep(600)")
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("member", "said"), [({}, "closed\ntaken apart\n"), ({"RANK": "1", "WORLD_SIZE": "2"}, "closed\n")]
)
def test_a_process_of_a_group_ends_without_being_taken_apart(member: dict[str, str], said: str) -> None:
    """A thread of gloo that still runs then would abort it."""
    program = """
import atexit
from captrain.training.distributed.processes import end_process

class Kept:
    def __del__(self, say=print):
        say("taken apart")

kept = Kept()
atexit.register(print, "closed")
end_process(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | member, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")
