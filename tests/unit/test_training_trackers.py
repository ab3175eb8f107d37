"""Trackers: each one real where it is installed, and what happens around them with one made for the test."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainerControl, TrainerState, TrainingArguments

from captrain.errors import SettingsError, UserError
from captrain.records import Caption, Sample
from captrain.settings.schema import Settings
from captrain.training import trackers
from captrain.training.trackers import SampleCaption, TrackedRun, follow
from captrain.training.trackers.follow import Following, small_picture


def picture(size: tuple[int, int] = (600, 300)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "JPEG")
    return file.getvalue()


SAMPLES = [Sample("a.jpg", picture(), ("two dogs",), ""), Sample("b.jpg", b"no picture", ("a cat",), "")]
CAPTIONS = [
    SampleCaption("a.jpg", "a <dog> *runs*", ["two dogs", "a | b"], small_picture(SAMPLES[0])),
    SampleCaption("b.jpg", "", [], None),
]


class Recorder:
    """Notes what it is given; fails where it is told to."""

    id = "its-own-id"
    rewinds = False

    def __init__(self, run: TrackedRun, fails: str = "") -> None:
        self.run, self.fails, self.calls = run, fails, []
        self._do("open")

    def _do(self, what: str, *values: Any) -> None:
        random.random(), np.random.rand(), torch.rand(1)
        if self.fails == what:
            raise ConnectionError("the server\nis gone")
        self.calls.append((what, *values))

    def scalars(self, step: int, values: Any) -> None:
        self._do("scalars", step, dict(values))

    def samples(self, step: int, captions: Any) -> None:
        self._do("samples", step, [(caption.id, caption.text, caption.picture is not None) for caption in captions])

    def close(self, *, whole: bool) -> None:
        self._do("close", whole)


class Trainings:
    """Calls a run's `Following` as Trainer does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.made: list[Recorder] = []

    def sitting(
        self, steps: range, fails: str = "", rewinds: bool = False, goes_back: bool = False, test: bool = False
    ) -> Recorder | None:
        """Train from the first step of a range to its end; there is an evaluation at every second step."""

        def open_tracker(name: str, run: TrackedRun) -> Recorder:
            made = Recorder(run, fails)
            made.rewinds = rewinds
            self.made.append(made)
            return made

        self.monkeypatch.setattr(follow, "open_tracker", open_tracker)
        latest = SimpleNamespace(predictions=[Caption("a.jpg", "a dog"), Caption("b.jpg", "a cat")])
        following = Following(("wandb",), self.folder, Settings(), SAMPLES, lambda: latest, goes_back)
        state, control = TrainerState(global_step=steps.start - 1, max_steps=steps.stop - 1), TrainerControl()
        args: Any = TrainingArguments
        with following.until_done():
            following.on_train_begin(args, state, control)
            for step in steps:
                state.global_step = step
                following.on_log(args, state, control, logs={"loss": 1.0 / step, "grad_norm": 0.5, "epoch": 1.0})
                if step % 2 == 0:
                    following.on_log(args, state, control, logs={"eval_cider": 0.5, "epoch": 1.0})
                    following.on_evaluate(args, state, control)
            if test:
                following.tested(steps.stop - 1, {"cider": 0.25})
        return self.made[-1] if self.made else None


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    return Trainings(tmp_path, monkeypatch)


def test_a_tracker_is_given_scalars_and_the_samples_with_pictures(trainings: Trainings) -> None:
    recorder = trainings.sitting(range(1, 3))
    assert recorder is not None
    assert recorder.run.name == trainings.folder.name
    assert recorder.calls == [
        ("open",),
        ("scalars", 1, {"train/loss": 1.0, "train/gradient_norm": 0.5, "epoch": 0.0}),
        ("scalars", 2, {"train/loss": 0.5, "train/gradient_norm": 0.5, "epoch": 0.0}),
        ("scalars", 2, {"validation/cider": 0.5, "epoch": 0.0}),
        ("samples", 2, [("a.jpg", "a dog", True), ("b.jpg", "a cat", False)]),
        ("close", True),
    ]


