"""Model folders that can't be loaded: one line that says what is wrong and where, whatever the libraries raise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captrain.errors import ModelError
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.families import family_named
from captrain.models.lora import LoraOptions, add_lora

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def saved(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`full` and `lora`, as captrain saves them."""
    folder = tmp_path_factory.mktemp("saved")
    captioner = load_captioner(str(tiny_folders["blip"]))
    save_captioner(captioner, folder / "full")
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0))
    save_captioner(captioner, folder / "lora")
    return folder


def _write(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _edit(name: str, **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return damage


def _remove(*patterns: str) -> Damage:
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def _halve(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def _all(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


FULL: dict[str, tuple[Damage, str]] = {
    "config is no JSON": (_write("config.json", "{{nope"), "config.json: not valid JSON"),
    "config is empty": (_write("config.json", ""), "not valid JSON"),
    "config is no text": (_write("config.json", b"\xff\xfe\x00"), "not valid JSON"),
    "config is a list": (_write("config.json", "[1]"), "found a JSON list"),
    "config says nothing": (_write("config.json", "{}"), "model_type"),
    "kind that nobody knows": (_edit("config.json", model_type="bogus"), "model type `bogus`"),
    "kind of no family": (_edit("config.json", model_type="bert"), "'bert' belongs to no known family; families: blip, blip-2"),
    "sizes are words": (_edit("config.json", text_config={"vocab_size": "many"}), "vocab_size"),
    "sizes of another model": (_edit("config.json", text_config={"hidden_size": 64, "vocab_size": 29}), "can't be loaded"),
    "no weights": (_remove("*.safetensors"), "model.safetensors is missing"),
    "weights cut off": (_halve("model.safetensors"), "header"),
    "weights empty": (_write("model.safetensors", b""), "header"),
    "weights are something else": (_write("model.safetensors", b"<html>" * 99), "header"),
    "no tokenizer": (_remove("*token*", "vocab*"), "tokenizer"),
    "tokenizer without vocabulary": (_remove("tokenizer.json", "vocab*"), "tokenizer has no vocabulary"),
    "tokenizer is no JSON": (_write("tokenizer.json", "nope"), "no tokenizer could be loaded"),
    "tokenizer says nothing": (_write("tokenizer.json", "{}"), "no tokenizer could be loaded"),
    "captrain.json is no JSON": (_write("captrain.json", "nope"), "captrain.json: not valid JSON"),
    "captrain.json is a list": (_write("captrain.json", "[1]"), "captrain.json: found a JSON list"),
    "image_spec incomplete": (_write("captrain.json", '{"image_spec": {"height": 3}}'), "can't be loaded"),
    "image_spec misspelt": (_write("captrain.json", '{"image_spec": {"heigth": 3}}'), "Did you mean 'height'"),
    "no preparation": (_remove("captrain.json", "preprocessor*"), "no preprocessor_config.json"),
    "preparation is no JSON": (
        _all(_remove("captrain.json"), _write("preprocessor_config.json", "nope")), "preprocessor_config.json: not valid JSON"
    ),
    "preparation is odd": (
        _all(_remove("captrain.json"), _write("preprocessor_config.json", '{"size": "big"}')), "download it again"
    ),
}  # fmt: skip

LORA: dict[str, tuple[Damage, str]] = {
    "adapter is no JSON": (_write("adapter_config.json", "nope"), "adapter_config.json: not valid JSON"),
    "adapter names no base": (_write("adapter_config.json", "{}"), "names no base model"),
    "base was moved": (
        _edit("adapter_config.json", base_model_name_or_path="/moved/away"), "its base model /moved/away is not there"
    ),
    "no adapter weights": (_remove("*.safetensors"), "adapter_model.safetensors is missing"),
    "adapter weights cut off": (_halve("adapter_model.safetensors"), "header"),
    "adapter of other sizes": (_edit("adapter_config.json", r=8), "size mismatch"),
    "adapter of another model": (_edit("adapter_config.json", target_modules="bogus"), "bogus not found"),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_damaged_model_is_refused_in_one_line(name: str, saved: Path, tmp_path: Path) -> None:
    _refused(saved / "full", *FULL[name], tmp_path)


@pytest.mark.parametrize("name", LORA)
def test_damaged_adapter_is_refused_in_one_line(name: str, saved: Path, tmp_path: Path) -> None:
    _refused(saved / "lora", *LORA[name], tmp_path)


def _refused(source: Path, damage: Damage, message: str, folder: Path) -> None:
    broken = folder / "broken"
    shutil.copytree(source, broken)
    damage(broken)
    with pytest.raises(ModelError) as error:
        load_captioner(str(broken))
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 600


def test_missing_weights_are_counted(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved / "full", tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights.pop("vision_model.post_layernorm.weight")
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"incomplete, 1 weights are missing, first vision_model\.post_layernorm\.weight"
    ):
        load_captioner(str(tmp_path / "broken"))


def test_missing_folder_names_the_nearest(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no such folder\. Did you mean '.*/full'\?"):
        load_captioner(str(saved / "fulll"))
    monkeypatch.chdir(saved.parent)
    with pytest.raises(ModelError, match="no such folder"):
        load_captioner(f"{saved.name}/fulll")


def test_empty_folder_and_file(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json or adapter_config\.json here"):
        load_captioner(str(tmp_path))
    with pytest.raises(ModelError, match="is a file; expected the run folder"):
        load_captioner(str(saved / "full" / "config.json"))


def test_hub_id_without_network_is_one_line() -> None:
    with pytest.raises(ModelError, match="some/captioner: can't be loaded") as error:
        load_captioner("some/captioner")
    assert "\n" not in str(error.value)


def test_run_folder_stands_for_its_model(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "full", tmp_path / "run" / "model")
    assert load_captioner(str(tmp_path / "run")).family == "blip"


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'blip'"):
        family_named("bilp")
