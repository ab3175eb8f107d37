"""A finished run in use: scored, captioning folders, in Python, and loaded by plain peft and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from PIL import Image
from run_tools import QUICK, Cli, lines_of

import captrain

FAST = "--precision fp32 --device cpu"


def test_evaluate_prints_one_json_object(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    result = cli("evaluate", trained, photos, "--split all --json", FAST, "--output", tmp_path / "scores")
    assert result.code == 0
    found = json.loads(result.out)
    assert set(found) >= {"scores", "images", "signature", "intervals", "rejected", "predictions"}
    assert found["images"] == 12
    assert {"bleu_4", "cider"} <= found["scores"].keys()
    assert len(lines_of(Path(found["predictions"]))) == 12


def test_evaluate_scores_what_the_run_held_out(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    """Without a word about splits the pictures are those that training did not see, and the scores those of its best model."""
    result = cli("evaluate", trained, photos, "--json", FAST, "--output", tmp_path / "scores")
    found = json.loads(result.out)
    best = json.loads((trained / "scores.json").read_text())["scores"]
    assert found["images"] == 3
    assert found["scores"]["cider"] == pytest.approx(best["cider"], abs=1e-6)
    ids = {line["id"] for line in lines_of(tmp_path / "scores" / "predictions.jsonl")}
    assert ids == {line["id"] for line in lines_of(trained / "predictions.jsonl")}
    named = cli("evaluate", trained, photos, "--split train --json", FAST, "--output", tmp_path / "train")
    assert json.loads(named.out)["images"] == 9


def test_evaluate_chooses_splits(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    lines = (tmp_path / "photos" / "metadata.jsonl").read_text().splitlines()
    (tmp_path / "photos" / "metadata.jsonl").unlink()
    for name, part in {"train": lines[:6], "dev": lines[6:10], "test": lines[10:]}.items():
        (tmp_path / "photos" / f"{name}.jsonl").write_text("\n".join(part))
    for words, images in {"": 2, "--split test": 2, "--split val": 4, "--split train --limit 5": 5}.items():
        result = cli("evaluate", trained, "photos", "--json --output scores", FAST, words)
        assert json.loads(result.out)["images"] == images
    unknown = cli("evaluate", trained, "photos --split tset", FAST)
    assert unknown.code == 2
    assert "Did you mean 'test'?" in unknown.last_line


def test_captions_beside_the_pictures(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    """A text beside each picture; one that is there stays, unless it is to be replaced."""
    pictures = copy_of(photos, tmp_path)
    (pictures / "photo-000.txt").write_text("mine\n")
    assert cli("caption", trained, pictures, FAST).code == 0
    texts = {path.stem: path.read_text() for path in pictures.glob("*.txt")}
    assert len(texts) == 12
    assert texts["photo-000"] == "mine\n"
    assert texts["photo-001"].strip()
    assert cli("caption", trained, pictures, FAST, "--existing overwrite").code == 0
    assert (pictures / "photo-000.txt").read_text() != "mine\n"
    assert (pictures / "photo-001.txt").read_text() == texts["photo-001"]


def copy_of(photos: Path, folder: Path) -> Path:
    """The pictures alone, in a folder that may be written into."""
    target = folder / "pictures"
    shutil.copytree(photos, target, ignore=shutil.ignore_patterns("*.jsonl"))
    return target


@pytest.mark.parametrize("flag", ["--top-p 0.5", "--temperature 2.0"])
def test_sampling_that_was_not_asked_for(flag: str, tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    """In one line, and nothing is written; a recipe that names every setting is no such wish."""
    pictures = copy_of(photos, tmp_path)
    name, value = flag.removeprefix("--").replace("-", "_").split()
    line = f"error: found {name} {value}, which means nothing without sampling; expected --sample too (in Python sample=True), "
    for words in (("caption", trained, pictures), ("evaluate", trained, photos)):
        result = cli(*words, flag, FAST)
        assert (result.code, result.last_line) == (2, f"{line}or leave it out")
    assert not list(pictures.glob("*.txt"))
    recipe = tmp_path / "all.yaml"
    recipe.write_text(cli("config show").out)
    words = ("evaluate", trained, photos, "--recipe", recipe, "--limit 2 --max-new-tokens 4", FAST)
    assert cli(*words, "--output", tmp_path / "out").code == 0
    assert cli(*words, "--output", tmp_path / "drawn", flag, "--sample").code == 0
    drawn = json.loads((tmp_path / "drawn/scores.json").read_text())["decoding"]
    assert (drawn["sample"], drawn[name]) == (True, float(value))


@pytest.mark.parametrize("decoding", ["--beams 1", "--beams 3"])
def test_batches_equal_single_pictures(decoding: str, tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    pictures = copy_of(photos, tmp_path)
    found = {}
    for size in ("1", "8"):
        words = f"--batch-size {size} --output {size}.jsonl --max-new-tokens 12"
        assert cli("caption", trained, pictures, words, decoding, FAST).code == 0
        found[size] = lines_of(tmp_path / f"{size}.jsonl")
    assert [line["text"] for line in found["1"]] == [line["text"] for line in found["8"]]
    scores = [[line["score"] for line in found[size]] for size in ("1", "8")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert max(scores[0]) < 0


def test_an_interrupted_jsonl_is_continued(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    pictures = copy_of(photos, tmp_path)
    words = ("caption", trained, pictures, "--output captions.jsonl", FAST)
    assert cli(*words).code == 0
    whole = (tmp_path / "captions.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "captions.jsonl").unlink()
    (tmp_path / "captions.jsonl.partial").write_text("".join(lines[:7]) + lines[7][:20])
    result = cli(*words)
    assert "5 captions written, 7 pictures left" in result.err
    assert (tmp_path / "captions.jsonl").read_text() == whole


def test_in_python(trained: Path, photos: Path) -> None:
    """A path, bytes and a PIL image of the same picture have the same caption."""
    captioner = captrain.load(str(trained), device="cpu")
    picture = photos / "photo-000.png"
    text = captioner(picture)
    assert text
    assert captioner(str(picture)) == captioner(picture.read_bytes()) == captioner(Image.open(picture)) == text
    assert captioner.caption([picture], beams=1, max_new_tokens=1)[0].text.count(" ") == 0


def test_loads_with_plain_peft(tmp_path: Path, cli: Cli, trained: Path, photos: Path, blip: Path) -> None:
    """The adapter on plain transformers' BLIP, by plain peft, writes what captrain writes."""
    assert cli("caption", trained, photos, "--output captions.jsonl --beams 1", FAST).code == 0
    expected = [line["text"] for line in lines_of(tmp_path / "captions.jsonl")]
    base = transformers.BlipForConditionalGeneration.from_pretrained(blip)
    model = PeftModel.from_pretrained(base, trained / "model").eval()
    assert plainly_written(model, trained / "model", photos) == expected


def test_a_full_run_loads_with_plain_transformers(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    assert cli("train", photos, "run", f"--model {blip} --method full --epochs 1 {QUICK}").code == 0
    assert cli("caption run", photos, "--output captions.jsonl --beams 1", FAST).code == 0
    expected = [line["text"] for line in lines_of(tmp_path / "captions.jsonl")]
    model = transformers.BlipForConditionalGeneration.from_pretrained(tmp_path / "run" / "model").eval()
    assert plainly_written(model, tmp_path / "run" / "model", photos) == expected


def plainly_written(model: torch.nn.Module, folder: Path, photos: Path) -> list[str]:
    """Captions of a model by transformers' own processor, tokenizer and `generate`."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = []
    for picture in sorted(photos.glob("*.png")):
        pixels = processor(Image.open(picture), return_tensors="pt")["pixel_values"]
        ids = model.generate(pixel_values=pixels, max_new_tokens=6, num_beams=1, do_sample=False)
        texts.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    return texts
