"""The code in the card of an exported captioner, run as it stands: the caption that captrain itself writes, for every family.

On JPEGs that decoders treat in several ways: large, turned by EXIF, grey, CMYK.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_tools import QUICK, Cli, lines_of

import captrain
from captrain.models.checkpoint.export import export
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.decoding import Decoding
from captrain.models.lora import LoraOptions, add_lora
from captrain.testing import TINY_CAPTIONERS, teach, tiny_blip2

PHOTOS = 6
RUN_ALL = """
import contextlib, io, json, os, shutil, sys
root = os.getcwd()

def run(name, code, photo):
    os.chdir(root if "inside" not in name else root + "/" + name.split(",")[0])
    shutil.copy(photo, "photo.jpg")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {"__name__": "__main__"})
    return out.getvalue().strip()

codes, photos = json.load(open("codes.json"))
found = {name: [run(name, code, photo) for photo in photos] for name, code in codes.items()}
assert "captrain" not in sys.modules
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs, most of them far larger than the tiny models' pictures."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    for number, (size, mode, turn) in enumerate(
        [
            ((700, 520), "RGB", 1),
            ((520, 700), "RGB", 6),
            ((300, 333), "L", 1),
            ((257, 400), "CMYK", 8),
            ((48, 40), "RGB", 3),
        ]
    ):
        _save(folder / f"{number}.jpg", random, size, mode, turn)
    _save(folder / f"{PHOTOS - 1}.jpg", random, (1201, 801), "RGB", 5)
    return folder


def _save(path: Path, random: np.random.Generator, size: tuple[int, int], mode: str, turn: int) -> None:
    """Coarse patches of colour under fine noise."""
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = random.normal(0, 30, (size[1], size[0], 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = (np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, quality=90, exif=exif)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioners of all families that transformers can load, exported with different settings."""
    root = tmp_path_factory.mktemp("exported")
    made = {name: make(root / "tiny" / name) for name, make in TINY_CAPTIONERS.items() if name != "prefix"}
    made["t5"] = tiny_blip2(root / "tiny" / "t5", language="t5")
    for number, (name, tiny) in enumerate(made.items()):
        captioner = load_captioner(str(tiny))
        captioner.prompt = "the large" if number % 2 else ""
        captioner.decoding = Decoding(beams=1 + number % 3, max_new_tokens=9, min_new_tokens=3 * (number % 2))
        save_captioner(captioner, root / "tiny" / f"set-{name}")
        export(str(root / "tiny" / f"set-{name}"), root / name, dtype="bf16" if name == "git" else "fp32")
    adapted = load_captioner(str(made["blip"]))
    adapted.prompt, adapted.decoding = "a small", Decoding(length_penalty=0.5, max_new_tokens=7)
    add_lora(adapted, LoraOptions(4, 8, 0.1))
    teach(adapted, steps=4, learning_rate=1e-2)
    save_captioner(adapted, root / "tiny" / "adapter")
    export(str(root / "tiny" / "adapter"), root / "kept-adapter", merge=False)
    return root


def test_the_cards_code_writes_captrains_captions(exported: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    names = sorted(path.name for path in exported.iterdir() if (path / "README.md").is_file())
    assert names == ["blip", "blip-2", "encoder-decoder", "git", "kept-adapter", "t5"]
    pictures = sorted(map(str, photos.iterdir()))
    codes = {name: _code(exported / name) for name in names}
    codes["git, inside"] = codes["git"]  # run in the folder itself
    (exported / "codes.json").write_text(json.dumps([codes, pictures]))
    done = subprocess.run([sys.executable, "-c", RUN_ALL], cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    plain = json.loads(done.stdout.splitlines()[-1])
    assert plain.pop("git, inside") == plain["git"]
    assert sum(len(set(captions)) for captions in plain.values()) > 2 * len(names), (
        "captions are too alike to tell anything"
    )
    for name in names:
        writer = captrain.load(exported / name, device="cpu", precision="fp32")
        assert [writer(picture) for picture in pictures] == plain[name], name
    for name in ("blip", "git"):
        out = tmp_path / f"{name}.jsonl"
        assert cli("caption", exported / name, photos, "--device cpu --precision fp32 --output", out).code == 0
        captions = {line["id"]: line["text"] for line in map(json.loads, out.read_text().splitlines())}
        assert list(captions.values()) == plain[name]


def _code(folder: Path) -> str:
    return (folder / "README.md").read_text().split("Without captrain:\n\n```python\n")[1].split("```")[0]


def test_what_was_learned_from_is_what_is_scored(photos: Path, tmp_path: Path, cli: Cli) -> None:
    """`--decode fast` is saved: features that were kept, live ones and the finished captioner's are of the same pixels."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for picture in folder.glob("*.jpg"):
        picture.with_suffix(".txt").write_text("a red dog")
    tiny = TINY_CAPTIONERS["blip"](tmp_path / "blip")
    losses = {}
    for name, words in {"kept": "--decode fast", "live": "--decode fast --keep off", "exact": "--keep off"}.items():
        made = cli("train", folder, tmp_path / name, "--model", tiny, QUICK, "--validation-share 0.5", words)
        assert made.code == 0, made.err
        losses[name] = lines_of(tmp_path / name / "metrics.jsonl")[-1]
        saved = json.loads((tmp_path / name / "model" / "captrain.json").read_text())["image_spec"]["decode"]
        assert saved == ("exact" if name == "exact" else "fast")
    assert losses["kept"] == losses["live"] != losses["exact"]
    export(str(tmp_path / "kept"), tmp_path / "out")
    assert "decodes large JPEGs at a smaller scale" in (tmp_path / "out" / "README.md").read_text()
