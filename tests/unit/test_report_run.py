"""A run folder as a report: what is there is shown, what is missing or broken never stops it."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from captrain.cli import main
from captrain.errors import RunError, UserError
from captrain.report.facts import explained, train_command
from captrain.report.logs import Problems, read_metrics
from captrain.report.page import Headline, ReportData, render
from captrain.report.run import report_data, write_report
from captrain.settings.schema import DataSettings, GenerationSettings, ModelSettings, Settings

SETTINGS = """
captrain: {version: 0.1.0, python: '3.11', torch: 2.13.0, device: cpu}
settings: {model: {rank: 16, start: null}, training: {epochs: 2, rates: [0.1, 0.2]}}
data: {train_images: 6000, train_captions: 30000, validation_images: 1000, validation_captions: 5000, rejected: 2}
parameters: {vision: {total: 3000000, trainable: 0}, language: {total: 1000000, trainable: 40000}}
"""


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def train(step: int, **values: Any) -> dict[str, Any]:
    known = {"kind": "train", "step": step, "epoch": step / 10, "loss": 4 / step, "learning_rate": 1e-4}
    return known | {"gradient_norm": 1.0, "seconds": 10.0 * step} | values


def validation(step: int, **values: Any) -> dict[str, Any]:
    known = {"kind": "validation", "step": step, "epoch": step / 10, "seconds": 10.0 * step}
    return known | {"validation_loss": 3 / step, "bleu_4": 0.1, "cider": 1 - abs(step - 10) / 20} | values


def sample(step: int, id: str, text: str, image: str = "pictures/a.png") -> dict[str, Any]:
    return {
        "step": step,
        "epoch": 1.0,
        "id": id,
        "image": image,
        "text": text,
        "score": -0.5,
        "references": ["a red box"],
    }


def prediction(id: str, **values: Any) -> dict[str, Any]:
    return {
        "id": id,
        "image": "pictures/a.png",
        "text": f"caption of {id}",
        "score": -0.2,
        "references": ["a box"],
    } | values


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, as training and evaluation leave it."""
    folder = tmp_path / "boxes"
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (200, 150), "red").save(folder / "pictures/a.png")
    (folder / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    write_lines(
        folder / "metrics.jsonl", [train(step) for step in range(1, 21)] + [validation(step) for step in (5, 10, 20)]
    )
    texts = {5: "a a a", 10: "a box", 15: "a box", 20: "a red box"}
    write_lines(folder / "samples.jsonl", [sample(step, id, text) for step, text in texts.items() for id in ("a", "b")])
    write_lines(folder / "predictions.jsonl", [prediction(f"p{place}") for place in range(100)])
    (folder / "scores.json").write_text(json.dumps({"scores": {"bleu_4": 0.25, "cider": 0.9}, "images": 100}))
    write_lines(
        folder / "rejected.jsonl", [{"id": id, "where": f"{id}.jpg", "reason": "is empty"} for id in ("x", "y")]
    )
    return folder


def test_a_whole_run(run: Path) -> None:
    data = report_data(run)
    assert data.title == "boxes"
    assert data.headlines == (
        Headline("CIDEr", "0.900", "on 100 pictures"),
        Headline("BLEU-4", "0.250", "on 100 pictures"),
    )
    facts = dict(data.facts)
    assert facts["trained on"] == "6,000 pictures, 30,000 captions"
    assert facts["trainable"] == "40 k of 4 M parameters (1%)"
    assert (facts["steps"], facts["epochs"], facts["time"]) == ("20", "2", "3 min 20 s")
    assert [chart.title for chart in data.charts] == ["Loss", "CIDEr", "BLEU-4", "Learning rate", "Gradient norm"]
    assert data.charts[0].best == data.charts[1].best == 10
    assert [note.title for note in data.notes] == ["Skipped 2 samples: is empty (2)"]


def test_a_test_comes_before_the_validation(run: Path) -> None:
    (run / "test").mkdir()
    tested = {"scores": {"cider": 0.8}, "images": 50, "intervals": {"cider": [0.7, 0.9]}, "notes": ["all alike"]}
    (run / "test/scores.json").write_text(json.dumps(tested))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "test", "step": 20, "epoch": 2.0, "seconds": 200.0, "cider": 0.8}) + "\n")
    data = report_data(run)
    assert data.headlines == (Headline("CIDEr", "0.800", "95 %: 0.700 to 0.900, on 50 test pictures"),)
    assert dict(data.facts)["tested on"] == "50 pictures"
    assert data.tables[0].title == "Scores on the test pictures"
    assert data.tables[0].rows == (("CIDEr", "0.8000", "95 %: 0.700 to 0.900"),)
    assert "of the test captions: all alike" in [note.title for note in data.notes]
    assert [chart.title for chart in data.charts][:2] == ["Loss", "CIDEr"]
    (run / "test/scores.json").write_text("{")
    assert report_data(run).headlines[0].remark == "on 100 pictures"


