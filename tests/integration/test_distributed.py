"""Two processes equal one: the same losses step by step, scores, checkpoints, and a clear end when one of them dies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pair_tools import Pair
from run_tools import QUICK, Cli, Result, lines_of, losses_of
from safetensors.torch import load_file

from captrain.data.splits import FILE as SPLITS
from captrain.testing import tiny_photos

PLAIN = f"--validation-share 0.25 --epochs 2 --dropout 0 {QUICK}".replace("--batch-size 2", "--batch-size 4")
KINDS = {
    "adapters": "--model {blip} --checkpoint-every 2 --keep-checkpoints 9",
    "whole": "--encoder {encoder} --decoder-layers 1 --decoder-width 16 --decoder-heads 2 --decoder-dropout 0 --accumulate 2",
}
NEAR = 1e-5  # the promise is 1e-4


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two processes that run command lines together."""
    found = Pair()
    yield found
    found.close()


@pytest.fixture(scope="module")
def alone() -> dict[str, Path]:
    """By kind, a run of one process."""
    return {}


def run_alone(kind: str, words: str, alone: dict[str, Path], cli: Cli, photos: Path, folder: Path) -> Path:
    """The run of one process, made once."""
    if kind not in alone:
        assert cli("train", photos, folder / "alone", words).code == 0
        alone[kind] = folder / "alone"
    return alone[kind]


def assert_alike(run: Path, other: Path) -> None:
    """Losses and gradients of all steps, validations, captions and weights."""
    found, expected = lines_of(run / "metrics.jsonl"), lines_of(other / "metrics.jsonl")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for line, same in zip(found, expected, strict=True):
        for name in ("loss", "gradient_norm", "validation_loss", "cider", "bleu_4", "rouge_l", "learning_rate"):
            assert line.get(name) == pytest.approx(same.get(name), abs=NEAR), name
    texts, wanted = ([line["text"] for line in lines_of(path / "predictions.jsonl")] for path in (run, other))
    assert texts == wanted
    weights = {path.name for path in (run / "model").glob("*.safetensors")}
    assert weights == {path.name for path in (other / "model").glob("*.safetensors")}
    for name in weights:
        one, two = load_file(run / "model" / name), load_file(other / "model" / name)
        assert one.keys() == two.keys()
        assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-3


def assert_done(results: list[Result]) -> None:
    """Both processes ended well, and the second one said nothing."""
    assert [result.code for result in results] == [0, 0], results[0].err + results[1].err
    assert (results[1].out, results[1].err) == ("", "")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(
    kind: str, strategy: str, pair: Pair, alone: dict[str, Path], tmp_path: Path, cli: Cli,
    photos: Path, blip: Path, encoder: Path,
) -> None:  # fmt: skip
    """Nine pictures in batches of four: the last batch of an epoch is one picture, and one process has none of it."""
    words = f"{KINDS[kind].format(blip=blip, encoder=encoder)} {PLAIN}"
    one = run_alone(kind, words, alone, cli, photos, tmp_path)
    assert_done(pair.run(tmp_path, "train", photos, tmp_path / "run", words, f"--strategy {strategy}"))
    assert_alike(tmp_path / "run", one)
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("limit", [1, 5])
def test_validation_images_that_do_not_divide(
    limit: int, pair: Pair, tmp_path: Path, cli: Cli, photos: Path, blip: Path
) -> None:
    """One process has no image, or a batch more than the other; weights come together in both for each batch."""
    words = f"--model {blip} --validation-share 0.5 --validation-limit {limit} --epochs 1 --dropout 0 {QUICK}"
    assert cli("train", photos, tmp_path / "one", words).code == 0
    assert_done(pair.run(tmp_path, "train", photos, tmp_path / "two", words, "--strategy fsdp"))
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_in_another_number_of_processes(
    strategy: str, pair: Pair, alone: dict[str, Path], tmp_path: Path, cli: Cli, photos: Path, blip: Path, encoder: Path
) -> None:
    """From the middle of an epoch, one as two, and from there two as one: it ends as if it had been one all along."""
    words = f"{KINDS['adapters'].format(blip=blip)} {PLAIN}"
    one = run_alone("adapters", words, alone, cli, photos, tmp_path)
    run = tmp_path / "run"
    shutil.copytree(one, run)
    assert_done(pair.run(tmp_path, "train", photos, run, words, f"--strategy {strategy}", "--resume-from 2"))
    assert_alike(run, one)
    assert cli("train", photos, run, words, "--resume-from 4").code == 0
    assert_alike(run, one)


