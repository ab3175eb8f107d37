"""Pipes, devices, links and giants among the pictures, and in the place of each input: nothing waits, one clear line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image
from run_tools import Cli

from captrain.testing import tiny_photos

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")

QUICK = "--device cpu --max-new-tokens 3"
LONGEST = 30  # seconds


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """A test that waits for a pipe fails, instead of waiting for ever."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"nothing happened for {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def two(folder: Path) -> Path:
    """A folder with two good pictures."""
    folder.mkdir(parents=True)
    for name in ("ok1", "ok2"):
        Image.new("RGB", (40, 40), (9, 9, len(name))).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a dog\n")
    return folder


def pipe_picture(folder: Path) -> None:
    os.mkfifo(folder / "odd.jpg")


def pipe_text(folder: Path) -> None:
    shutil.copy(folder / "ok1.png", folder / "odd.png")
    os.mkfifo(folder / "odd.txt")


def pipe_table(folder: Path) -> None:
    os.mkfifo(folder / "metadata.jsonl")


def pipes_of_every_ending(folder: Path) -> None:
    for ending in ["json", "csv", "tsv", "parquet", "arrow", "toml", "zip", "lst", "token", "ndjson"]:
        os.mkfifo(folder / f"odd.{ending}")
    for name in ("captions.txt", "dataset_info.json", "state.json", "train.txt", "manifest.json", "splits.json"):
        os.mkfifo(folder / name)


def socket_picture(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("odd.jpg")
    os.chdir(here)


def device_picture(folder: Path) -> None:
    (folder / "odd.jpg").symlink_to("/dev/zero")


def folders_called_as_files(folder: Path) -> None:
    for name in ("odd.jpg", "metadata.jsonl", "metadata.csv", "odd.parquet", "odd.tar", "odd.json", "odd.toml"):
        (folder / name).mkdir()


def sparse_picture(folder: Path) -> None:
    with (folder / "odd.jpg").open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("the file system takes no file of 1 TiB")
    (folder / "odd.txt").write_text("a dog\n")


def sparse_text(folder: Path) -> None:
    shutil.copy(folder / "ok1.png", folder / "odd.png")
    with (folder / "odd.txt").open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("the file system takes no file of 1 TiB")


def loop(folder: Path) -> None:
    (folder / "odd.jpg").symlink_to("odd.jpg")


def not_utf_8(folder: Path) -> None:
    shutil.copy(folder / "ok1.png", os.fsdecode(os.fsencode(folder) + b"/odd\xff.png"))


def deep(folder: Path) -> None:
    """A path that is longer than any that the system takes."""
    here = Path.cwd()
    os.chdir(folder)
    for _ in range(60):
        os.mkdir("odd" * 30)
        os.chdir("odd" * 30)
    os.chdir(here)


TOLD = (
    pipe_picture, pipe_text, pipe_table, socket_picture, device_picture, sparse_picture, sparse_text, loop, not_utf_8, deep,
)  # fmt: skip
"""What is rejected when captions are read."""


@pytest.mark.parametrize("make", [*TOLD, pipes_of_every_ending, folders_called_as_files])
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such files")
def test_what_lies_among_the_pictures_is_told_and_the_others_are_used(
    make: Callable[[Path], None], tmp_path: Path, cli: Cli, blip: Path
) -> None:
    photos = two(tmp_path / "photos")
    make(photos)
    for command in ("data check", "data preview", "data convert", "data convert --to webdataset", "caption"):
        out = tmp_path / (command.replace(" ", "-") + (".html" if command == "data preview" else ""))
        words: list[str | Path] = [command, photos, out]
        if command == "data convert":
            words.append("--to sidecar")
        if command == "data check":
            words.pop()
        if command == "caption":
            words = [command, blip, photos, "--existing append", QUICK]
        found = cli(*words)
        assert found.code in (0, 3), (command, found.err)
        assert "Traceback" not in found.err
        if make in TOLD and command.startswith("data convert"):
            listed = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
            assert any("odd" in line["id"] or "metadata" in line["id"] for line in listed)
    assert (photos / "ok1.txt").read_text().startswith("a dog\n")
    assert len((photos / "ok1.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/proc/self/status"])
@pytest.mark.parametrize(
    "words",
    [
        *(f"data check odd{ending}" for ending in (".jsonl", ".json", ".csv", ".parquet", ".tar", ".zip", ".toml", "")),
        *(f"data check odd{ending} --format {form}" for ending, form in ((".jsonl", "jsonl"), (".csv", "csv"))),
        *("train odd run --model photos", "train photos run --model odd", "train photos run --recipe odd"),
        *("caption odd photos", "evaluate odd photos", "evaluate photos odd", "export odd out", "report odd"),
        *("score odd.jsonl odd.jsonl", "score odd.csv odd.csv", "config import odd", "features info odd"),
        *("encode odd out --encoder photos", "estimate odd --encoder photos", "data preview odd page.html"),
        *("data check photos --image-root odd", "data convert odd out --to csv", "data compile odd out"),
    ],
)
def test_what_stands_in_the_place_of_an_input_is_refused(words: str, kind: str, tmp_path: Path, cli: Cli) -> None:
    if not kind.startswith("/"):
        os.mkfifo(tmp_path / kind)
    elif not Path(kind).exists():
        pytest.skip(f"this system has no {kind}")
    tiny_photos(tmp_path / "photos", count=2)
    for ending in (".jsonl", ".json", ".csv", ".parquet", ".tar", ".zip", ".toml", ""):
        (tmp_path / f"odd{ending}").symlink_to(kind)
    found = cli(words)
    assert found.code == 2, found.err
    assert found.last_line.startswith("error: ")
    assert "Traceback" not in found.err


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "captrain.json", "odd.txt"])
def test_a_pipe_in_a_model_s_folder_is_refused(name: str, tmp_path: Path, cli: Cli, blip: Path) -> None:
    tiny_photos(tmp_path / "photos", count=1)
    model = Path(shutil.copytree(blip, tmp_path / "model"))
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    found = cli("caption", model, "photos --output o.jsonl", QUICK)
    assert (found.code, found.out) == (2, "")
    assert found.last_line == f"error: {model / name}: is a pipe, not a file; put the file itself there"


