"""`import captrain`: quick, lazy, complete; what its functions return; and what they leave as it was."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.text import Text

import captrain
from captrain.api.session import session, undisturbed
from captrain.cli import main
from captrain.errors import DataError, RunError, SettingsError, UserError
from captrain.testing import clear_pictures, tiny_photos

SECONDS = 0.1


def test_importing_captrain_loads_next_to_nothing() -> None:
    """Processor time, as little as the machine is loaded."""
    code = (
        "import sys, time; before, start = set(sys.modules), time.process_time(); import captrain;"
        "print(time.process_time() - start, *sorted(set(sys.modules) - before))"
    )
    seconds, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(seconds) < SECONDS
    assert [name for name in modules if name.startswith("captrain")] == ["captrain", "captrain.version"]
    assert not {"typing", "logging", "pydantic", "numpy", "torch"} & set(modules)


def test_every_public_name_is_there() -> None:
    for name in captrain.__all__:
        assert getattr(captrain, name) is not None
        assert name in dir(captrain)
    assert captrain.errors.SettingsError.exit_code == 2
    with pytest.raises(AttributeError, match="module 'captrain' has no attribute 'trian'"):
        _ = captrain.trian  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def captioner(tiny_folders: dict[str, Path]) -> captrain.Captioner:
    return captrain.load(tiny_folders["blip"], device="cpu", precision="fp32")


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in clear_pictures(count)]


def test_map_captions_whatever_a_row_holds(captioner: captrain.Captioner, tmp_path: Path) -> None:
    [picture] = pictures(1)
    picture.save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    content = (tmp_path / "a.png").read_bytes()
    rows = [picture, tmp_path / "a.png", str(tmp_path / "a.png"), content, {"bytes": content, "path": None}]
    expected = captioner(picture, beams=1)
    found = captioner.map({"image": rows, "number": [1, 2, 3, 4, 5]}, beams=1)
    assert found == {"caption": [expected] * 5}
    assert captioner.map({"path": str(tmp_path / "a.png")}, beams=1) == {"caption": expected}
    bad = [tmp_path / "broken.png", picture, None, tmp_path / "none.png"]
    assert captioner.map({"photo": bad}, column="photo", beams=1) == {"caption": [None, expected, None, None]}
    with pytest.raises(DataError, match="no column of pictures: found photo, expected image or picture or path"):
        captioner.map({"photo": bad})


def test_a_captioner_fits_into_datasets_and_loaders(captioner: captrain.Captioner, tmp_path: Path) -> None:
    import datasets

    for number, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"{number}.png")
    paths = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    expected = [line.text for line in captioner.caption(paths, beams=1)]
    there = pickle.loads(pickle.dumps(captioner))
    assert [line.text for line in there.caption(paths, beams=1)] == expected
    rows = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    done = rows.map(captioner.map, batched=True, batch_size=2, fn_kwargs={"beams": 1})
    assert done["caption"][:] == expected
    loader = torch.utils.data.DataLoader(
        paths,  # type: ignore[arg-type]
        batch_size=2,
        collate_fn=lambda batch: captioner.map({"path": batch}, beams=1)["caption"],
    )
    assert [caption for batch in loader for caption in batch] == expected


def test_samples_are_a_sequence_with_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        tiny_photos(tmp_path / split, count=count, seed=count)
    samples = captrain.read(tmp_path)
    assert samples.splits == {"test": 2, "train": 3} and len(samples) == 5
    assert [sample.id for sample in samples["train"]] == [sample.id for sample in samples[2:]]
    assert samples.split("test")[0] == samples[0] and samples.rejected == []
    rows = samples.to_dataset()
    assert rows["split"][:] == ["test"] * 2 + ["train"] * 3
    assert rows[0]["captions"] == list(samples[0].captions)
    assert rows[4]["image"].size == (48, 40)
    with pytest.raises(DataError, match=r"no split 'tset', it has 'test', 'train'. Did you mean 'test'\?"):
        samples["tset"]


def test_a_check_says_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_photos(tmp_path / "photos", count=3)
    (folder / "photo-001.png").write_bytes(b"<b>no picture</b>")
    found = captrain.check(folder)
    assert main(["-q", "data", "check", str(folder), "--json", "--rejects", str(tmp_path / "list.jsonl")]) == 3
    told = json.loads(capsys.readouterr().out)
    assert json.loads(json.dumps(found.to_dict())) == {**told, "rejects": None}
    assert found.counts == {"images": 3, "captions": 15, "wrong": 1, "remarks": 2}
    assert [line["problem"] for line in found.lines()].count("unreadable") == 1
    assert "1 wrong, 2 remarks" in repr(found) and "photo-001.png" in repr(found)
    assert "<table" in found._repr_html_() and "<b>no" not in found._repr_html_()


def test_history_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    history = captrain.History(
        [{"kind": "train", "step": 1, "loss": 2.0}, {"kind": "validation", "step": 1, "cider": 0.1}]
    )
    table = history.to_pandas()
    assert list(table.columns) == ["kind", "step", "loss", "cider"] and len(table) == 2
    assert repr(history[:1]) == "<History: 1 train lines>"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        history.to_pandas()


def test_a_run_is_a_folder_that_a_training_wrote(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        captrain.Run(tmp_path / "none")
    with pytest.raises(RunError, match=r"holds no metrics\.jsonl"):
        captrain.Run(tmp_path)


def state() -> dict[str, Any]:
    """What a call must not change for good."""
    names = ("captrain", "transformers", "torch", "py.warnings")
    return {
        "environment": dict(os.environ),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # type: ignore[index, union-attr]
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names},
    }


def test_a_call_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import PartialState

    logger = logging.getLogger("captrain")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    mine = PartialState(cpu=True)
    before, shared = state(), dict(PartialState._shared_state)
    with session(trust_remote_code=True), undisturbed():
        assert logger.isEnabledFor(logging.INFO)
        os.environ["CAPTRAIN_TEST"] = "1"
        random.random(), np.random.random(), torch.rand(2)
        torch.set_grad_enabled(False)
        torch.set_num_threads(torch.get_num_threads() + 1)
        assert not PartialState._shared_state
    assert state() == before and dict(PartialState._shared_state) == shared
    assert mine.num_processes == 1


def test_what_is_typed_into_a_notebook_is_not_sent_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from captrain.api.training import _check_travels
    from captrain.training.extensions import Extensions

    def words(captions: Any, references: Any) -> float:
        return 0.0

    words.__module__, words.__qualname__ = "__main__", "words"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(words=words))
    message = (
        r"metrics: can't be sent to the processes of several devices \(they are defined in a notebook or at a prompt\)"
    )
    with pytest.raises(SettingsError, match=message):
        _check_travels(Extensions(metrics={"words": words}))


def test_logging_of_ones_own_is_respected(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("captrain")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logger, "level", logging.WARNING)
    with session():
        logger.info("not wanted")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    with session():
        logger.info("wanted")
    assert capsys.readouterr().err == "wanted\n"
    assert logger.handlers == []


class Shown:
    """IPython's handle of an output: what was drawn last."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def update(self, page: Any) -> None:
        self.pages.append(page)


def test_progress_in_a_notebook_is_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    from captrain import notebook, progress

    shown = Shown()

    def display(page: str, display_id: bool) -> Shown:
        shown.update(page)
        return shown

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    monkeypatch.setattr(notebook, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    logger = logging.getLogger("captrain")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    with progress.live_view(Text("the <b>head</b>")), progress.track("train", 4) as advance:
        advance(1)
        with progress.track("write captions", 2) as further:
            further(2)
        advance(3)
    assert "the &lt;b&gt;head" in shown.pages[-1]
    assert any("write captions" in page for page in shown.pages) and "4/4" in shown.pages[-2]
    with progress.track("check", 3) as advance:
        advance(3)
    assert "3/3" in shown.pages[-1]
    logger.manager._clear_cache()  # type: ignore[attr-defined]