def test_bad_pictures_are_the_same_for_all(pair: Pair, tmp_path: Path, cli: Cli, blip: Path) -> None:
    """Each process looks at its share of the pictures; both know which are left."""
    photos = tiny_photos(tmp_path / "photos", count=10)
    for number in (2, 5):
        (photos / f"photo-{number:03d}.png").write_bytes(b"no picture")
    words = f"--model {blip} {PLAIN} --epochs 1".replace("--epochs 2", "")
    for keep in ("auto", "off"):
        one = cli("train", photos, tmp_path / f"one-{keep}", words, f"--keep {keep}")
        two = pair.run(tmp_path, "train", photos, tmp_path / f"two-{keep}", words, f"--keep {keep}")
        assert [one.code, *(result.code for result in two)] == [3, 3, 3], two[0].err + two[1].err
        assert_alike(tmp_path / f"two-{keep}", tmp_path / f"one-{keep}")
        listed = [lines_of(tmp_path / f"{count}-{keep}" / "rejected.jsonl") for count in ("one", "two")]
        assert sorted(line["id"] for line in listed[0]) == sorted(line["id"] for line in listed[1])
        kept = [(tmp_path / f"{count}-{keep}" / SPLITS).read_bytes() for count in ("one", "two")]
        assert kept[0] == kept[1]


def test_batches_that_cannot_be_shared_out(pair: Pair, tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} {QUICK}".replace("--batch-size 2", "--batch-size 3")
    line = "error: batch_size 3: can't be shared out evenly over 2 devices; expected a multiple of 2, such as 4"
    first, second = pair.run(tmp_path, "train", photos, tmp_path / "run", words)
    assert (first.code, second.code) == (2, 2)
    assert (first.err.strip(), second.err) == (line, "")
    result = cli("train", photos, tmp_path / "run", words, "--devices cpu:2")
    assert (result.code, result.err.strip()) == (2, line)
    assert not (tmp_path / "run").exists()


def test_an_error_is_told_once(pair: Pair, tmp_path: Path, photos: Path, blip: Path) -> None:
    """What the first process alone finds out ends both."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    first, second = pair.run(tmp_path, "train", photos, tmp_path / "run", f"--model {blip} {QUICK}")
    assert (first.code, second.code) == (2, 2)
    assert "holds other files (letter.txt)" in first.last_line
    assert second.err == ""


def started_here() -> dict[str, psutil.Process]:
    """By rank, the processes that captrain has started."""
    forks = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    forks = [child for child in forks if "--multiprocessing-fork" in child.cmdline()]
    return {child.environ()["RANK"]: child for child in forks if "RANK" in child.environ()}


def test_a_process_that_dies_ends_the_training(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """Within seconds, with one line that says what is saved; nothing is left running, and one process can go on."""
    run, words = tmp_path / "run", f"--model {blip} {PLAIN} --checkpoint-every 1".replace("--epochs 2", "--epochs 30")
    killed: list[float] = []

    def kill_second() -> None:
        while not killed:
            saved = list(run.glob("checkpoints/checkpoint-*/learned.safetensors"))
            if saved and len(workers := started_here()) == 2:
                workers["1"].kill()
                killed.append(time.monotonic())
            time.sleep(0.01)

    threading.Thread(target=kill_second, daemon=True).start()
    result = cli("train", photos, run, words, "--devices cpu:2")
    assert time.monotonic() - killed[0] < 30
    assert result.code == 1
    assert "error: process 1 of 2 was ended by SIGKILL" in result.last_line
    assert f"the last good checkpoint is {run}/checkpoints/checkpoint-" in result.last_line
    assert started_here() == {}
    before = len(losses_of(run))
    assert cli("train", photos, run, words).code == 0
    assert len(losses_of(run)) == 90 > before


@pytest.mark.parametrize(
    "launch",
    [
        "torch.distributed.run --standalone --nproc-per-node 2",
        "accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0",
    ],
    ids=["torchrun", "accelerate"],
)
def test_launchers(launch: str, tmp_path: Path, photos: Path, blip: Path) -> None:
    """As somebody starts it on each of several machines."""
    words = f"train {photos} {tmp_path / 'run'} --model {blip} --epochs 1 --devices all {QUICK}"
    command = [sys.executable, "-m", *launch.split(), "-m", "captrain", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("BLEU-1") == 1
    assert (tmp_path / "run" / "finished.json").is_file()


def test_a_launcher_that_starts_one_process_for_several(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `accelerate launch --cpu --num_processes 2` says to the process that it starts."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    result = cli("train", photos, tmp_path / "run", f"--model {blip} {QUICK}")
    assert result.code == 2
    assert "accelerate launch --cpu: starts one process alone" in result.err.strip()
    assert "expected --multi_gpu in place of --cpu" in result.last_line
    assert not (tmp_path / "run").exists()
