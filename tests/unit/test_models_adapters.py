"""Adapters and their bases: what is merged, what is refused, and what a run keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetModel

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.adapters import base_of, check_saved_whole, has_adapter, merge_adapter
from captrain.models.build import NewDecoder, build_encoder_decoder
from captrain.models.checkpoint import folder as bundle
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.models.contract import CaptionerModel
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.what_learns import freeze
from captrain.settings.schema import Settings
from captrain.testing import clear_pictures, teach, tiny_text_decoder
from captrain.training import captioner_setup
from captrain.training.resolve import captioner_start
from captrain.training.run_folder.folder import RunFolder


@pytest.fixture
def blip(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["blip"]))


@pytest.fixture
def adapter(blip: CaptionerModel, tmp_path: Path) -> Path:
    """An adapter that learned something, in a run folder."""
    add_lora(blip, LoraOptions(2, 4, 0.0))
    teach(blip, steps=2, learning_rate=1e-2)
    save_captioner(blip, tmp_path / "first" / "model")
    return tmp_path / "first"


@torch.no_grad()
def _logits(captioner: CaptionerModel) -> Tensor:
    rows = captioner.eval().pack([[[6, 7], [8]], [[8, 9, 10]]]).to_dict()
    return captioner(**rows, pixels=torch.from_numpy(clear_pictures(2, captioner.image_spec.height))).logits


def test_a_second_adapter_and_a_base_that_learns_are_refused(adapter: Path) -> None:
    """One would be saved, and the other lost."""
    captioner = load_captioner(str(adapter))
    with pytest.raises(ModelError, match="has an adapter already"):
        add_lora(captioner, LoraOptions(4, 8, 0.0))
    with pytest.raises(ModelError, match="has an adapter already"):
        freeze(captioner, ("vision",))
    captioner.requires_grad_(True)
    with pytest.raises(ModelError, match=r"\d+ weights learn but would not be saved with the adapter, first model\."):
        check_saved_whole(captioner)
    with pytest.raises(ModelError, match="would not be saved with the adapter"):
        save_captioner(captioner, adapter / "lost")


def test_an_adapter_on_a_merged_model_needs_a_base_on_disk(adapter: Path, tmp_path: Path) -> None:
    captioner = load_captioner(str(adapter))
    merge_adapter(captioner)
    assert not has_adapter(captioner)
    save_captioner(captioner, tmp_path / "merged")
    add_lora(captioner, LoraOptions(2, 4, 0.0))
    with pytest.raises(ModelError, match="the adapter's base is not on disk; save the base first"):
        save_captioner(captioner, tmp_path / "second")


@pytest.mark.parametrize("name", ["word_embeddings", "cls.predictions.decoder"])
def test_a_weight_that_two_layers_share_is_not_merged(name: str, blip: CaptionerModel, tmp_path: Path) -> None:
    """The adapter works on one of them, and merging would change both."""
    add_lora(blip, LoraOptions(2, 4, 0.0, target_modules=(name,)))
    teach(blip, steps=2, learning_rate=1e-2)
    save_captioner(blip, tmp_path)
    loaded = load_captioner(str(tmp_path))
    torch.testing.assert_close(_logits(loaded), _logits(blip))
    with pytest.raises(ModelError, match=rf"{name} shares its weight with .*keep the adapter apart") as error:
        merge_adapter(loaded)
    assert "\n" not in str(error.value)
    torch.testing.assert_close(_logits(loaded), _logits(blip))


def test_running_statistics_beside_an_adapter_stand_still(tmp_path: Path) -> None:
    """They are not saved with it: if they moved, the loaded captioner would see other features."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    write_preparation(tmp_path / "resnet", ImageSpec(64, 64, (0.5,) * 3, (0.5,) * 3), "ViTImageProcessor")
    decoder = tiny_text_decoder(tmp_path / "gpt2")
    made = build_encoder_decoder(str(tmp_path / "resnet"), str(decoder), NewDecoder(1, 16, 2, 0.0, 100), [])
    save_captioner(made, tmp_path / "base")
    captioner = load_captioner(str(tmp_path / "base"))
    add_lora(captioner, LoraOptions(2, 4, 0.1, target_modules=("c_attn", "embedder.convolution")))
    assert captioner.vision_learns()
    optimizer = torch.optim.AdamW([weight for weight in captioner.parameters() if weight.requires_grad], 1e-2)
    rows = captioner.pack([[[6, 7]], [[8]]]).to_dict()
    for _ in range(2):
        captioner.train()
        captioner(**rows, pixels=torch.from_numpy(clear_pictures(2, 64))).loss.backward()
        optimizer.step()
    save_captioner(captioner, tmp_path / "adapter")
    torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "adapter"))), _logits(captioner))


def test_the_base_that_travels_with_a_run_comes_first(tmp_path: Path) -> None:
    for place in ("here/base", "here/model", "elsewhere/base", "models/base", "models/cats"):
        (tmp_path / place).mkdir(parents=True)

    def named(folder: str, name: Path | str) -> str:
        (tmp_path / folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{name}"}}')
        return base_of(str(tmp_path / folder))

    assert named("here/model", tmp_path / "elsewhere" / "base") == str(tmp_path / "here" / "base")
    assert named("models/cats", tmp_path / "elsewhere" / "base") == str(tmp_path / "elsewhere" / "base"), "no run"
    assert named("here/model", tmp_path / "gone") == str(tmp_path / "here" / "base")
    assert named("models/cats", "ada/blip") == str(tmp_path / "models" / "base")


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("dry", [False, True])
def test_quantised_weights_are_those_of_the_merged_model(
    continues: bool,
    dry: bool,
    adapter: Path,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Merging comes before rounding to few bits; an adapter that goes on stays beside its base, which is rounded at once."""
    bits = object()
    loads: list[tuple[str, Any]] = []
    load = bundle._load_weights

    def loading(source: str, quantize: Any) -> Any:
        loads.append((Path(source).name, quantize))
        return load(source, None)

    monkeypatch.setattr(bundle, "_load_weights", loading)
    monkeypatch.setattr(captioner_setup, "quantization", lambda *_: bits)
    model = {"model": str(adapter), "quantize": "4bit", "device": "cpu", "continue_adapter": continues}
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    start = captioner_start(Settings.model_validate({"model": model}))
    captioner = captioner_setup.first_captioner(start, [], None if dry else run)
    if continues:
        assert loads == [("blip", bits)]
    else:
        assert [kind for _, kind in loads] == [None, bits]
        assert not has_adapter(captioner)
        assert run.base.is_dir() != dry
    torch.testing.assert_close(_logits(captioner), _logits(load_captioner(str(adapter))), rtol=1e-5, atol=1e-5)


def test_a_base_that_was_named_by_its_way_up_is_found(adapter: Path, tiny_folders: dict[str, Path]) -> None:
    """`--model ../models/blip` is noted with the working folder before it."""
    config = adapter / "model" / "adapter_config.json"
    base = f"{tiny_folders['blip']}/../{tiny_folders['blip'].name}"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    assert base_of(str(adapter / "model")) == base