def test_links_from_end_to_end(tmp_path: Path, cli: Cli, blip: Path) -> None:
    disk = two(tmp_path / "disk")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(disk)
    refused = cli("train", data, "run --model", blip)
    assert refused.code == 2
    assert "--follow-links" in refused.last_line
    for command in ("data check", "data preview", "data convert", "estimate", "encode"):
        extra = {"data preview": "page.html", "data convert": "out --to csv", "encode": "store", "estimate": ""}
        model: list[str | Path] = ["--encoder", blip] if command in ("encode", "estimate") else []
        words = [command, data, extra.get(command, ""), *model, "--no-measure" if command == "estimate" else ""]
        assert cli(*words, "--follow-links").code == 0, command
        assert cli(*words, "--overwrite" if command == "data convert" else "").code == 2, command
    train = ["train", data, "run --model", blip, "--epochs 1 --batch-size 1 --device cpu --validation-share 0.5"]
    assert cli(*train, "--follow-links").code == 0
    assert cli(*train, "--resume").last_line.count("follow_links") == 1
    assert cli("evaluate run", QUICK).code == 2
    assert cli("evaluate run --follow-links", QUICK).code == 0
    (tmp_path / "recipe.yaml").write_text("data:\n  follow_links: true\n")
    assert cli("evaluate run --recipe recipe.yaml", data, QUICK).code == 0


def test_captions_beside_pictures_behind_links(tmp_path: Path, cli: Cli, blip: Path) -> None:
    """They are written where the picture lies in truth; a text that is a link itself is never written through."""
    disk = two(tmp_path / "disk")
    (disk / "ok1.txt").unlink()
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (disk / "ok2.txt").unlink()
    (disk / "ok2.txt").symlink_to(victim)
    data = tmp_path / "data"
    data.mkdir()
    (data / "far").symlink_to(disk)
    cli("caption", blip, data, "--follow-links --existing append", QUICK)
    assert (disk / "ok1.txt").is_file()
    assert not (disk / "ok1.txt").is_symlink()
    assert victim.read_text() == "mine\n"
