"""Files of LAVIS and BLIP, imported and run as a user would: what they say reaches training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_tools import Cli, lines_of

import captrain
from captrain.models.checkpoint.folder import load_captioner
from captrain.testing import tiny_blip, tiny_blip2, tiny_photos

HERE = "--device cpu --precision fp32"
EVALUATION: dict[str, Any] = {
    "model": {"arch": "blip_caption", "model_type": "base_coco"},
    "datasets": {"nocaps": {"text_processor": {"eval": {"name": "blip_caption", "prompt": "the large "}}}},
    "run": {
        "task": "captioning",
        "max_len": 9,
        "min_len": 5,
        "num_beams": 2,
        "evaluate": True,
        "test_splits": ["test"],
    },
}
BLIP_2: dict[str, Any] = {
    "model": {"arch": "blip2_opt", "model_type": "caption_coco_opt2.7b", "load_finetuned": False, "freeze_vit": False},
    "datasets": {
        "coco_caption": {
            "vis_processor": {"train": {"name": "blip2_image_train", "image_size": 40}},
            "text_processor": {"train": {"name": "blip_caption", "prompt": "a large "}},
        }
    },
    "run": {
        "task": "captioning",
        "lr_sched": "linear_warmup_cosine_lr",
        "init_lr": 1e-4,
        "max_epoch": 1,
        "batch_size_train": 20,
        "max_len": 6,
        "min_len": 2,
        "num_beams": 2,
    },
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny_photos(tmp_path / "photos", count=8)


def test_an_imported_evaluation_begins_with_its_prompt(tmp_path: Path, photos: Path, cli: Cli) -> None:
    model = tiny_blip(tmp_path / "blip")
    (tmp_path / "nocaps_eval.yaml").write_text(yaml.safe_dump(EVALUATION))
    assert cli("config import", tmp_path / "nocaps_eval.yaml", "mine.yaml --model", model).code == 0
    assert "captrain evaluate" in (tmp_path / "mine.yaml").read_text().splitlines()[2]
    for words, out in (("--recipe mine.yaml", "with"), ("--beams 2 --max-new-tokens 6 --min-new-tokens 2", "without")):
        assert cli("evaluate", model, photos, words, "--split all --output", tmp_path / out, HERE).code == 0
    texts = {
        out: [line["text"] for line in lines_of(tmp_path / out / "predictions.jsonl")] for out in ("with", "without")
    }
    writer = captrain.load(model, device="cpu", precision="fp32")
    writer.model.prompt = "the large"
    how = {"beams": 2, "max_new_tokens": 6, "min_new_tokens": 2}
    pictures = [photos / f"photo-{number:03d}.png" for number in range(8)]
    assert texts["with"] == [line.text for line in writer.caption(pictures, **how)]
    assert texts["with"] != texts["without"]


def test_an_imported_file_of_blip_2_trains(tmp_path: Path, photos: Path, cli: Cli) -> None:
    model = tiny_blip2(tmp_path / "blip-2")
    (tmp_path / "caption_coco_ft.yaml").write_text(yaml.safe_dump(BLIP_2))
    assert cli("config import", tmp_path / "caption_coco_ft.yaml", "mine.yaml --model", model).code == 0
    before = load_captioner(str(model))
    made = cli("train", photos, tmp_path / "run", "--recipe mine.yaml", HERE)
    assert made.code == 0, made.err
    captioner = load_captioner(str(tmp_path / "run"))
    assert (captioner.prompt, captioner.decoding.beams, captioner.decoding.max_new_tokens) == ("a large", 2, 6)
    assert (captioner.decoding.min_new_tokens, captioner.image_spec.height) == (2, 40)
    learned = {
        part
        for part, weights in captioner.parts().items()
        for (name, weight), (_, old) in zip(weights, before.parts()[part], strict=True)
        if not weight.equal(old)
    }
    assert learned == {"vision", "bridge"}
    assert json.loads((tmp_path / "run" / "model" / "captrain.json").read_text())["prompt"] == "a large"
