"""What people get wrong: one clear line, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from run_tools import QUICK, Cli, Result, lines_of, losses_of

from captrain.testing import tiny_photos


def assert_refused(result: Result, *parts: str) -> None:
    """Exit code 2, one line on stderr that holds all parts, nothing on stdout."""
    assert result.code == 2, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for part in parts:
        assert part in errors[0], errors[0]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("train photos run --learning-rat 0.1", ("--learning-rat", "--learning-rate")),
        ("train photos run --lora-rank 4", ("--lora-rank",)),
        ("train photos run --rank four", ("rank", "four", "whole number")),
        ("train photos run --metric cidr", ("cidr", "'cider'")),
        ("train photos", ("OUT",)),
        ("trian photos run", ("trian", "train")),
        ("train photos run --device cuda --resume --overwrite", ("--resume", "--overwrite")),
        ("train nowhere run", ("nowhere", "not found")),
        ("train phtos run", ("phtos", "photos")),
        ("evaluate ./no-model photos", ("no-model", "no such folder")),
        ("caption ./no-model photos", ("no-model", "no such folder")),
        ("report photos", ("photos", "metrics.jsonl")),
    ],
)
def test_wrong_words(words: str, parts: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    tiny_photos(tmp_path / "photos", count=2)
    assert_refused(cli(words), *parts)
    assert not (tmp_path / "run" / "settings.yaml").exists()


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ("training:\n  bacth_size: 4\n", ("bacth_size", "'batch_size'")),
        ("trainning:\n  epochs: 4\n", ("trainning", "'training'")),
        ("model:\n  epochs: 4\n", ("epochs", "section 'training'")),
        ("training:\n  epochs: many\n", ("training.epochs", "whole number")),
        ("training: [1\n", ("not valid YAML",)),
    ],
)
def test_wrong_recipes(recipe: str, parts: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    tiny_photos(tmp_path / "photos", count=2)
    (tmp_path / "my.yaml").write_text(recipe)
    assert_refused(cli("train photos run --recipe my.yaml"), "my.yaml", *parts)


def no_captions(folder: Path) -> None:
    (folder / "metadata.jsonl").unlink()


def only_texts(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "dog.txt").write_text("a dog")


def outside(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes((folder / "photo-000.png").read_bytes())
    add_line(folder, '{"file_name": "../secret.png", "text": "not yours"}')


def linked_outside(folder: Path) -> None:
    outside(folder)
    os.symlink(folder.parent / "secret.png", folder / "link.png")
    no_captions(folder)
    add_line(folder, '{"file_name": "link.png", "text": "not yours"}')


def broken_json(folder: Path) -> None:
    add_line(folder, '{"file_name": "photo-000.png", "text": ')


def latin_1(folder: Path) -> None:
    with (folder / "metadata.jsonl").open("ab") as file:
        file.write('{"file_name": "photo-000.png", "text": "café"}\n'.encode("latin-1"))


def no_file_name(folder: Path) -> None:
    add_line(folder, '{"file_nam": "photo-000.png", "text": "a dog"}')


def all_broken(folder: Path) -> None:
    for picture in folder.glob("*.png"):
        picture.write_bytes(b"broken")


def add_line(folder: Path, line: str) -> None:
    with (folder / "metadata.jsonl").open("a") as file:
        file.write(line + "\n")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (no_captions, ("4 images", "no captions", "beside each image")),
        (only_texts, ("0 images",)),
        (outside, ("metadata.jsonl:5", "leaves the folder")),
        (linked_outside, ("metadata.jsonl:1", "link that leaves the folder")),
        (broken_json, ("metadata.jsonl:5", "not valid JSON")),
        (latin_1, ("metadata.jsonl:5", "not UTF-8")),
        (no_file_name, ("metadata.jsonl:5", "file_name")),
        (all_broken, ("none of", "can be used")),
    ],
)
def test_data_that_cannot_be_used(
    spoil: Callable[[Path], None], parts: tuple[str, ...], tmp_path: Path, cli: Cli, blip: Path
) -> None:
    spoil(tiny_photos(tmp_path / "photos", count=4))
    assert_refused(cli(f"train photos run --model {blip}", QUICK), *parts)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Four good pictures with texts beside them, and one of everything that is wrong with single pictures."""
    folder = tiny_photos(tmp_path / "mixed", count=4)
    (folder / "metadata.jsonl").unlink()
    good = (folder / "photo-000.png").read_bytes()
    Image.new("RGB", (3000, 2000)).save(folder / "huge.png")
    bad = {"zero.jpg": b"", "truncated.png": good[: len(good) // 2], "unreadable.jpg": b"\xff\xd8\xff" + b"x" * 99}
    bad |= {"misnamed-text.jpg": b"this is no picture", "film.png": b"\0\0\0\x18ftypmp42"}
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    for picture in [*folder.glob("*.png"), *folder.glob("*.jpg")]:
        picture.with_suffix(".txt").write_text("a dog runs\n")
    (folder / "misnamed-picture.jpg").write_bytes(good)
    (folder / "misnamed-picture.txt").write_text("a cat sits\n")
    (folder / "without-text.png").write_bytes(good)
    (folder / "without-picture.txt").write_text("a dog\n")
    (folder / "empty-text.png").write_bytes(good)
    (folder / "empty-text.txt").write_text("\n \n")
    (folder / "latin-1.png").write_bytes(good)
    (folder / "latin-1.txt").write_bytes("café".encode("latin-1"))
    return folder


REASONS = {
    "zero.jpg": "empty (0 bytes)",
    "truncated.png": "truncated",
    "unreadable.jpg": "",
    "misnamed-text.jpg": "is not a JPEG, PNG",
    "film.png": "a film",
    "huge.png": "6000000 pixels, over the limit of 100000",
    "without-picture.txt": "no image beside it",
    "latin-1.txt": "not UTF-8",
}


def test_bad_samples_are_listed_and_the_rest_goes_on(tmp_path: Path, cli: Cli, mixed: Path, blip: Path) -> None:
    """Exit code 3, each reject with its reason; a picture under another format's name is no fault."""
    words = f"train mixed run --model {blip} --epochs 1 --validation-share 0 --max-pixels 100000 {QUICK}"
    result = cli(words)
    assert result.code == 3
    listed = {line["id"]: line["reason"] for line in lines_of(tmp_path / "run" / "rejected.jsonl")}
    assert listed.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in listed[name]
    assert len(losses_of(tmp_path / "run")) == 3, "five pictures in batches of two"
    assert "8 rejected" in result.err
    assert "2 without a caption, left for `captrain caption`" in result.err
    assert "rejected.jsonl" in result.out
    assert cli(words).code == 3


def test_rejects_while_captioning_and_scoring(tmp_path: Path, cli: Cli, mixed: Path, trained: Path) -> None:
    fast = "--precision fp32 --device cpu --max-pixels 100000"
    scored = cli("evaluate", trained, mixed, "--json", fast, "--output", tmp_path / "scores")
    assert scored.code == 3
    assert json.loads(scored.out)["images"] == 5
    captioned = cli("caption", trained, mixed, fast, "--output", tmp_path / "captions.jsonl")
    assert captioned.code == 3
    assert len(lines_of(tmp_path / "captions.jsonl")) == 8
    listed = {line["id"] for line in lines_of(tmp_path / "captions.rejected.jsonl")}
    assert {"zero.jpg", "truncated.png", "huge.png"} <= listed


def test_target_modules_that_match_nothing(cli: Cli, photos: Path, blip: Path) -> None:
    result = cli("train", photos, "run", f"--model {blip} --target-modules q_proj --dry-run")
    assert_refused(result, "'q_proj' matches no module", "query", "crossattention.self.key")


def without(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def truncate_weights(model: Path) -> None:
    weights = model / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


@pytest.mark.parametrize(
    "spoil", [without("adapter_model.safetensors"), without("adapter_config.json"), truncate_weights]
)
def test_an_incomplete_model(
    spoil: Callable[[Path], None], tmp_path: Path, cli: Cli, trained: Path, photos: Path
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    spoil(tmp_path / "model")
    assert_refused(cli("caption", tmp_path / "model", photos, "--output captions.jsonl"), str(tmp_path / "model"))


def test_a_checkpoint_without_some_weights(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(blip, tmp_path / "model")
    weights = load_file(blip / "model.safetensors")
    weights.pop("text_decoder.cls.predictions.transform.dense.weight")
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert_refused(cli("train", photos, "run --model ./model"), "incomplete", "1 weights are missing")


def test_the_folder_of_another_run(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """Refused and left as it is; `--overwrite` begins anew and leaves foreign files."""
    words = f"--model {blip} --epochs 1 {QUICK}"
    run = tmp_path / "run"
    assert cli("train", photos, run, words).code == 0
    (run / "my-notes.txt").write_text("keep me")
    before = (run / "model" / "adapter_model.safetensors").read_bytes()
    result = cli("train", photos, run, words, "--rank 4")
    assert_refused(result, "another run", "model.rank", "--force", "--overwrite")
    assert (run / "model" / "adapter_model.safetensors").read_bytes() == before
    assert cli("train", photos, run, words, "--rank 4 --overwrite").code == 0
    assert (run / "model" / "adapter_model.safetensors").read_bytes() != before
    assert (run / "my-notes.txt").read_text() == "keep me"


@pytest.mark.parametrize("flags", ["", "--overwrite", "--resume"])
@pytest.mark.parametrize(
    "name", ["thesis.pdf", "model/weights.bin", "base/essay.txt", "settings.yaml", "checkpoints/x"]
)
def test_a_folder_of_other_files_is_left_alone(name: str, flags: str, tmp_path: Path, cli: Cli, photos: Path) -> None:
    """Whatever the files are called, and whatever flags are given."""
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("precious: true")
    assert_refused(cli("train", photos, tmp_path / "out", flags), "holds other files", name.split("/")[0])
    assert file.read_text() == "precious: true"


def test_an_output_that_is_a_file(tmp_path: Path, cli: Cli, photos: Path) -> None:
    (tmp_path / "out").write_text("precious")
    assert_refused(cli("train", photos, tmp_path / "out", "--overwrite"), "is a file")
    assert (tmp_path / "out").read_text() == "precious"


def test_the_same_data_and_other_data(tmp_path: Path, cli: Cli, blip: Path) -> None:
    """A slash more is the same data; another folder is another run, whatever else is set."""
    tiny_photos(tmp_path / "photos", count=4)
    tiny_photos(tmp_path / "others", count=4)
    words = f"run --model {blip} --epochs 1 --validation-share 0.25 {QUICK}"
    assert cli("train photos", words).code == 0
    assert cli("train ./photos/", words).code == 0
    assert_refused(cli("train others", words), "another run", "photos", "others")