def test_captions_grow_from_first_to_last_and_repeats_are_one(run: Path) -> None:
    evolution = report_data(run).evolutions[0]
    assert [(when, text) for when, text, _ in evolution.written] == [
        ("step 5", "a a a"),
        ("steps 10 to 15", "a box"),
        ("step 20", "a red box"),
    ]
    assert evolution.picture is not None and evolution.references == ("a red box",)


def test_pictures_are_bounded_and_spread_over_the_file(run: Path) -> None:
    data = report_data(run, most_pictures=12)
    (gallery,) = data.galleries
    assert len(data.evolutions) + len(gallery.cards) == 12
    assert (gallery.cards[0].id, gallery.cards[-1].id) == ("p0", "p99")
    assert gallery.remark.startswith("10 of 100")


def test_settings_are_flat(run: Path) -> None:
    tables = {table.title: table.rows for table in report_data(run).tables}
    assert ("training.rates", "0.1, 0.2") in tables["Settings"] and ("model.start", "") in tables["Settings"]
    assert tables["Trainable parameters"] == (("vision", "0", "3,000,000"), ("language", "40,000", "1,000,000"))
    assert [row[0] for row in tables["Validation, step by step"]] == ["5", "10", "20"]


def test_without_an_evaluation_the_best_checkpoint_speaks(run: Path) -> None:
    (run / "scores.json").unlink()
    assert report_data(run).headlines[0] == Headline("CIDEr", "1.000", "best checkpoint, step 10")


@pytest.mark.parametrize(
    "name", ["settings.yaml", "samples.jsonl", "predictions.jsonl", "scores.json", "rejected.jsonl"]
)
@pytest.mark.parametrize(
    "content", [None, "", "{]\n", "[1, 2]\n", "\xff\n", '{"id": {"a": []}, "step": [], "scores": 3}\n']
)
def test_any_other_file_may_be_missing_or_broken(run: Path, name: str, content: str | None) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content.encode("latin-1"))
    assert "</html>" in write_report(run).read_text(encoding="utf-8")


