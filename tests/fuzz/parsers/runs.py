"""Run folders of strangers: what the report, an evaluation and a training that goes on read of them; and what `data get` kept."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any
from unittest import mock

from captrain.data.splits import Rows, read_kept_splits, read_trained, write_kept_splits
from captrain.errors import CaptrainError, DataError
from captrain.report import page as page_module
from captrain.report.curves import Chart, draw_curve
from captrain.report.page import render
from captrain.report.run import report_data
from fuzz.inputs import Parser
from fuzz.parsers.data import picture

NEEDS = (
    "captrain.training.run",
    "captrain.models.families.blip",
    "captrain.inference.evaluation_data",
    "captrain.testing",
)


def _report_seed(folder: Path) -> None:
    lines: list[dict[str, Any]] = [
        {
            "kind": "train",
            "step": step,
            "epoch": step / 4,
            "loss": 3 / step,
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "seconds": step,
        }
        for step in range(1, 6)
    ]
    lines += [
        {"kind": "validation", "step": step, "cider": step / 5, "validation_loss": 1.0, "seconds": 9} for step in (2, 4)
    ]
    _write_lines(folder / "metrics.jsonl", lines)
    _write_lines(
        folder / "samples.jsonl",
        [
            {"id": "a.jpg", "step": step, "text": f"a dog {step}", "references": ["a dog"], "image": "a.jpg"}
            for step in (2, 4)
        ],
    )
    captions = [
        {
            "id": "a.jpg",
            "text": "a dog",
            "score": -1.0,
            "references": ["a dog"],
            "image": "a.jpg",
            "measured": {"cider": 1.0},
        }
    ]
    _write_lines(folder / "predictions.jsonl", captions)
    _write_lines(folder / "rejected.jsonl", [{"id": "b.jpg", "where": "b.jpg", "reason": "is empty (0 bytes)"}])
    scores = {
        "scores": {"cider": 1.0},
        "intervals": {"cider": [0.5, 1.5]},
        "epoch": 1,
        "images": 3,
        "notes": ["few pictures"],
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    (folder / "test").mkdir()
    (folder / "test" / "scores.json").write_text(json.dumps(scores))
    settings = (
        "captrain: {version: 1, device: cpu}\nsettings:\n  model: {model: blip-base}\n  evaluation: {metric: cider}\n"
    )
    settings += "requested: {source: photos}\ndata: {train: 3, validation: 1}\nparameters: {language: {total: 10, learning: 5}}\n"
    (folder / "settings.yaml").write_text(settings)
    (folder / "a.jpg").write_bytes(picture())


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _report(folder: Path) -> None:
    """A report; nothing of a run becomes a tag in it."""
    with mock.patch.object(page_module, "draw_curve", _drawn):
        page = render(report_data(folder))
    page.encode("utf-8")
    lowered = page.lower()
    found = [lowered.count(tag) for tag in ("<script", "</script", "<!--", "<iframe", "<img src=x")]
    assert found == _tags(), f"tags of the page: {found}, expected {_tags()}"


DRAWN: dict[str, str] = {}


def _drawn(chart: Chart, width: float, height: float) -> str:
    """A chart, drawn once a process: most inputs leave the curves alone, and drawing takes longer than all else."""
    key = f"{chart} {width} {height}"
    if len(DRAWN) > 1000:
        DRAWN.clear()
    if key not in DRAWN:
        DRAWN[key] = draw_curve(chart, width, height)
    return DRAWN[key]


@functools.cache
def _tags() -> list[int]:
    """How many tags of some kinds a page has of its own."""
    from captrain.report.page import ReportData

    page = render(ReportData(title="", subtitle="")).lower()
    return [page.count(tag) for tag in ("<script", "</script", "<!--", "<iframe", "<img src=x")]


def _splits_seed(folder: Path) -> None:
    rows = {
        "train": Rows(["a.jpg", "b.jpg"], ["00" * 16, "ff" * 16]),
        "validation": Rows(["c.jpg"], ["0a" * 16], [7]),
        "earlier": Rows(["d"], ["0b" * 16]),
    }
    write_kept_splits(folder / "splits.jsonl.gz", rows)


def _splits(folder: Path) -> None:
    kept = read_kept_splits(folder)
    list(read_trained(folder))
    if kept is None:
        raise DataError("no splits")
    kept.trained()
    json.dumps([kept.part(name).ids for name in kept.parts])


def _run_seed(folder: Path) -> None:
    """A run of a few steps, as a kill leaves it."""
    import shutil

    from captrain.settings.load import resolve
    from captrain.testing import tiny_blip, tiny_photos
    from captrain.training.run import train

    photos, model = tiny_photos(folder / "photos", 8), tiny_blip(folder / "tiny")
    train(_settings(model), str(photos), folder / "run")
    run = folder / "run"
    for name in ("model", "finished.json", "report.html", "splits.jsonl.gz"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in (photos, model):
        shutil.rmtree(path)
    for path in run.rglob("checkpoint-*/*"):
        if path.suffix in (".pt", ".pth", ".bin"):
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    assert resolve()


def _settings(model: Path) -> Any:
    from captrain.settings.load import resolve

    recipe = {
        "model": {"model": str(model), "method": "lora", "rank": 2, "device": "cpu", "precision": "fp32"},
        "training": {"epochs": 2, "batch_size": 4, "log_every": 1},
        "generation": {"beams": 1, "max_new_tokens": 4},
    }
    return resolve(recipe)


@functools.cache
def _captioner() -> Any:
    """The captioner of that run, made once a process."""
    from captrain.models.checkpoint.folder import load_captioner
    from captrain.models.lora import LoraOptions, add_lora
    from captrain.testing import tiny_blip
    from fuzz.workplace import work_folder

    with work_folder() as folder:
        captioner = load_captioner(str(tiny_blip(folder)))
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0))
    return captioner


def _go_on(folder: Path) -> None:
    """What a training reads that goes on, in its order."""
    from transformers import TrainerState

    from captrain.inference.evaluation_data import EvaluatedRun
    from captrain.models.checkpoint.card import model_card
    from captrain.training.held_out import scores_of_test
    from captrain.training.run_folder.checkpoints import Checkpoints, Running, check_checkpoint_fits, load_learned
    from captrain.training.run_folder.folder import RunFolder

    run = RunFolder(folder / "run")
    EvaluatedRun.of(str(folder / "run"))
    model_card(run.path, _captioner(), "name", "")
    if run.read_settings() is None:
        raise CaptrainError("no run")
    run.rejected(), run.uncaptioned(), run.best_scores(), run.finished(), scores_of_test(run.path)
    last = Checkpoints(run.checkpoints, 2).last()
    if last is None:
        raise CaptrainError("no checkpoint")
    captioner = _captioner()
    check_checkpoint_fits(captioner, last)
    run.check_same({}, {})
    run.filled_before("training", "batch_size")
    run.rewind(1, last)
    run.seconds_so_far()
    Running.load(last)
    load_learned(captioner, last)
    TrainerState.load_from_json(str(last / "trainer_state.json"))


def _get_seed(folder: Path) -> None:
    entry = {"bytes": 3, "sha256": "00" * 32, "unpacked": 0}
    (folder / ".captrain-get.json").write_text(json.dumps({"a.zip": entry}))
    (folder / "a.zip.part.json").write_text(json.dumps({"mark": '"v1"'}))
    (folder / "a.zip.part").write_bytes(b"abc")
    import zipfile

    with zipfile.ZipFile(folder / "val.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("val/a.jpg", picture())
        archive.writestr("val/b.jpg", picture())


def _get(folder: Path) -> None:
    """What `data get` finds of an earlier time, and an archive that came."""
    from captrain.data.get.fetch import unpack_zip
    from captrain.data.get.plan import FetchLedger
    from captrain.data.get.transfer import _Partial

    ledger = FetchLedger(folder)
    ledger.has("a.zip", folder / "a.zip.part")
    assert isinstance(_Partial(folder / "a.zip").mark(), str)
    (folder / "out").mkdir()
    if not (folder / "val.zip").exists():
        raise DataError("no archive")
    unpack_zip(folder / "val.zip", folder / "out", "val/*.jpg", 1 << 20)


PARSERS = (
    Parser("run report", _report, {"run": _report_seed}, (".jpg",), 25, ("matplotlib.figure", "captrain.report.run")),
    Parser("run splits", _splits, {"splits": _splits_seed}, quick=80),
    Parser("run to go on", _go_on, {"lora": _run_seed}, quick=15, needs=NEEDS, writes=True),
    Parser("data get", _get, {"files": _get_seed}, quick=60, writes=True),
)