def test_the_next_sitting_continues_the_run_and_gives_no_step_again(trainings: Trainings) -> None:
    trainings.sitting(range(1, 5))
    again = trainings.sitting(range(3, 7))
    assert again is not None
    assert (again.run.id, again.run.step) == ("its-own-id", 2)
    assert [call[:2] for call in again.calls if call[0] != "close"] == [
        ("open",), ("scalars", 5), ("scalars", 6), ("scalars", 6), ("samples", 6),
    ]  # fmt: skip


def test_the_final_test_is_followed_once(trainings: Trainings) -> None:
    for sitting in (range(1, 4), range(3, 4)):
        recorder = trainings.sitting(sitting, test=True)
        assert recorder is not None
        given = [call for call in recorder.calls if call[0] == "scalars"]
        assert (given[-1:] == [("scalars", 3, {"test/cider": 0.25})]) == (sitting.start == 1)


def test_a_run_that_goes_back_is_another_one_told_from_its_beginning(trainings: Trainings) -> None:
    """Its steps after the checkpoint may be others than those that the tracker has, which can't forget them."""
    trainings.sitting(range(1, 7), test=True)
    lines = [
        {"kind": "train", "step": 1, "epoch": 0.5, "seconds": 1.0, "loss": 1.0, "gradient_norm": None},
        {"kind": "validation", "step": 2, "epoch": 1.0, "seconds": 2.0, "cider": 0.5},
    ]
    (trainings.folder / follow.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = trainings.sitting(range(3, 5), goes_back=True, test=True)
    assert again is not None
    assert (again.run.id, again.run.step) == (None, 2)
    assert again.run.name == f"{trainings.folder.name} from step 2"
    assert [call[1:] for call in again.calls if call[0] == "scalars"][:2] == [
        (1, {"train/loss": 1.0, "epoch": 0.5}),
        (2, {"validation/cider": 0.5, "epoch": 1.0}),
    ]
    assert [call[1] for call in again.calls if call[0] == "scalars"] == [1, 2, 3, 4, 4, 4]
    noted = json.loads((trainings.folder / follow.NOTES).read_text())
    assert noted == {"wandb": {"id": "its-own-id", "train": 4, "validation": 4, "samples": 4, "test": 4}}

    longer = trainings.sitting(range(5, 6), goes_back=True)
    assert longer is not None
    assert longer.run.id == "its-own-id", "nothing that it has came later"


def test_a_training_that_ends_on_its_way_is_not_marked_as_done(trainings: Trainings) -> None:
    def recorded(name: str, run: TrackedRun) -> Recorder:
        trainings.made.append(Recorder(run))
        return trainings.made[-1]

    trainings.monkeypatch.setattr(follow, "open_tracker", recorded)
    following = Following(("wandb",), trainings.folder, Settings(), SAMPLES, lambda: None)
    args: Any = TrainingArguments
    with pytest.raises(KeyboardInterrupt), following.until_done():
        following.on_train_begin(args, TrainerState(), TrainerControl())
        raise KeyboardInterrupt
    assert trainings.made[-1].calls == [("open",), ("close", False)]


def test_a_tracker_that_rewinds_is_given_all_steps(trainings: Trainings) -> None:
    trainings.sitting(range(1, 5), rewinds=True)
    again = trainings.sitting(range(3, 5), rewinds=True)
    assert again is not None
    assert [call[1] for call in again.calls if call[0] == "scalars"] == [3, 4, 4]


@pytest.mark.parametrize("fails", ["open", "scalars", "samples", "close"])
def test_a_dead_tracker_is_named_once_and_training_goes_on(
    trainings: Trainings, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "captrain"):
        trainings.sitting(range(1, 5), fails=fails)
    assert [record.getMessage() for record in caplog.records] == [
        "wandb: no longer followed there (the server); training goes on, metrics.jsonl has all"
    ]


def test_trackers_do_not_change_what_training_draws(trainings: Trainings) -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed() -> None:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

    seed()
    expected = draw()
    seed()
    trainings.sitting(range(1, 5))
    assert draw() == expected


def test_notes_that_are_no_notes_count_as_none(trainings: Trainings) -> None:
    for text in ("", "[]", '{"wandb": 3}', "{"):
        (trainings.folder / follow.NOTES).write_text(text)
        recorder = trainings.sitting(range(1, 2))
        assert recorder is not None
        assert recorder.run.id is None
    assert json.loads((trainings.folder / follow.NOTES).read_text())["wandb"] == {"id": "its-own-id", "train": 1}


def test_pictures_are_small_and_a_broken_one_is_none() -> None:
    small = small_picture(SAMPLES[0])
    assert small is not None
    assert small.size == (256, 128)
    assert small_picture(SAMPLES[1]) is None
    assert small_picture(Sample("x", Path("not/there.jpg"), (), "")) is None


def test_a_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_is_here", lambda package: package == "tensorboard")
    assert trackers.chosen(None) == ("tensorboard",)
    assert trackers.chosen(()) == ()
    with pytest.raises(SettingsError, match=r"trackers: wandb needs .*pip install 'captrain\[wandb\]'"):
        trackers.chosen(["tensorboard", "wandb"])
    monkeypatch.setattr(trackers, "_is_here", lambda package: False)
    assert trackers.chosen(None) == ()


# The real ones.

Open = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Open a tracker of a run in `tmp_path`."""
    run = tmp_path / "run"
    run.mkdir()

    def open_tracker(name: str, step: int = 0, id: str | None = None) -> Any:
        settings = Settings().model_dump(mode="json")
        return trackers.open_tracker(name, TrackedRun(run, "birds", "first", settings, step, id))

    return open_tracker


def follow_two_sittings(opened: Open, name: str) -> Any:
    """Steps 1 and 2, then a sitting that goes on from step 1 as the run's notes would have it."""
    first = opened(name)
    first.scalars(1, {"train/loss": 3.0, "epoch": 0.5})
    first.scalars(2, {"train/loss": 2.0, "epoch": 1.0})
    first.samples(2, CAPTIONS)
    first.close(whole=False)
    again = opened(name, step=1, id=first.id)
    if again.rewinds:
        again.scalars(2, {"train/loss": 2.5, "epoch": 1.0})
    again.scalars(3, {"train/loss": 1.0, "epoch": 1.5})
    again.close(whole=True)
    assert again.id == first.id
    return again


def test_tensorboard_forgets_a_sitting_without_a_checkpoint(opened: Open, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for value in (3.0, 2.0):
        tracker = opened("tensorboard")
        tracker.scalars(1, {"train/loss": value})
        tracker.close(whole=False)
    pages = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    pages.Reload()
    assert [(event.step, event.value) for event in pages.Scalars("train/loss")] == [(1, 2.0)]


def rows_of(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows that W&B kept in a file of an offline run: its own step and the numbers. The file is a log of LevelDB's form."""
    from wandb.proto import wandb_internal_pb2

    content, at, record, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<4xHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found = wandb_internal_pb2.Record()
            found.ParseFromString(record)
            record = b""
            if found.HasField("history"):
                items = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in found.history.item
                }
                rows.append((found.history.step.num, items))
    return rows


def test_tensorboard(opened: Open, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow_two_sittings(opened, "tensorboard")
    pages = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    pages.Reload()
    assert [(event.step, event.value) for event in pages.Scalars("train/loss")] == [(1, 3.0), (2, 2.5), (3, 1.0)]
    first = opened("tensorboard", step=3)
    first.samples(4, CAPTIONS)
    first.close(whole=True)
    pages = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    pages.Reload()
    [image] = pages.Images("samples/1")
    assert (image.width, image.height) == (256, 128)
    text = pages.Tensors("samples/1/text_summary")[-1]
    words = text.tensor_proto.string_val[0].decode()
    assert r"**a \<dog\> \*runs\***" in words
    assert "- two dogs" in words
    assert "samples/2" not in pages.Tags()["images"]
    assert "(nothing)" in pages.Tensors("samples/2/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_mlflow(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("alembic", reason="alembic is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = follow_two_sittings(opened, "mlflow")
    found = tracker.client.get_run(tracker.id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "first")
    assert found.data.params["training.epochs"] == "5"
    losses = tracker.client.get_metric_history(tracker.id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    [page] = (tmp_path / "run" / "mlflow" / "artifacts").rglob("*.html")
    text = page.read_text()
    assert page.name == "step-00000002.html"
    assert "a &lt;dog&gt; *runs*" in text
    assert "data:image/png;base64," in text


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_mlflow_of_a_run_that_somebody_sent_leads_nowhere(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Links where it writes, another name of its database, and a database that puts samples elsewhere, at a server say."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("alembic", reason="alembic is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = opened("mlflow")
    first.close(whole=False)
    victims = tmp_path / "victims"
    (victims / "folder").mkdir(parents=True)
    (victims / "mine.txt").write_text("mine")
    inside = f"artifacts/{first.id}/artifacts/samples"
    for place, target in {
        "artifacts": victims / "folder",
        f"artifacts/{first.id}": victims / "folder",
        inside: victims / "folder",
        f"{inside}/step-00000004.html": victims / "mine.txt",
        "mlflow.db-journal": victims / "mine.txt",
    }.items():
        again = _sent(tmp_path, place.replace("/", "-"))
        (again / "mlflow" / place).parent.mkdir(parents=True, exist_ok=True)
        if place == "artifacts":
            shutil.rmtree(again / "mlflow" / place)
        (again / "mlflow" / place).symlink_to(target)
        with pytest.raises(UserError, match="writes through none"):
            _go_on(again, first.id)
    other = _sent(tmp_path, "other-name")
    os.link(other / "mlflow" / "mlflow.db", victims / "theirs.db")
    before = {path: path.is_file() and path.read_bytes() for path in victims.rglob("*")}
    _go_on(other, first.id)
    assert len(list((other / "mlflow").rglob("*.html"))) == 1
    unknown = trackers.open_tracker("mlflow", TrackedRun(other, "birds", "first", {}, 3, "0" * 32))
    assert unknown.id not in (first.id, "0" * 32)  # its folder was removed, say
    for number, address in enumerate(("http://127.0.0.1:9/mlflow", (victims / "folder").as_uri(), "{}/../../victims")):
        sent = _sent(tmp_path, f"address-{number}", address)
        caplog.clear()
        _go_on(sent, first.id)
        assert "they are left out there" in caplog.text
        assert not list((sent / "mlflow").rglob("*.html"))
    assert before == {path: path.is_file() and path.read_bytes() for path in victims.rglob("*")}


def _sent(tmp_path: Path, name: str, address: str = "{}") -> Path:
    """A copy of a run whose database puts artifacts at an address; {} is its own place."""
    folder = tmp_path / name
    shutil.copytree(tmp_path / "run", folder)
    kept = (folder / "mlflow" / "artifacts").as_uri()
    with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as database:
        place = f"{address.format(kept)}/' || run_uuid || '/artifacts"
        database.execute(f"UPDATE runs SET artifact_uri = '{place}'")
        database.commit()
    return folder


def _go_on(folder: Path, id: str) -> None:
    tracker = trackers.open_tracker("mlflow", TrackedRun(folder, "birds", "first", {}, 3, id))
    tracker.samples(4, CAPTIONS)
    tracker.close(whole=True)


def test_wandb(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    follow_two_sittings(opened, "wandb")
    files = tmp_path / "run" / "wandb"
    assert len(list(files.glob("offline-run-*"))) == 2
    # offline-run-TIME-ID, and a number behind it where both began in the same second
    assert len({folder.name.split("-")[3] for folder in files.glob("offline-run-*")}) == 1
    until = time.monotonic() + 60  # W&B's own process writes its files out some time after a run is finished
    rows: list[list[tuple[int, dict[str, Any]]]] = []
    while sum(map(len, rows)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
        rows = [rows_of(file) for file in files.glob("offline-run-*/*.wandb")]
    assert sorted(step for sitting in rows for step, _ in sitting) == [1, 2, 3], "W&B drops a row whose step it has"
    losses = {values["step"]: values["train/loss"] for sitting in rows for _, values in sitting}
    assert losses == {1: 3.0, 2: 2.0, 3: 1.0}
    [picture] = files.rglob("*.png")
    with Image.open(picture) as image:
        assert image.size == (256, 128)
    [table] = files.rglob("*.table.json")
    assert json.loads(table.read_text())["data"][0] == [2, "a.jpg", "a <dog> *runs*", "two dogs\na | b"]


def test_wandb_without_a_key_does_not_wait_for_someone_to_type(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent/netrc")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(RuntimeError, match="no API key is configured"):
        opened("wandb")
