"""`captrain export`, `captrain push`, `captrain models`: flags reach what does the work, results and errors reach people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from captrain.cli.models import export, models, push
from captrain.models.checkpoint.folder import load_captioner


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    """The three commands alone; every captioner is there."""
    monkeypatch.setattr("captrain.models.checkpoint.located.check_model", lambda source: None)
    app = App(result_action="return_value")
    for command in (export, push, models):
        app.command(command)
    return app


@pytest.mark.parametrize(
    ("words", "merge", "dtype"),
    [("", True, "fp32"), ("--merge", True, "fp32"), ("--keep-adapter --dtype bf16", False, "bf16")],
)
def test_flags_of_export(
    words: str, merge: bool, dtype: str, app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def fake(source: str, out: Path, **options: Any) -> Path:
        seen.update(options, source=source, out=out)
        return out

    monkeypatch.setattr("captrain.models.checkpoint.export.export", fake)
    assert app(["export", "runs/cats", "cats.zip", *words.split()], exit_on_error=False) == 0
    assert seen == {"source": "runs/cats", "out": Path("cats.zip"), "merge": merge, "dtype": dtype, "base": None}
    assert capsys.readouterr().out == "cats.zip\n"


def test_flags_of_push(app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    def fake(source: str, hub_id: str, **options: Any) -> str:
        seen.append((source, hub_id, options))
        return "https://huggingface.co/ada/cats"

    monkeypatch.setattr("captrain.models.checkpoint.export.push", fake)
    app(["push", "runs/cats", "ada/cats"], exit_on_error=False)
    app(["push", "runs/cats", "ada/cats", "--public", "--keep-adapter"], exit_on_error=False)
    assert seen == [
        ("runs/cats", "ada/cats", {"public": False, "merge": True, "dtype": "fp32"}),
        ("runs/cats", "ada/cats", {"public": True, "merge": False, "dtype": "fp32"}),
    ]
    assert capsys.readouterr().out == "https://huggingface.co/ada/cats\n" * 2


def test_exported_file_captions(app: App, taught_folders: dict[str, Path], tmp_path: Path) -> None:
    app(
        ["export", str(taught_folders["blip"]), str(tmp_path / "new" / "cats.zip"), "--dtype", "fp16"],
        exit_on_error=False,
    )
    assert load_captioner(str(tmp_path / "new" / "cats.zip")).family == "blip"


def test_list_of_models(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app(["models"], exit_on_error=False)
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("blip-large"))
    assert line.split() == [
        "blip-large",
        "blip",
        "470M",
        "384",
        "136.7",
        "40.4",
        "BSD-3-Clause",
        "Salesforce/blip-image-captioning-large",
    ]
    assert "arXiv:2201.12086" in text
    app(["models", "--json"], exit_on_error=False)
    found = json.loads(capsys.readouterr().out)["models"]
    assert {model["name"] for model in found} >= {"blip-base", "vit-gpt2", "git-large-coco", "blip-2-flan-t5-xl"}
    assert next(model for model in found if model["name"] == "clipcap-mlp")["hub_id"] is None
