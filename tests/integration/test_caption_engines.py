"""`captrain caption --engine`: the same bytes from every engine, after every interruption; and what is refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import killing_node_of, stuck_worker, two_workers
from run_tools import Cli, holding, lines_of

from captrain.data.feature_store.layout import StoreFolder
from captrain.disk.locks import lock_of
from captrain.features.engines import EngineOptions
from captrain.features.stream import Batching
from captrain.inference.caption_files import PART_IMAGES, CaptionOutcome, CaptionOutput
from captrain.inference.caption_parts import caption_parts
from captrain.inference.captioning_engine import CaptionerOpening
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.testing import teach, tiny_blip

WORDS = "--device cpu --precision fp32 --batch-size 2"
ENGINE = f"{WORDS} --engine local"
ON_CPU = EngineOptions(devices=("cpu",))


class Killed(BaseException):
    """In place of a signal: nothing in the product catches it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, blip: Path) -> Path:
    """A captioner whose captions differ from picture to picture."""
    captioner = load_captioner(str(blip))
    teach(captioner, steps=40)
    folder = tmp_path_factory.mktemp("taught") / "blip"
    save_captioner(captioner, folder)
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The photos as four tar shards of three; do not write into it."""
    from captrain.data.convert import FormOptions, convert

    folder = tmp_path_factory.mktemp("tars") / "shards"
    convert(str(photos), folder, "webdataset", form=FormOptions(shard_size=3))
    return folder


def caption(model: Path, data: Path, output: Path, **options: Any) -> CaptionOutcome:
    """In parts of two pictures, so that each tar has two parts."""
    return captioned(model, data, output, part_images=2, **options)


def captioned(
    model: Path,
    data: Path,
    output: Path,
    *,
    engine: EngineOptions = ON_CPU,
    existing: str = "skip",
    part_images: int = PART_IMAGES,
    batch_size: int = 2,
    precision: str = "fp32",
    **options: Any,
) -> CaptionOutcome:
    """As `caption_parts` does, with the options of these tests."""
    to = CaptionOutput(output, existing=existing, part_images=part_images)
    opening = CaptionerOpening(str(model), precision)
    return caption_parts(opening, [str(data)], to, engine=engine, batching=Batching(batch_size), **options)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("out"))


def test_engines_write_what_is_written_without_one(
    cli: Cli, model: Path, tars: Path, photos: Path, tmp_path: Path
) -> None:
    """The same bytes with one device and with several. An engine ends its batch with each part; without one, pictures of the
    next tar come in where captions are finished, and another batch rounds the sums of a score otherwise."""
    shards = sorted(tars.glob("*.tar"))
    for data, size in [([tars], 3), ([photos], 3), (shards, 3), ([shards[1], photos], 3), ([tars], 2)]:
        outputs = [tmp_path / f"out-{kind}.jsonl" for kind in ("plain", "local", "two")]
        for output, words in zip(outputs, (WORDS, ENGINE, ENGINE.replace("device", "devices", 1)), strict=True):
            several = words.replace("--devices cpu", "--devices cpu,cpu").replace("size 2", f"size {size}")
            assert cli("caption", several, model, *data, "--output", output, "--existing overwrite").code == 0
        plain, local = lines_of(outputs[0]), lines_of(outputs[1])
        assert len(plain) in (12, 15) and "image" in plain[0]
        assert outputs[2].read_bytes() == outputs[1].read_bytes()
        if data == [photos]:
            assert outputs[1].read_bytes() == outputs[0].read_bytes()
        scores = [[line.pop("score") for line in lines] for lines in (plain, local)]
        assert local == plain
        assert scores[1] == pytest.approx(scores[0], abs=2e-6)
        assert left_in(tmp_path) == sorted(output.name for output in outputs)


def test_a_machine_that_dies_leaves_no_trace_in_the_captions(
    model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a cluster of two workers, one of which is killed while it writes; half of the parts are there from before."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'captrain[scale]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    whole, output, flag = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", tmp_path / "stuck"
    caption(model, tars, whole)
    kill_at_write(3, monkeypatch)
    with pytest.raises(Killed):
        caption(model, tars, output)
    monkeypatch.undo()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    stuck = stuck_worker(flag, lambda order, part: f"{order.folder.folder.place}/{part.note.name}.jsonl.0123abcd.tmp")
    monkeypatch.setattr("captrain.features.ray_engine.RayWorker", stuck)
    with two_workers() as cluster, killing_node_of(flag, cluster):
        found = caption(model, tars, output, engine=EngineOptions("ray", ("cpu",), cluster.address))
    assert caplog.text.count("its worker died; another one continues") == 1
    assert (found.written, found.skipped) == (12 - 3, 3), "of what was there before nothing was done again"
    assert output.read_bytes() == whole.read_bytes()
    assert left_in(tmp_path) == ["out.jsonl"]


def test_killed_anywhere_it_ends_with_the_same_bytes(
    model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caption(model, tars, tmp_path / "whole.jsonl")
    wanted = (tmp_path / "whole.jsonl").read_bytes()
    for last, done in ((0, 0), (1, 0), (2, 2), (4, 5), (8, 11), (9, 12)):  # 1: begun, 9: joined, but nothing removed
        output = tmp_path / f"out-{last}.jsonl"
        kill_at_write(last, monkeypatch)
        with pytest.raises(Killed):
            caption(model, tars, output)
        monkeypatch.undo()
        found = caption(model, tars, output)
        assert output.read_bytes() == wanted, last
        assert (found.written, found.skipped) == (12 - done, done)
    assert not list(tmp_path.glob("*.parts"))


def kill_at_write(last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many files, writing one leaves half of it and raises `Killed`."""
    write, left = StoreFolder.write, [last]

    def killing(folder: StoreFolder, name: str, chunks: Iterable[bytes]) -> None:
        if left[0] == 0:
            Path(folder.place).mkdir(parents=True, exist_ok=True)
            Path(folder.place, f"{name}.0123abcd.tmp").write_bytes(b"half")
            raise Killed
        left[0] -= 1
        write(folder, name, chunks)

    monkeypatch.setattr(StoreFolder, "write", killing)


