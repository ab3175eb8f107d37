"""Two of each command at once on one output: one wins, the other says in one line who writes; the killed one's lock goes over."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
from run_tools import QUICK, Cli, Result, holding, lines_of

import captrain
from captrain.data.feature_store.layout import StoreFolder
from captrain.data.feature_store.writer import locked_store as locked_store
from captrain.disk.lock_owner import Owner
from captrain.disk.locks import FOLDER_LOCK
from captrain.errors import BusyError

M = "--device cpu --precision fp32 --batch-size 2"
TRAIN = f"train photos run --model blip --validation-share 0.25 --epochs 1 --keep memory {QUICK}"
COMMANDS = {
    f"caption trained photos --output out.jsonl {M}": "out.jsonl",
    f"caption trained photos --output out.jsonl --engine local {M}": "out.jsonl",
    f"caption trained bare {M}": "bare/",
    TRAIN: "run/",
    f"{TRAIN} --devices cpu:2": "run/",
    f"evaluate trained photos --output scores {M}": "scores/",
    f"evaluate copied photos {M}": "copied/evaluation/",
    "score trained/predictions.jsonl trained/predictions.jsonl --save-document-frequencies df.gz": "df.gz",
    "encode photos store --encoder encoder --device cpu": "store/",
    "features merge merged kept": "merged/",
    "features convert kept embeddings": "embeddings",
    "data convert photos new --to sidecar": "new",
    "data convert photos full --to sidecar --overwrite": "full/",
    "data compile side compiled": "compiled",
    "data compile side": "side/",
    "data preview photos page.html": "page.html",
    "data check photos --rejects list.jsonl": "list.jsonl",
    "data get flickr8k flickr --from local --annotations-only --yes": "flickr/",
    "export trained plain": "plain",
    "export trained plain.zip": "plain.zip",
    "report trained --output page.html": "page.html",
    "report copied": "copied/report.html",
    "config import lavis.yaml recipe.yaml --model blip": "recipe.yaml",
    "demo demo": "demo/",
}
LAVIS = "model:\n  arch: blip_caption\nrun:\n  task: captioning\n  max_epoch: 5\n"
TOO_LONG = (
    "demo",
    "data get",
    f"{TRAIN} --devices",
)  # their locks are the first thing they do; the work is tested elsewhere


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, photos: Path, encoder: Path) -> Path:
    """A feature store of the photos; do not write into it."""
    from captrain.features.encode import EncoderOpening, encode
    from captrain.features.engines import EngineOptions

    store = tmp_path_factory.mktemp("stores") / "kept"
    opening = EncoderOpening(str(encoder), precision="fp32")
    encode(str(photos), str(store), opening, engine=EngineOptions(devices=("cpu",)))
    return store


@pytest.fixture
def place(tmp_path: Path, photos: Path, blip: Path, encoder: Path, trained: Path, kept: Path) -> Path:
    """A working folder with all that the commands name."""
    for name, folder in (
        ("photos", photos),
        ("blip", blip),
        ("encoder", encoder),
        ("trained", trained),
        ("kept", kept),
    ):
        (tmp_path / name).symlink_to(folder)
    shutil.copytree(trained, tmp_path / "copied")
    for name in ("bare", "side"):
        (tmp_path / name).mkdir()
        for picture in photos.glob("*.png"):
            shutil.copy(picture, tmp_path / name)
            if name == "side":
                (tmp_path / name / f"{picture.stem}.txt").write_text("a dog\n")
    shutil.copytree(tmp_path / "side", tmp_path / "full")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "caption_datasets.zip").touch()
    (tmp_path / "lavis.yaml").write_text(LAVIS)
    return tmp_path


def locks_in(folder: Path) -> list[str]:
    names = (name for _, _, names in os.walk(folder) for name in names)
    return [name for name in names if name == FOLDER_LOCK or name.endswith((".lock", ".lock.second"))]


def one_line(result: Result) -> str:
    """What a command said that was refused: one line (and before it, on stdout, what it was about to do)."""
    assert result.code == 2 and "written" not in result.out and len(result.err.strip().splitlines()) == 1, result
    return result.last_line


@pytest.mark.parametrize("words", COMMANDS, ids=range(len(COMMANDS)))
def test_the_second_is_refused_and_the_next_takes_over_from_the_killed(cli: Cli, place: Path, words: str) -> None:
    output = place / COMMANDS[words]
    if COMMANDS[words].endswith("/"):
        output.mkdir(parents=True, exist_ok=True)
    with holding(output) as pid:
        before = {path: path.stat().st_mtime_ns for path in output.rglob("*")} if output.is_dir() else {}
        said = one_line(cli(words))
        assert f"is being written by `python` of {Owner.me().user} on " in said and f"(process {pid}, for " in said
        assert before == ({path: path.stat().st_mtime_ns for path in output.rglob("*")} if output.is_dir() else {})
    assert len(locks_in(place)) == 1
    if not words.startswith(TOO_LONG):
        result = cli(words)
        assert result.code == 0, result.err
        assert output.exists() and locks_in(place) == []


def start(words: str, place: Path) -> subprocess.Popen[str]:
    words_of = [sys.executable, "-m", "captrain", *words.split()]
    return subprocess.Popen(words_of, cwd=place, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_captions_of_one_file_lose_nothing(place: Path) -> None:
    """Both start together, and one is stopped in the middle, so that they are at work at once whatever the machine does."""
    words = f"caption trained photos --output out.jsonl {M}"
    first = start(words, place)
    partial = place / "out.jsonl.partial"
    while not (partial.exists() and partial.stat().st_size) and first.poll() is None:
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = start(words, place)
    _, said = second.communicate()
    assert second.returncode == 2 and said.startswith("error: out.jsonl: is being written by `captrain caption` of ")
    assert f"(process {first.pid}, for " in said and len(said.splitlines()) == 1
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0 and len(lines_of(place / "out.jsonl")) == 12
    assert locks_in(place) == []


def test_sigterm_tidies_up_and_says_so_in_one_line(place: Path) -> None:
    process = start(f"caption trained photos --output out.jsonl {M}", place)
    while not (place / ".out.jsonl.lock").exists() and process.poll() is None:
        time.sleep(0.001)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 143 and said.splitlines()[-1] == "error: ended by SIGTERM" and "Traceback" not in said
    assert locks_in(place) == []


def test_one_who_only_reads_takes_no_lock(cli: Cli, place: Path) -> None:
    """A finished run, its report written elsewhere, captions of it, a look at a store: also while somebody writes there."""
    shutil.rmtree(place / "copied" / "evaluation", ignore_errors=True)
    with holding(place / "copied"), holding(place / "bare"), holding(place / "side"):
        assert cli("report copied --output page.html").code == 0
        assert cli(f"caption copied bare --output out.jsonl {M}").code == 0
        assert cli(f"evaluate copied photos {M}").code == 0
        assert cli("features info kept").code == 0
        assert cli("data check side").code in (0, 3)


def test_a_finished_run_is_only_looked_at(cli: Cli, place: Path) -> None:
    words = "--validation-share 0.25 --epochs 2 --keep memory"
    source = Path(os.path.realpath(place / "photos"))
    model = Path(os.path.realpath(place / "blip"))
    command = ("train", source, place / "copied", "--model", model, words, QUICK)
    with holding(place / "copied") as pid:
        assert "this run is finished" in cli(*command).err
        assert f"process {pid}" in one_line(cli(*command, "--overwrite"))
    (place / "copied" / "evaluation").mkdir(exist_ok=True)
    with holding(place / "copied" / "evaluation") as pid:
        assert f"process {pid}" in one_line(cli(*command, "--overwrite"))
        assert "this run is finished" in cli(*command).err


def test_a_report_that_is_being_written_costs_no_training(cli: Cli, place: Path) -> None:
    (place / "run").mkdir()
    from captrain.training import run as running

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            running, "write_report", lambda path: (_ for _ in ()).throw(BusyError(f"{path}: is being written"))
        )
        result = cli(TRAIN)
    assert result.code == 0 and "captrain report run writes the report of the whole run" in result.err
    assert (place / "run" / "finished.json").exists()


def test_python_is_held_to_the_same(place: Path) -> None:
    from captrain.inference.caption_files import CaptionOutput, caption_files
    from captrain.models.checkpoint.export import export

    with holding(place / "out.jsonl"), pytest.raises(BusyError):
        caption_files(str(place / "trained"), str(place / "photos"), CaptionOutput(place / "out.jsonl"))
    with holding(place / "plain"), pytest.raises(BusyError):
        export(str(place / "trained"), place / "plain")


def test_a_store_behind_a_url(place: Path) -> None:
    """Object stores hold nothing; the process that is named is looked for, and of two at once the later one has it."""
    folder = StoreFolder(f"memory://{place.name}/store")
    with locked_store(folder):
        with pytest.raises(BusyError, match=f"process {os.getpid()}"), locked_store(folder):
            pass
        assert folder.names("") == [FOLDER_LOCK]
    assert folder.names("") == []
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder.write(FOLDER_LOCK, [replace(Owner.me(), pid=dead.pid).to_json()])
    with locked_store(folder):
        pass
    elsewhere = replace(Owner.me(), host="elsewhere", boot="another")
    folder.write(FOLDER_LOCK, [elsewhere.to_json()])
    said = r"on elsewhere .* or remove .*store/\.captrain\.lock if it has died"
    with pytest.raises(BusyError, match=said), locked_store(folder):
        pass
    folder.remove(FOLDER_LOCK)


READ_ONLY = """
import subprocess, sys
folder, *words = sys.argv[1:]
for mount in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
    subprocess.run(["mount", *mount], check=True)