def test_broken_lines_are_told(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    note = report_data(run).notes[-1]
    assert note.title == "Unreadable and left out: 1 line." and note.lines[0].startswith(
        "metrics.jsonl:24: not valid JSON"
    )


def test_empty_metrics_give_a_page_without_curves(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")
    data = report_data(run)
    assert data.charts == () and "no steps yet" in data.notes[-1].title
    assert write_report(run).is_file()


def test_losses_that_are_not_finite_are_gaps_and_are_told(run: Path) -> None:
    lines = [train(1), train(2, loss=float("nan")), train(3, loss=float("inf")), train(4, loss="high"), validation(4)]
    write_lines(run / "metrics.jsonl", lines)
    note = report_data(run).notes[-1]
    assert note.title.startswith("The loss was not a finite number at 2 steps")
    assert note.lines == ("step 2: loss is nan", "step 3: loss is inf")
    write_lines(run / "metrics.jsonl", [train(step, loss=float("nan")) for step in range(1, 4)])
    assert "Loss" not in [chart.title for chart in report_data(run).charts]
    assert write_report(run).is_file()


def test_a_resumed_run_counts_each_step_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [train(1), train(2, loss=9.0), train(3), train(2, loss=1.0)])
    metrics = read_metrics(tmp_path / "metrics.jsonl", Problems())
    assert [(line["step"], line["loss"]) for line in metrics.train] == [(1, 4.0), (2, 1.0), (3, 4 / 3)]


def test_best_is_the_lowest_loss_where_nothing_else_was_measured(tmp_path: Path) -> None:
    lines = [
        {"kind": "validation", "step": step, "validation_loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (3, 2.5))
    ]
    write_lines(tmp_path / "metrics.jsonl", lines)
    best = read_metrics(tmp_path / "metrics.jsonl", Problems()).best()
    assert best is not None and best["step"] == 2


@pytest.mark.parametrize(("metric", "step"), [("cider", 10), ("meteor", 20), ("validation_loss", 5), ("unheard", 10)])
def test_best_is_by_the_score_that_the_run_chose_by(run: Path, metric: str, step: int) -> None:
    lines = [validation(at, meteor=at / 100, validation_loss=at / 10) for at in (5, 10, 20)]
    write_lines(run / "metrics.jsonl", lines)
    (run / "settings.yaml").write_text(f"settings: {{evaluation: {{metric: {metric}}}}}")
    charts = {chart.title: chart for chart in report_data(run).charts}
    assert charts["METEOR"].best == step


def test_missing_and_broken_pictures_become_placeholders(run: Path) -> None:
    (run / "bad.jpg").write_bytes(b"no picture")
    images = ["gone.jpg", "bad.jpg", 7, "", "nul\0", "../" * 40 + "x", "x" * 5000]
    write_lines(run / "predictions.jsonl", [prediction(f"p{place}", image=image) for place, image in enumerate(images)])
    (gallery,) = report_data(run).galleries
    assert len(gallery.cards) == len(images) and all(card.picture is None for card in gallery.cards)


def test_hostile_captions_and_names_stay_text(run: Path) -> None:
    hostile = "<script>alert(1)</script>"
    write_lines(run / "predictions.jsonl", [prediction(hostile, text=hostile, image=hostile, references=[hostile])])
    write_lines(run / "samples.jsonl", [sample(1, hostile, hostile, hostile)])
    write_lines(run / "rejected.jsonl", [{"id": hostile, "where": hostile, "reason": hostile}])
    write_lines(run / "metrics.jsonl", [validation(1, **{hostile: 1.0})])
    (run / "settings.yaml").write_text(f'settings: {{"{hostile}": "{hostile}"}}\ncaptrain: {{device: "{hostile}"}}\n')
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count("<script>") == 1 and "&lt;script&gt;alert(1)" in page


def test_settings_that_hold_themselves_end(run: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in itertools.pairwise("abcdefgh")
    )
    indented = "".join(f"  {line}\n" for line in bomb.splitlines())
    (run / "settings.yaml").write_text(f"settings: &all\n  itself: *all\n{indented}")
    notes = [line for note in report_data(run).notes for line in note.lines]
    assert any("settings.yaml: not valid YAML (it holds itself" in line for line in notes)


def test_what_is_no_run_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        report_data(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no metrics\.jsonl; expected the folder that 'captrain train"):
        write_report(tmp_path)


def test_it_is_written_where_asked_with_extra_parts_first(run: Path, tmp_path: Path) -> None:
    extra = ReportData("", "a demo", headlines=(Headline("right", "94%"),))
    path = write_report(run, tmp_path / "deep/er/demo.html", extra)
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "deep/er/demo.html" and page.index("94%") < page.index("CIDEr")
    assert not list(path.parent.glob("*.tmp")) and not (run / "report.html").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_report(run, tmp_path / "folder")


def test_no_torch_is_loaded() -> None:
    code = "import sys, captrain.report.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_report_carries_its_command_and_the_next_ones(run: Path) -> None:
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    asked = {
        "source": "my photos",
        "model": {"rank": 4, "dora": True, "freeze": []},
        "data": {"replace": ["a=b", "c=d"]},
    }
    (run / "settings.yaml").write_text(
        yaml.safe_dump({**settings, "requested": {**asked, "generation": {"length_penalty": -1.5}}}, sort_keys=False)
    )
    data = report_data(run)
    made, *others = [command for _, command in data.commands]
    expected = "--rank 4 --dora --no-freeze --replace a=b c=d --length-penalty=-1.5"
    assert made == f"captrain train 'my photos' {run} {expected}"
    assert [command.split()[:3] for command in others[:2]] == [
        ["captrain", "caption", str(run)],
        ["captrain", "evaluate", str(run)],
    ]
    assert f"<code>{made.replace(chr(39), '&#39;')}</code>" in render(data)


def test_the_command_of_a_run_gives_its_settings_again(run: Path) -> None:
    """What the report prints is a command line that means the same: all settings but the lists that only recipes have."""
    changed = Settings(
        model=ModelSettings(rank=4, dora=True, target_modules=("a", "b")),
        data=DataSettings(prompt="a photo of", train_split=("x",), test_split=(), captions_per_image=2, flip=0.5),
        generation=GenerationSettings(length_penalty=-1.5, beams=1),
    )
    asked = changed.model_dump(mode="json", exclude_defaults=True)
    words = shlex.split(train_command({"source": "photos", **asked}, "runs/x"))
    given: list[Settings] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captrain.cli.train.check_training", lambda settings, *_, **__: given.append(settings) or 1 / 0)
        assert main(words[1:]) == 1
    assert given == [changed]


def test_a_score_is_explained_only_where_it_stands(run: Path) -> None:
    assert any(sentence.startswith("CIDEr runs from 0 to 10") for sentence in report_data(run).explained)
    assert list(explained(["bleu_4", "rouge_l"])) == []


def test_long_histories_are_folded(run: Path) -> None:
    lines = [{"id": "p", "step": step, "text": f"word {step}", "score": -1.0, "image": None} for step in range(50)]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (evolution,) = report_data(run).evolutions
    assert [text for _, text, _ in evolution.written] == ["word 0", "word 16", "word 33", "word 49"]
    assert len(evolution.every) == 50
    page = render(report_data(run))
    assert "<summary>all 50 captions</summary>" in page
