"""The commands hand over what was given, print results on stdout and return the right exit code."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from captrain.cli import main
from captrain.cli.flags import ComputingSettings
from captrain.data.read_options import BY_LOOKING
from captrain.features.stream import Computing
from captrain.inference.caption_files import CaptionOutput
from captrain.inference.evaluation_data import EvaluationData
from captrain.metrics.compare import Comparison, System
from captrain.metrics.significance import Statistics
from captrain.settings.schema import DataSettings, ModelSettings
from captrain.training.extensions import NOTHING


@dataclass
class Call:
    """What a fake was called with, and what it answers."""

    answer: Any = None
    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.positional, self.named = positional, named
        return self.answer


@pytest.fixture
def fake(monkeypatch):
    """Puts a fake function in the place of a real one, without loading the real module."""
    monkeypatch.setattr("captrain.cli.train.quiet_libraries", lambda: None)
    for name in (
        "models.checkpoint.located.check_model",
        "data.readers.detection.detect",
        "training.run_folder.place.RunPlace.look",
    ):
        monkeypatch.setattr(f"captrain.{name}", lambda *args: None)

    def put(place: str, **functions: Call) -> None:
        module = ModuleType(place)
        for name, call in functions.items():
            setattr(module, name, call)
        monkeypatch.setitem(sys.modules, place, module)

    return put


@pytest.fixture
def training(fake) -> Call:
    """A training that went well."""
    scores = {"scores": {"cider": 0.5}, "test_scores": {"cider": 0.4}}
    left = {"rejected": 0, "rejects_file": None, "uncaptioned": 0, "best": {}}
    call = Call(SimpleNamespace(run=Path("runs/x"), **left, **scores))
    fake("captrain.training.run", describe=Call("dry"))
    fake("captrain.training.distributed.launch", train_on_devices=call, worker_environments=Call([]))
    return call


def trained(training: Call, words: str) -> Any:
    """The settings that a command line trains with."""
    assert main(["train", "photos", "runs/x", *words.split()]) == 0
    return training.positional[0]


def test_train_hands_over_data_folder_and_switches(training: Call, capsys) -> None:
    assert main(["train", "photos", "runs/x", "--resume"]) == 0
    assert training.positional[1:] == ("photos", Path("runs/x"))
    assert callable(training.named.pop("prepare"))
    switches = {"resume": True, "overwrite": False, "resume_from": None, "force": False}
    assert training.named == switches | {"extensions": NOTHING}
    output = capsys.readouterr()
    assert "CIDEr" in output.out
    assert "0.5000" in output.out
    assert output.err == ""


def test_the_flags_of_people_who_come_from_scripts(training: Call) -> None:
    settings = trained(
        training,
        "--rank 4 --alpha 8 --dropout 0.1 --target-modules self.query self.key --learning-rate 1e-3"
        " --weight-decay 0 --batch-size 4 --epochs 3 --device cpu --model some/blip --no-sample",
    )
    model, optimisation = settings.model, settings.training
    assert (model.rank, model.alpha, model.dropout, model.device, model.model) == (4, 8, 0.1, "cpu", "some/blip")
    assert model.target_modules == ("self.query", "self.key")
    assert (optimisation.learning_rate, optimisation.weight_decay) == (0.001, 0)
    assert (optimisation.batch_size, optimisation.epochs) == (4, 3)


@pytest.mark.parametrize(
    "words",
    [
        "--freeze vision bridge",
        "--freeze vision,bridge",
        "--freeze=vision,bridge",
        "--freeze vision --freeze bridge",
        "--freeze vision, bridge",
    ],
)
def test_several_values_in_every_way(training: Call, words: str) -> None:
    assert trained(training, f"{words} --epochs 2").model.freeze == ("vision", "bridge")


def test_none_of_several_values(training: Call) -> None:
    assert trained(training, "--no-freeze").model.freeze == ()


def test_values_that_look_like_flags_or_two_kinds(training: Call) -> None:
    settings = trained(training, "--length-penalty -1.5 --captions-per-image 2")
    assert settings.generation.length_penalty == -1.5
    assert settings.data.captions_per_image == 2


@pytest.mark.parametrize("flag", ["--keep", "--cache-features"])
def test_both_names_of_the_feature_cache(flag: str, training: Call) -> None:
    assert trained(training, f"{flag} disk").data.cache_features == "disk"


def test_flag_before_recipe_before_default(training: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {rank: 8, alpha: 4}\ngeneration: {sample: true}\n")
    settings = trained(training, f"--recipe {recipe} --rank 16 --no-sample")
    assert settings.model.rank == 16, "a flag wins even where it says what the default is"
    assert settings.generation.sample is False
    assert (settings.model.alpha, settings.training.epochs) == (4, 5)


def test_dry_run_prints_and_trains_nothing(training: Call, capsys) -> None:
    assert main(["train", "photos", "runs/x", "--dry-run"]) == 0
    assert capsys.readouterr().out == "dry\n"
    assert training.positional == ()


def test_train_with_rejects_returns_3_and_names_the_list(training: Call, capsys) -> None:
    training.answer.rejected, training.answer.rejects_file = 2, Path("runs/x/rejected.jsonl")
    assert main(["train", "photos", "runs/x"]) == 3
    assert "2 (listed in runs/x/rejected.jsonl)" in capsys.readouterr().out


@pytest.fixture
def captioning(fake, monkeypatch) -> Call:
    """A captioning that went well."""
    call = Call(SimpleNamespace(written=2, skipped=1, rejected=0, rejects_file=None, unread=()))
    monkeypatch.setattr("captrain.inference.caption_files.caption_files", call)
    return call


def test_caption_by_default_changes_nothing_of_the_model(captioning: Call, capsys) -> None:
    assert main(["caption", "runs/x", "a,b.jpg", "photos"]) == 0
    to = CaptionOutput(None, ".txt", "skip")
    assert captioning.positional == ("runs/x", ["a,b.jpg", "photos"], to), "a comma in a file's name stays"
    as_given = {"computing": Computing(), "format": None, "options": BY_LOOKING, "decoding": {}}
    assert captioning.named == as_given
    assert "written" in capsys.readouterr().out


def test_caption_hands_over_what_is_given(captioning: Call) -> None:
    words = "--extension caption --existing append --batch-size 3 --device cpu --beams 1 --no-sample a.jpg --top-p 0.5"
    assert main(["caption", "m", *words.split()]) == 0
    assert captioning.positional == ("m", ["a.jpg"], CaptionOutput(None, ".caption", "append"))
    assert captioning.named["computing"] == Computing(batch_size=3, device="cpu")
    assert captioning.named["decoding"] == {"beams": 1, "sample": False, "top_p": 0.5}


def test_caption_with_rejects_returns_3(captioning: Call) -> None:
    captioning.answer.rejected = 1
    assert main(["caption", "m", "a.jpg", "--output", "all.jsonl"]) == 3
    assert captioning.positional[2].path == Path("all.jsonl")


@pytest.fixture
def evaluation(fake, monkeypatch) -> Call:
    """An evaluation that went well."""
    statistics = Statistics(4, None, {"cider": np.full(4, 0.5)})
    system = System("captions", {"bleu_4": 0.25, "cider": 0.5}, 4, "captrain:1", statistics)
    found = {"comparison": Comparison([system], {}), "images": 4, "rejected": 0, "rejects_file": None, "pictures": {}}
    call = Call(SimpleNamespace(**found, predictions=[Path("out/predictions.jsonl")]))
    monkeypatch.setattr("captrain.inference.evaluate.evaluate", call)
    return call


def test_evaluate_prints_a_table(evaluation: Call, capsys) -> None:
    assert main(["evaluate", "m", "d", "--split", "test", "--limit", "4", "--output", "out"]) == 0
    assert evaluation.positional == ("m", EvaluationData("d", "test", 4))
    assert evaluation.named["output"] == Path("out")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["BLEU-4", "0.2500"] in lines
    assert ["images", "4"] in lines


def test_evaluate_json_is_one_object(evaluation: Call, capsys) -> None:
    evaluation.answer.rejected = 1
    assert main(["evaluate", "m", "d", "--json"]) == 3
    expected = {
        "scores": {"bleu_4": 0.25, "cider": 0.5},
        "images": 4,
        "signature": "captrain:1",
        "rejected": 1,
        "predictions": "out/predictions.jsonl",
    }
    assert json.loads(capsys.readouterr().out) == expected


def test_demo_has_a_default_folder(monkeypatch) -> None:
    call = Call(Path("runs/demo"))
    monkeypatch.setattr("captrain.cli.train.run_demo", call)
    assert main(["demo"]) == 0
    assert (call.positional, call.named) == ((Path("runs/demo"),), {"seed": 0, "overwrite": False})
    assert main(["demo", "there", "--seed", "3", "--overwrite"]) == 0
    assert (call.positional, call.named) == ((Path("there"),), {"seed": 3, "overwrite": True})


def test_report_prints_where_it_is(fake, capsys, monkeypatch) -> None:
    call = Call(Path("runs/x/report.html"))
    monkeypatch.setattr("captrain.api.runs.check_run", lambda run: None)
    fake("captrain.report.run", write_report=call)
    assert main(["report", "runs/x", "--output", "r.html"]) == 0
    assert call.positional == (Path("runs/x"), Path("r.html"))
    assert capsys.readouterr().out == "runs/x/report.html\n"


@pytest.mark.parametrize(("words", "level"), [("", logging.INFO), ("-v", logging.DEBUG), ("--quiet", logging.WARNING)])
@pytest.mark.parametrize("first", [True, False])
def test_verbosity_is_a_flag_of_every_command_wherever_it_stands(
    training: Call, words: str, level: int, first: bool
) -> None:
    command = ["train", "photos", "runs/x", "--target-modules", "a"]
    assert main([*words.split(), *command] if first else [*command, *words.split()]) == 0
    assert logging.getLogger("captrain").level == level


def test_flags_that_commands_share_offer_what_the_settings_offer() -> None:
    ours = ComputingSettings.model_json_schema()["properties"]
    for schema, names in ((ModelSettings, ("device", "precision")), (DataSettings, ("workers", "max_pixels"))):
        theirs = schema.model_json_schema()["properties"]
        for name in names:
            assert ours[name] | {"description": ""} == theirs[name] | {"description": ""}
