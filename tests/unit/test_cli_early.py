"""What is not there is told at once: one line, exit code 2, and torch was never loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from captrain.errors import ModelError
from captrain.models.checkpoint.located import check_model

CODE = """
import sys
from captrain.cli import main
for line in sys.stdin.read().splitlines():
    code = main(line.split())
    print(code, "torch" in sys.modules, "transformers" in sys.modules, flush=True)
"""

REFUSED = {
    "caption no-run photos": "no-run: can't be loaded: no folder of this name",
    "caption model no-photos": "no-photos: not found. Did you mean 'photos'?",
    "caption model photos --output taken": "--output taken: is a folder, expected the name of a file: --output",
    "caption ./modle photos": "./modle: no such folder. Did you mean 'model'?",
    "caption model photos --max-new-tokens 5 --min-new-tokens 6": "min_new_tokens 6 is more than max_new_tokens 5",
    "evaluate model photos --max-new-tokens 5 --min-new-tokens 6": "min_new_tokens 6 is more than max_new_tokens 5",
    "caption begun/zzz photos": "begun/zzz: no such folder. Expected a run folder",
    "evaluate no-run photos": "no-run: can't be loaded: no folder of this name",
    "evaluate model no-photos": "no-photos: not found",
    "evaluate model photos --output photos/a.txt": "--output photos/a.txt: a folder of predictions.jsonl and scores.json",
    "encode photos store --encoder no/vit": "no/vit: can't be loaded: no folder of this name",
    "encode no-photos store --encoder model": "no-photos: not found",
    "estimate photos --encoder no/vit": "no/vit: can't be loaded: no folder of this name",
    "estimate no-photos --encoder mobilenet-v1-0.75-224": "no-photos: not found",
    "export no-run out": "no-run: can't be loaded: no folder of this name",
    "export model taken": "taken: is a file, or a folder that is not empty",
    "push no-run ada/cats": "no-run: can't be loaded: no folder of this name",
    "train photos run": "Salesforce/blip-image-captioning-base: can't be loaded: no folder of this name",
    "train photos run --model no/blip": "Give a checkpoint's folder: --model FOLDER",
    "train photos run --encoder no/vit": "no/vit: can't be loaded: no folder of this name",
    "train no-photos run --model model": "no-photos: not found",
    "train photos run --model model --validation-data gone": "gone: not found",
    "train photos taken --model model": "taken: holds other files (x)",
    "train photos photos/a.txt/run --model model": "photos/a.txt is a file, expected a folder there",
    "train photos run --model model --resume": "run: holds no run to go on with",
    "train photos run --model model --resume-from 7": "run: holds no run to go on with; leave --resume or --resume-from out",
    "train photos begun --model model --resume-from 7": "holds no checkpoint '7'; there are those of steps: 5",
    "train photos begun --model model --epochs 9": "begun: holds another run (training.epochs was the default and is 9",
    "features info no-store": "no-store/manifest.json: not found",
    "features verify no-store": "no-store/manifest.json: not found",
    "features merge out no-store": "no-store/manifest.json: not found",
    "features search no-store photos/a.jpg": "no-store/manifest.json: not found",
    "data check photos --model no/blip": "no/blip: can't be loaded: no folder of this name",
    "score a.jsonl b.jsonl --clip no/clip --images photos": "no/clip: can't be loaded: no folder of this name",
}


def test_every_wrong_name_is_one_line_before_torch(tmp_path: Path) -> None:
    for folder in ("photos", "model", "taken", "begun/checkpoints/checkpoint-5"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        "photos/a.jpg",
        "photos/a.txt",
        "taken/x",
        "a.jsonl",
        "b.jsonl",
        "begun/checkpoints/checkpoint-5/learned.safetensors",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "begun/settings.yaml").write_text("requested: {source: photos, model: {model: model}}")
    result = subprocess.run(
        [sys.executable, "-c", CODE], input="\n".join(REFUSED), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = result.stderr.splitlines()
    for line, words, expected in zip(told, REFUSED, REFUSED.values(), strict=True):
        assert line.startswith("error: "), words
        assert expected in line, words
    assert result.stdout.splitlines() == ["2 False False"] * len(REFUSED)


def test_a_finished_run_and_one_that_has_its_base_need_no_model(tmp_path: Path) -> None:
    """What they began with may be gone."""
    (tmp_path / "photos").mkdir()
    for name in ("finished.json", "base/captrain.json"):
        run = tmp_path / name.partition(".")[0].partition("/")[0]
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("{}")
        (run / "settings.yaml").write_text("requested: {source: photos, model: {model: gone/model}}")
    code = """
from pathlib import Path
from captrain.api.checks import check_training
from captrain.settings.load import resolve
settings = resolve({"model": {"model": "gone/model"}})
for run in ("finished", "base"):
    check_training(settings, "photos", Path(run), resume=False, overwrite=False, resume_from=None, force=False, writes=True)
print("fine")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout == "fine\n", result.stderr


@pytest.mark.parametrize("config", ["config.json", "adapter_config.json"])
def test_what_is_in_the_cache_is_there(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = tmp_path / "models--ada--cats" / "snapshots" / ("0" * 40)
    revision.mkdir(parents=True)
    (revision / config).write_text("{}")
    (tmp_path / "models--ada--cats" / "refs").mkdir()
    (tmp_path / "models--ada--cats" / "refs" / "main").write_text("0" * 40)
    with pytest.raises(ModelError, match="ada/cats: can't be loaded: no folder of this name, not in the hub's cache"):
        check_model("ada/cats")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_model("ada/cats")
    with pytest.raises(ModelError, match=r"blip-larg: can't be loaded: no folder .* Did you mean 'blip-large'\?"):
        check_model("blip-larg")