sys.exit(subprocess.run([sys.executable, "-m", "captrain", *words]).returncode)
"""


@pytest.mark.parametrize(
    "words",
    [
        "data convert photos shut/new --to sidecar",
        "data preview photos shut/page.html",
        "report copied --output shut/page.html",
    ],
)
def test_a_folder_on_a_file_system_that_is_read_only(place: Path, words: str) -> None:
    (place / "shut").mkdir()
    probe = ["unshare", "-m", "mount", "--bind", str(place / "shut"), str(place / "shut")]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("mounting needs rights that this user does not have")
    command = ["unshare", "-m", sys.executable, "-c", READ_ONLY, "shut", *words.split()]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "can't be written (Read-only file system); choose another place" in result.stderr


VANISHING = [
    (
        f"caption trained photos --output made/out.jsonl {M}",
        "captrain.inference.caption_files.CaptionLines.put",
        "made",
    ),
    (f"caption trained bare {M}", "captrain.inference.sidecar_captions.Beside.put", "bare"),
    (f"evaluate trained photos --output made {M}", "captrain.inference.evaluate.Progress.add", "made"),
    (TRAIN, "captrain.training.run_folder.folder.RunFolder.append", "run"),
    (
        "encode photos store --encoder encoder --device cpu",
        "captrain.data.feature_store.writer.StoreWriter.finish",
        "store",
    ),
    ("data convert side made/new --to sidecar", "captrain.data.writers.text_files.Sidecar.put", "made"),
    ("data convert side made/new --to sidecar", "captrain.data.writers.text_files.Sidecar.put", "side"),
    ("data check side", "captrain.data.check.captions.CaptionTally.add", "side"),
    (f"evaluate trained side --output made {M}", "captrain.inference.evaluate.Progress.add", "side"),
    ("export trained made/plain", "captrain.models.checkpoint.export.cast_weights", "made"),
]


@pytest.mark.parametrize(("words", "moment", "folder"), VANISHING, ids=range(len(VANISHING)))
def test_a_folder_that_vanishes_half_way_is_one_line(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, words: str, moment: str, folder: str
) -> None:
    """Pictures that were read before are used; the others are listed, or there is one line. Nothing hangs, no lock stays."""
    real = resolve_name(moment.rpartition(".")[0])
    name, work = moment.rpartition(".")[2], getattr(real, moment.rpartition(".")[2])
    calls = []

    def vanishing(*given: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == (1 if name in ("finish", "cast_weights") else 2):
            shutil.rmtree(place / folder)
        return work(*given, **named)

    monkeypatch.setattr(real, name, vanishing)
    (place / "made").mkdir()
    result = cli(words)
    assert len(calls) >= 1 and "Traceback" not in result.err and "did not expect" not in result.err
    assert result.code in (1, 2, 3) or folder == "side", result
    assert result.err.count("error: ") == (result.code in (1, 2))
    assert locks_in(place) == []


def test_a_clock_that_jumps_to_and_fro(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations come from a clock that nobody sets: what is logged, shown and kept is as ever."""
    draw, real = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: real() + draw.uniform(-1e8, 1e8))
    result = cli(TRAIN.replace("memory", "disk"))
    assert result.code == 0, result.err
    seconds = [json.loads(line)["seconds"] for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 60
    rates = re.findall(r"(-?[\d.]+) img/s, (-?\d+) s left", result.err)
    assert rates and all(float(rate) > 0 and 0 <= int(left) < 60 for rate, left in rates)
    assert cli(f"caption run photos --output out.jsonl {M}").code == 0
    assert locks_in(place) == []


def test_the_wall_clock_is_read_for_dates_only() -> None:
    """A duration by it would jump. The trainer hands it to transformers, trackers store it, ages of files have no other."""
    source = Path(captrain.__file__).parent
    found = {path.name for path in source.rglob("*.py") if "time.time()" in path.read_text(encoding="utf-8")}
    assert found <= {"trainer_adapter.py", "mlflow.py", "temporary_files.py"}
