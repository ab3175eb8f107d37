"""What a training leaves, what a dry run prints, and that a loss falls on real photos."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from PIL import Image
from run_tools import QUICK, Cli, lines_of, losses_of

from captrain.settings.load import resolve
from captrain.training.run_folder.place import CLEARING


def test_holds_what_the_design_says(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    expected = {
        "settings.yaml",
        "splits.jsonl.gz",
        "model",
        "checkpoints",
        "metrics.jsonl",
        "samples.jsonl",
        "predictions.jsonl",
        "scores.json",
    }
    assert names - {"tensorboard"} == expected | {"report.html", "finished.json"}
    assert [path.name for path in sorted((trained / "checkpoints").iterdir())] == ["checkpoint-10", "checkpoint-5"]
    model = {path.name for path in (trained / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json", "captrain.json"} <= model


def test_settings_say_everything(trained: Path, blip: Path) -> None:
    settings = yaml.safe_load((trained / "settings.yaml").read_text())
    assert set(settings["captrain"]) == {"version", "python", "torch", "transformers", "platform", "device"}
    assert settings["settings"]["model"]["method"] == "lora"
    assert settings["settings"]["training"]["label_smoothing"] == 0.1
    assert settings["data"]["train_images"] == 9
    assert settings["data"]["validation_captions"] == 15
    assert settings["parameters"]["vision"]["trainable"] == 0 < settings["parameters"]["language"]["trainable"]
    assert resolve(settings["settings"]).model.model == str(blip), "the settings of a run are a recipe"


def test_logs_have_their_form(trained: Path) -> None:
    lines = lines_of(trained / "metrics.jsonl")
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 11))
    assert set(train[0]) == {"kind", "step", "epoch", "loss", "learning_rate", "gradient_norm"}
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [5, 10]
    samples = lines_of(trained / "samples.jsonl")
    assert len(samples) == 6
    assert set(samples[0]) == {"step", "epoch", "id", "text", "score", "references", "image", "measured"}
    assert set(json.loads((trained / "scores.json").read_text())) >= {"scores", "images", "signature", "diversity"}


class Page(HTMLParser):
    """Collects the pictures of an HTML page, and what its scripts and links refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.scripts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values.get("src") or "")
        if tag in ("script", "link"):
            self.scripts.append(values.get("src") or values.get("href"))


def test_the_report_opens_with_pictures(trained: Path) -> None:
    page = Page()
    text = (trained / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    assert len(page.pictures) >= 3
    assert all(source.startswith("data:image/") for source in page.pictures), "one file, nothing beside it"
    assert not any(page.scripts), "nothing is loaded from elsewhere"
    assert Image.open(BytesIO(base64.b64decode(page.pictures[0].split(",", 1)[1]))).size == (48, 40)
    assert "photo-005.png" in text


def test_a_dry_run_writes_nothing(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    result = cli("train", photos, tmp_path / "run", f"--model {blip} --rank 4 --dry-run", QUICK)
    assert result.code == 0
    assert "rank: 4" in result.out
    assert re.search(r"language\s+[\d,]+\s+[1-9]", result.out), "parameters a part"
    assert "first targets, of photo-" in result.out
    assert "to validate on" in result.out
    assert result.out.index("what learns") < result.out.index("first targets") < result.out.index("rank: 4")
    assert "epochs: 5" not in result.out, "a default is not repeated"
    assert max(map(len, result.out.splitlines())) <= 80
    assert "[SEP]" in result.out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def coco(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen real photos with their captions, copied."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    lines = (shared_data / "data" / "coco-mini" / "captions.jsonl").read_text().splitlines()[:16]
    for line in lines:
        name = json.loads(line)["file_name"].removeprefix("images/")
        shutil.copy(shared_data / "data" / "coco-mini" / "images" / name, folder / "images")
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


WAYS = {
    "lora on blip": "--model {blip} --learning-rate 0.02",
    "joined, new decoder": "--encoder {encoder} --decoder-layers 2 --decoder-width 32 --decoder-heads 4 --learning-rate 0.01",
    "joined, given decoder": "--encoder {encoder} --decoder {decoder} --learning-rate 0.01",
    "joined, pooled, word pieces": "--encoder {encoder} --image-vectors pooled --tokenizer word-pieces --decoder-width 32 "
    "--decoder-heads 4 --learning-rate 0.01",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_falls_on_real_photos(
    way: str, tmp_path: Path, cli: Cli, coco: Path, blip: Path, encoder: Path, decoder: Path
) -> None:
    words = WAYS[way].format(blip=blip, encoder=encoder, decoder=decoder)
    quick = QUICK.replace("--learning-rate 0.01", "").replace("--batch-size 2", "--batch-size 4")
    result = cli(
        "train", coco, tmp_path / "run", words, quick, "--epochs 6 --evaluate-every 6 --validation-share 0.125"
    )
    assert result.code == 0, result.err
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_a_removal_that_was_cut_off(tmp_path: Path, cli: Cli, photos: Path, blip: Path, trained: Path) -> None:
    """What `--overwrite` began to remove is no run any more: the same command without it begins anew, and nothing of it stays."""
    run, words = tmp_path / "run", f"--model {blip} --validation-share 0.25 --epochs 1 {QUICK}"
    shutil.copytree(trained, run)
    for name in ("metrics.jsonl", "model/README.md"):
        (run / name).unlink()
    (run / CLEARING).touch()
    assert "holds no run to go on with" in cli("train", photos, run, words, "--resume").last_line
    assert cli("train", photos, run, words).code == 0
    assert [line["step"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert not (run / CLEARING).exists()
    assert not (run / "checkpoints/checkpoint-10").exists()