def test_drawn_captions_are_the_same_after_an_interruption(
    model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {"decoding": {"sample": True, "top_p": 1.0, "temperature": 2.0}}
    caption(model, tars, tmp_path / "whole.jsonl", **drawn)
    caption(model, tars, tmp_path / "greedy.jsonl")
    kill_at_write(4, monkeypatch)
    with pytest.raises(Killed):
        caption(model, tars, tmp_path / "out.jsonl", **drawn)
    monkeypatch.undo()
    caption(model, tars, tmp_path / "out.jsonl", **drawn)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "out.jsonl").read_bytes() != (tmp_path / "greedy.jsonl").read_bytes()


SLOW = """
import sys, time
from captrain.inference.parts_folder import PartsFolder
write = PartsFolder.write
def slow(folder, part):
    note = write(folder, part)
    time.sleep(0.5)
    return note
PartsFolder.write = slow
from captrain.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_kill_9_in_the_middle(cli: Cli, model: Path, tars: Path, tmp_path: Path) -> None:
    """A real signal to a real process; meanwhile a second one is refused, and afterwards its lock is taken over."""
    output, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    assert cli("caption", model, tars, "--output", tmp_path / "whole.jsonl", ENGINE).code == 0
    words = ["caption", str(model), str(tars), "--output", str(output), *ENGINE.split()]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (parts / "00001.000.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert f"(process {process.pid}, for " in cli(*[Path(word) for word in words]).last_line
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.jsonl")}
    assert lock_of(output).exists() and 2 <= len(before) < 4 and not output.exists()
    result = cli(*[Path(word) for word in words])
    assert result.code == 0 and f"skipped  {3 * len(before)}" in result.out
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert left_in(tmp_path) == ["out.jsonl"]


def test_a_broken_tar_costs_its_own_rest_and_a_bad_picture_itself(
    cli: Cli, model: Path, tars: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tars, broken)
    victim = sorted(broken.glob("*.tar"))[1]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    last = sorted(broken.glob("*.tar"))[3]
    content = last.read_bytes()
    place = content.index(b"\x89PNG")
    last.write_bytes(content[:place] + b"nonsense" + content[place + 8 :])
    result = cli("caption", model, broken, "--output", tmp_path / "out.jsonl", ENGINE)
    assert result.code == 3 and "rejected  2 (listed in" in result.out
    ids = [line["id"] for line in lines_of(tmp_path / "out.jsonl")]
    assert ids == sorted(ids) and 6 < len(ids) < 12 and sum(name.startswith("00003/") for name in ids) == 2
    reasons = [line["reason"] for line in lines_of(tmp_path / "out.rejected.jsonl")]
    assert "cut short" in reasons[0] and len(reasons) == 2
    assert left_in(tmp_path) == ["out.jsonl", "out.rejected.jsonl"]


def test_a_shard_that_cannot_be_read_now_is_read_the_next_time_and_stands_in_its_place(
    cli: Cli, model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captrain.data.shards import stream

    opened, words = stream._opened, ("caption", model, tars, "--output", tmp_path / "out.jsonl", ENGINE)

    def failing(shard: Any) -> Any:
        if shard.name == "00001.tar":
            raise OSError(5, "the network is down")
        return opened(shard)

    monkeypatch.setattr(stream, "_opened", failing)
    result = cli(*words)
    assert result.code == 1 and "00001.tar; run the command again" in result.out
    assert len(lines_of(tmp_path / "out.jsonl")) == 9
    monkeypatch.undo()
    assert "written  3" in cli(*words).out
    ids = [line["id"] for line in lines_of(tmp_path / "out.jsonl")]
    assert len(ids) == 12 and ids == sorted(ids)
    assert left_in(tmp_path) == ["out.jsonl"]


def test_captions_that_are_there_stay_unless_they_are_to_be_overwritten(
    cli: Cli, model: Path, tars: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    mine = '{"id": "00002/photo-007.png", "text": "mine"}\n'
    output.write_text(mine)
    words = ("caption", model, tars, "--output", output, ENGINE)
    result = cli(*words)
    assert result.code == 0 and "written  11" in result.out and "skipped  1 " in result.out
    assert output.read_text().startswith(mine)
    assert sorted(line["id"] for line in lines_of(output))[7] == "00002/photo-007.png" and len(lines_of(output)) == 12
    content = output.read_bytes()
    assert cli(*words).code == 0 and output.read_bytes() == content
    assert "written  12" in cli(*words, "--existing overwrite").out
    assert "mine" not in output.read_text() and len(lines_of(output)) == 12


def test_a_shard_that_changed_meanwhile_is_captioned_again(
    model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, output = tmp_path / "data", tmp_path / "out.jsonl"
    shutil.copytree(tars, data)
    kill_at_write(6, monkeypatch)
    with pytest.raises(Killed):
        caption(model, data, output)
    monkeypatch.undo()
    shutil.copy(data / "00003.tar", data / "00000.tar")
    found = caption(model, data, output)
    assert "00000.tar: changed since it was captioned" in caplog.text
    assert (found.written, found.skipped) == (12 - 5, 5)
    assert [line["id"] for line in lines_of(output)][:2] == ["00000/photo-009.png", "00000/photo-010.png"]


def test_another_model_or_decoding_is_refused_and_both_are_named(
    cli: Cli, model: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, other = tmp_path / "out.jsonl", tiny_blip(tmp_path / "other", seed=7)
    kill_at_write(2, monkeypatch)
    with pytest.raises(Killed):
        captioned(model, tars, output)
    monkeypatch.undo()

    def line(*words: str | Path) -> str:
        result = cli(*words, "--output", output)
        assert result.code == 2 and len(result.err.strip().splitlines()) == 1, result.err
        return result.last_line

    of_other = line("caption", other, tars, ENGINE)
    assert f"holds captions of {model} (weights" in of_other and f"not of {other}" in of_other
    assert "beams 3, not 5" in line("caption", model, tars, ENGINE, "--beams 5")
    assert "precision 'fp32', not 'bf16'" in line("caption", model, tars, ENGINE.replace("fp32", "bf16"))
    assert "which the data does not have" in line("caption", model, tars / "00002.tar", ENGINE)
    assert "was begun with --engine" in line("caption", model, tars, WORDS)
    with holding(output) as pid:
        assert f"(process {pid}, for " in line("caption", model, tars, ENGINE)
    assert cli("caption", other, tars, "--output", output, ENGINE, "--existing overwrite").code == 0
    assert left_in(tmp_path) == ["out.jsonl"]


def test_wrong_use_is_one_clear_line_and_leaves_nothing(cli: Cli, model: Path, tars: Path, tmp_path: Path) -> None:
    def line(words: str, output: str = "--output out.jsonl", of: Path = model) -> str:
        result = cli("caption", WORDS.replace("--device cpu", ""), words, of, tars, output)
        assert result.code == 2 and len(result.err.strip().splitlines()) == 1, result.err
        assert left_in(tmp_path) == []
        return result.last_line

    assert "give --output captions.jsonl" in line("--engine ray", "")
    assert "goes with --engine ray" in line("--engine local --address 127.0.0.1:1")
    assert "goes with --engine ray" in line("--address 127.0.0.1:1")
    assert "--existing append" in line("--engine local --existing append")
    assert "several devices go with --engine local" in line("--devices cpu,cpu")
    assert "each" in line("--engine ray --devices cpu,cpu")
    assert "expected one of them" in line("--engine local --device cpu --devices cpu,cpu")
    assert "device 'cpu:7' is not on this machine" in line("--engine local --devices cpu:0,cpu:7")
    assert "nothing" in line("--engine local --device cpu", of=tmp_path / "nothing")
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'captrain[scale]'")
    assert "no Ray cluster answers" in line("--engine ray --address 127.0.0.1:1")
    (tmp_path / "out.jsonl.partial").touch()
    result = cli("caption", model, tars, "--output out.jsonl", ENGINE)
    assert result.code == 2 and "was begun without --engine" in result.last_line


@pytest.fixture(autouse=True)
def _no_cluster_of_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
