"""Adapters as the beginning of a training: merged or going on, saved by captrain or by peft alone, with a base that moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from run_tools import QUICK, Cli

from captrain.errors import ModelError
from captrain.models.adapters import base_of
from captrain.models.checkpoint.export import export
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.families.blip import BlipCaptioner, BlipForConditionalGeneration
from captrain.testing import clear_pictures

WORDS = f"--validation-share 0 --epochs 1 --keep memory {QUICK}"


@pytest.fixture
def bare(tmp_path: Path, blip: Path) -> Path:
    """What peft alone saves: a configuration and weights, on a base that has a place of its own."""
    shutil.copytree(blip, tmp_path / "base-of-it")
    torch.manual_seed(0)
    model = BlipForConditionalGeneration.from_pretrained(tmp_path / "base-of-it")
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["query", "qkv"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "bare", save_embedding_layers=False)
    assert {path.name for path in (tmp_path / "bare").iterdir()} <= {
        "adapter_config.json", "adapter_model.safetensors", "README.md",
    }  # fmt: skip
    return tmp_path / "bare"


@torch.no_grad()
def _logits(captioner: CaptionerModel) -> torch.Tensor:
    rows = captioner.eval().pack([[[6, 7], [8]], [[8, 9, 10]]]).to_dict()
    return captioner(**rows, pixels=torch.from_numpy(clear_pictures(2))).logits


def test_runs_begin_from_runs_and_say_so(tmp_path: Path, cli: Cli, photos: Path, trained: Path, blip: Path) -> None:
    """Three trainings one after the other, the folders of the first two gone in the end."""
    shutil.copytree(trained, tmp_path / "first")
    result = cli("train", photos, tmp_path / "second", "--model", tmp_path / "first", WORDS, "--rank 4")
    assert result.code == 0, result.err
    assert f"is an adapter: it was merged into its base {blip}" in result.err
    result = cli("train", photos, tmp_path / "third", "--model", tmp_path / "second", WORDS, "--continue-adapter")
    assert result.code == 0, result.err
    assert yaml.safe_load((tmp_path / "third" / "settings.yaml").read_text())["settings"]["model"]["rank"] == 4
    assert cli("config show", tmp_path / "third" / "settings.yaml").code in (0, 2)
    expected = _logits(load_captioner(str(tmp_path / "third")))
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "second")
    torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "third"))), expected)
    export(str(tmp_path / "third"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| trained on from | {blip.name}, then first, then second |" in card
    assert str(tmp_path) not in card
    plain = BlipForConditionalGeneration.from_pretrained(tmp_path / "third" / "base")
    third = load_captioner(str(tmp_path / "third"))
    alone = BlipCaptioner(plain, third.tokenizer, third.image_spec)
    alone.model = PeftModel.from_pretrained(plain, tmp_path / "third" / "model")
    torch.testing.assert_close(_logits(alone), expected, rtol=1e-5, atol=1e-5)


def test_a_copied_run_stays_on_its_own_base(tmp_path: Path, cli: Cli, photos: Path, trained: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    assert cli("train", photos, run, "--model", trained, WORDS).code == 0
    shutil.copytree(run, copy)
    expected = _logits(load_captioner(str(copy)))
    assert cli("train", photos, run, "--model", trained, WORDS, "--overwrite --method full").code == 0
    torch.testing.assert_close(_logits(load_captioner(str(copy))), expected)
    assert base_of(str(copy / "model")) == str(copy / "base")


def test_a_run_on_its_own_base_takes_no_other_model(
    tmp_path: Path, cli: Cli, photos: Path, trained: Path, blip: Path
) -> None:
    assert cli("train", photos, tmp_path / "run", "--model", trained, WORDS).code == 0
    result = cli("train", photos, tmp_path / "run", "--model", blip, WORDS, "--force")
    assert result.code == 2
    assert "made of another model (model.model was" in result.last_line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--continue-adapter --rank 8", "rank: found 8, but the adapter of {adapter} has 16; leave it out"),
        ("--continue-adapter --lora-parts vision", "lora_parts: found ('vision',), but the adapter"),
        ("--continue-adapter --lora-layers attention", "lora_layers is for a new adapter, but continue_adapter is set"),
        ("--continue-adapter --method full", "continue_adapter is for method lora, but the method is full"),
    ],
)
def test_what_an_adapter_can_not_become_is_refused(
    words: str, message: str, tmp_path: Path, cli: Cli, photos: Path, trained: Path
) -> None:
    result = cli("train", photos, tmp_path / "run", "--model", trained, WORDS, words)
    assert result.code == 2
    assert message.format(adapter=trained) in result.last_line


def test_only_adapters_go_on_and_have_a_base(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    result = cli("train", photos, tmp_path / "run", "--model", blip, WORDS, "--continue-adapter")
    assert (result.code, result.last_line) == (
        2, f"error: continue_adapter: {blip} has no adapter that could go on learning; leave it out"
    )  # fmt: skip
    result = cli("train", photos, tmp_path / "run", "--model", blip, WORDS, "--base", blip)
    assert (result.code, result.last_line) == (
        2,
        f"error: {blip}: is not an adapter, so it has no base; leave --base out",
    )


# Adapters that peft alone saved, and bases that moved.


@pytest.mark.parametrize("how", ["", "--continue-adapter", "--method full"])
def test_an_adapter_of_peft_alone_is_trained_on(how: str, tmp_path: Path, cli: Cli, photos: Path, bare: Path) -> None:
    result = cli("train", photos, tmp_path / "run", "--model", bare, WORDS, *filter(None, [how]))
    assert result.code == 0, result.err
    assert load_captioner(str(tmp_path / "run")).tokenizer("a dog")["input_ids"]


def test_tokenizer_preparation_and_prompt_come_from_the_base(
    bare: Path, cli: Cli, photos: Path, tmp_path: Path
) -> None:
    base, loaded = load_captioner(str(bare.parent / "base-of-it")), load_captioner(str(bare))
    assert loaded.image_spec == base.image_spec
    assert loaded.tokenizer.get_vocab() == base.tokenizer.get_vocab()
    extras = {"prompt": "a picture of", "decoding": {"beams": 7}}
    (bare.parent / "base-of-it" / "captrain.json").write_text(json.dumps(extras))
    loaded = load_captioner(str(bare))
    assert (loaded.prompt, loaded.decoding.beams) == ("a picture of", 7)
    result = cli("caption", bare, photos, "--output", tmp_path / "captions.jsonl", "--device cpu --beams 1")
    assert result.code == 0, result.err


def test_a_base_that_moved_is_named_and_can_be_given(tmp_path: Path, cli: Cli, photos: Path, bare: Path) -> None:
    expected = _logits(load_captioner(str(bare)))
    old, new = bare.parent / "base-of-it", tmp_path / "new place"
    old.rename(new)
    for words in (("train", photos, tmp_path / "run", "--model", bare, WORDS), ("export", bare, tmp_path / "out")):
        result = cli(*words)
        assert result.code == 2
        assert f"{bare}: is an adapter, and its base model {old} is not there; put the base back" in result.last_line
        assert "--base FOLDER" in result.last_line
    result = cli("train", photos, tmp_path / "run", "--model", bare, "--base", new, WORDS, "--continue-adapter")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(new)
    assert cli("export", bare, tmp_path / "out", "--base", new).code == 0
    torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "out"))), expected, rtol=1e-5, atol=1e-5)


def test_a_base_that_is_on_no_hub_and_one_that_is_an_adapter_are_named(bare: Path, trained: Path) -> None:
    config = json.loads((bare / "adapter_config.json").read_text())
    (bare / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "ada/blip-of-cats"}))
    with pytest.raises(
        ModelError,
        match=rf"{bare}: is an adapter, and its base model ada/blip-of-cats can't be loaded \(it is not on this",
    ) as error:
        load_captioner(str(bare))
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="is an adapter itself: export it merged, and use the export as the base"):
        load_captioner(str(bare), base=str(trained))


# What does not learn.


def test_a_part_that_is_cut_off_stops_the_run_before_its_first_step(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_image = BlipCaptioner.encode_image
    monkeypatch.setattr(BlipCaptioner, "encode_image", lambda self, pixels: encode_image(self, pixels).detach())
    result = cli("train", photos, tmp_path / "run", "--model", blip, "--method full", WORDS)
    assert result.code == 2
    assert "no gradient reaches the vision part (" in result.last_line
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*-*"))
    assert cli("train", photos, tmp_path / "other", "--model", blip, "--method full --freeze vision", WORDS).code == 0


def test_an_adapter_on_the_hub_is_one_too(
    tmp_path: Path, cli: Cli, photos: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it lies in the hub's cache, without a network."""
    place = tmp_path / "hub" / "models--ada--cats"
    shutil.copytree(bare, place / "snapshots" / "0123")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.testing.assert_close(_logits(load_captioner("ada/cats")), _logits(load_captioner(str(bare))))
    for how in ("--method full", "--continue-adapter"):
        result = cli("train", photos, tmp_path / how.strip("-"), "--model ada/cats", WORDS, how)
        assert result.code == 0, result.err
