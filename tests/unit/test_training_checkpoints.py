"""Checkpoints as files: found, kept, gone back to, never half; and which settings may change under a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captrain.disk.folders import link_all, sync_tree
from captrain.errors import RunError
from captrain.settings.load import sections
from captrain.training.run_folder import checkpoints as module
from captrain.training.run_folder.checkpoints import WEIGHTS, Checkpoints, put_replaced_back
from captrain.training.run_folder.place import WITHOUT_EFFECT, harmful_changes


def publish(checkpoints: Checkpoints, *steps: int) -> None:
    """As a trainer does it: files in the staging folder, then published."""
    for step in steps:
        written = checkpoints.staging / f"checkpoint-{step}"
        written.mkdir(parents=True)
        (written / WEIGHTS).write_text(f"weights of {step}")
        (written / "optimizer.pt").write_text("moments")
        checkpoints.publish(step)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_stay_and_the_prefix_may_change(tmp_path: Path) -> None:
    publish(Checkpoints(tmp_path, keep=2), 5, 10)
    later = Checkpoints(tmp_path, keep=2, prefix="blip-flickr")
    assert later.last() == tmp_path / "checkpoint-10"
    publish(later, 15, 100)
    assert names(tmp_path) == ["blip-flickr-100", "blip-flickr-15"]
    assert later.steps() == [15, 100]


def test_any_of_them_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", keep=3)
    publish(checkpoints, 5, 10, 15)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run/checkpoints/checkpoint-10"
    for wanted in ("10", "checkpoint-10", "run/checkpoints/checkpoint-10", "run/checkpoints/checkpoint-10/", str(path)):
        assert checkpoints.find(wanted) == path
    for wanted in ("7", "", "../../secret", "other/checkpoints/checkpoint-10", "run/checkpoints"):
        with pytest.raises(RunError, match="there are those of steps: 5, 10, 15"):
            checkpoints.find(wanted)
    checkpoints.drop_after(path)
    assert checkpoints.steps() == [5, 10]


def test_asking_changes_nothing_and_going_on_clears_up(tmp_path: Path) -> None:
    """Another process may be writing: only the run itself knows that what lies there is half a checkpoint."""
    publish(Checkpoints(tmp_path, keep=2), 5)
    half = tmp_path / ".writing" / "checkpoint-10"
    half.mkdir(parents=True)
    (half / WEIGHTS).write_text("half")
    asked = Checkpoints(tmp_path, keep=1)
    assert (asked.last(), asked.last_step(), asked.steps()) == (tmp_path / "checkpoint-5", 5, [5])
    assert asked.find("5") == tmp_path / "checkpoint-5"
    assert (half / WEIGHTS).read_text() == "half"
    asked.drop_after(asked.last())
    assert names(tmp_path) == ["checkpoint-5"]


def test_foreign_folders_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-7", "notes", "checkpoint-x", ".writing"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / WEIGHTS).write_text("")
    assert Checkpoints(tmp_path, keep=2).last() is None


@pytest.mark.parametrize("number", range(12))
def test_a_kill_at_any_rename_or_removal_leaves_whole_checkpoints(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each call that takes or moves something, and none of what is found then has lost a file."""
    publish(Checkpoints(tmp_path, keep=1), 5)
    calls = 0

    def dying(original):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > number:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return call

    checkpoints = Checkpoints(tmp_path, keep=1)
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        died = False
        try:
            publish(checkpoints, 5)  # as at the end of an epoch whose evaluation was still to come
            publish(checkpoints, 10)
        except KeyboardInterrupt:
            died = True
    assert died == (number < calls)
    again = Checkpoints(tmp_path, keep=1)
    again.drop_after(again.last())  # as a run that goes on does it
    assert not again.staging.exists()
    for step in again.steps():
        assert names(again.path(step)) == [module.BEST, WEIGHTS, "optimizer.pt"]


def test_each_holds_the_best_model_of_its_time(tmp_path: Path) -> None:
    """Linked, so that it costs nothing: what replaces the model later does not touch it."""
    model, scores = tmp_path / "model", tmp_path / "scores.json"
    model.mkdir()
    (model / "weights").write_text("first")
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, best=[model, scores], logs=[tmp_path / "none.jsonl"])
    publish(checkpoints, 5)
    os.replace(model, tmp_path / "old")
    model.mkdir()
    (model / "weights").write_text("second")
    scores.write_text("{}")
    publish(checkpoints, 10)
    first, second = (checkpoints.path(step) / module.BEST for step in (5, 10))
    assert ((first / "model/weights").read_text(), names(first)) == ("first", ["model"])
    assert ((second / "model/weights").read_text(), names(second)) == ("second", ["model", "scores.json"])
    assert (second / "scores.json").samefile(scores)


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "file").write_text("content")
    link_all([tmp_path / "file", tmp_path / "missing"], tmp_path / "new")
    assert names(tmp_path / "new") == ["file"]
    assert (tmp_path / "new/file").read_text() == "content"


def test_everything_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls: each file and folder is waited for, then the checkpoint gets its name."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *args: (events.append("rename"), replace(*args))[1])
    publish(Checkpoints(tmp_path, keep=1), 5)
    assert events == ["sync"] * 4 + ["rename", "sync"], "two files, best/, the folder; then its parent"
    sync_tree(tmp_path)


def test_settings_without_effect_are_settings() -> None:
    known = sections()
    for name in WITHOUT_EFFECT:
        section, _, leaf = name.partition(".")
        assert section in known
        assert not leaf or leaf in known[section].model_fields or leaf == "keep"  # the former name of cache_features


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"training": {"epochs": 2}}, {"training": {"epochs": 3}}, "training.epochs was 2 and is 3"),
        ({"model": {"rank": 4}}, {}, "model.rank was 4 and is the default: the model would differ"),
        ({"source": "a"}, {"source": "b"}, "source was a and is b: the data would differ"),
        ({}, {"evaluation": {"metric": "bleu_1"}}, "evaluation.metric was the default and is bleu_1"),
        ({}, {"data": {"sources": [{"path": "a"}]}}, "other pictures or captions"),
        ({}, {"distributed": {"devices": "all"}, "training": {"log_every": 3, "keep_checkpoints": 9}}, None),
        ({"data": {"keep": "off"}, "model": {"device": "cpu"}}, {"evaluation": {"samples": 1}}, None),
    ],
)
def test_what_may_change(before: dict, now: dict, named: str | None) -> None:
    found = harmful_changes(before, now)
    assert bool(found) == bool(named)
    assert named is None or named in found[0]


def test_a_checkpoint_that_was_to_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the two renames takes nothing away, even where it is the only one."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    publish(checkpoints, 5)
    real = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "checkpoint-5":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        publish(checkpoints, 5)
    assert checkpoints.steps() == []
    put_replaced_back(tmp_path)
    assert checkpoints.steps() == [5]
    checkpoints.drop_after(checkpoints.last())
    assert names(tmp_path) == ["checkpoint-5"]
