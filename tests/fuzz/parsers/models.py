"""Model folders of strangers: configurations, tokenizers, preparations, weights, adapters; and models in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from captrain.errors import ModelError
from fuzz.inputs import Parser
from fuzz.workplace import Files

NEEDS = (
    "captrain.models.checkpoint.folder",
    "captrain.models.families.blip",
    "captrain.models.families.git",
    "captrain.models.families.prefix.captioner",
    "captrain.testing",
)
TEXTS = ("vocab.txt", ".safetensors", "README.md")


def _family(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from captrain.models.checkpoint.folder import load_captioner, save_captioner
        from captrain.testing import TINY_CAPTIONERS

        save_captioner(load_captioner(str(TINY_CAPTIONERS[name](folder / "plain"))), folder / "model")
        _remove(folder / "plain")

    return write


def _adapter(folder: Path) -> None:
    from captrain.models.adapters import BASE, CONFIG
    from captrain.models.checkpoint.folder import load_captioner, save_captioner
    from captrain.models.lora import LoraOptions, add_lora
    from captrain.testing import tiny_blip

    captioner = load_captioner(str(tiny_blip(folder / "model" / BASE)))
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0))
    save_captioner(captioner, folder / "model")
    config = json.loads((folder / "model" / CONFIG).read_text())
    (folder / "model" / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": BASE}))


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def _load(folder: Path) -> None:
    """As every command loads a captioner."""
    from captrain.models.checkpoint.folder import load_captioner

    load_captioner(str(folder / "model"))


def _load_small(folder: Path) -> None:
    """What is read of a model folder before anything is loaded, and its tokenizer and preparation."""
    from captrain.models.checkpoint.folder import clear_errors
    from captrain.models.checkpoint.image_preparation import read_preparation
    from captrain.models.defaults import default_values, family_of
    from captrain.models.vocabulary import load_tokenizer
    from captrain.settings.lavis.models import count_tokens
    from captrain.settings.schema import ModelSettings

    count_tokens("a photo with", str(folder / "model"))
    model = ModelSettings(model=str(folder / "model"))
    default_values(family_of(model).name, model)
    with clear_errors(str(folder / "model")):
        read_preparation(str(folder / "model"))
    load_tokenizer(str(folder / "model"))("a dog runs")


def _archive(folder: Path) -> None:
    from captrain.models.checkpoint.archive import write_archive

    inside = folder / "inside"
    inside.mkdir()
    (inside / "config.json").write_text('{"model_type": "blip"}' + " " * 2000)
    (inside / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}" + bytes(100))
    (inside / "base").mkdir()
    (inside / "base" / "vocab.txt").write_text("a\nb\n")
    write_archive(inside, folder / "model.zip")
    _remove(inside)


def _open_archive(folder: Path) -> None:
    from captrain.models.checkpoint.archive import unpacked

    with unpacked(str(folder / "model.zip")) as place:
        found = {path.relative_to(place).as_posix() for path in Path(place).rglob("*") if path.is_file()}
    if "config.json" not in found:
        raise ModelError("no model in it")


def _stated(files: Files) -> Files:
    """The archive's manifest with the checksums of its members as they are."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(files["model.zip"])) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
            infos = archive.infolist()
        manifest = next(name for name in members if name.startswith("captrain"))
        content = json.loads(members[manifest])
        for name, facts in content["files"].items():
            if name in members:
                facts |= {"bytes": len(members[name]), "sha256": sha256(members[name]).hexdigest()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for info in infos:
                data = json.dumps(content) if info.filename == manifest else members[info.filename]
                archive.writestr(info, data)
        return files | {"model.zip": file.getvalue()}
    except Exception:  # it is too broken for anything to be put right
        return files


FAMILIES = {name: _family(name) for name in ("blip", "git", "prefix")}
WORDS = ("vocab.txt", "tokenizer.json", "README.md")

PARSERS = (
    Parser(
        "model archive", _open_archive, {"zip": _archive}, (), 60, ("captrain.models.checkpoint.archive",), mend=_stated
    ),
    Parser("model texts", _load_small, {"blip": FAMILIES["blip"], "prefix": FAMILIES["prefix"]}, TEXTS, 15, NEEDS),
    Parser("model config", _load, FAMILIES, (*WORDS, ".safetensors"), 10, NEEDS),
    Parser("model weights", _load, {"blip": FAMILIES["blip"]}, (".json", ".txt", ".md"), 10, NEEDS),
    Parser("model adapter", _load, {"lora": _adapter}, WORDS, 10, NEEDS),
)
