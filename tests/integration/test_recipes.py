"""Every shipped recipe through a dry run of its own command, with tiny checkpoints of the true kinds in place of the hub's."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from run_tools import Cli
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    MobileNetV1Config,
    MobileNetV1Model,
)

from captrain.data.images import ImageSpec
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.settings.load import load_recipe, resolve
from captrain.testing import tiny_blip, tiny_encoder_decoder, tiny_photos, tiny_text_decoder

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
HALF = (0.5, 0.5, 0.5)
EXPECTED = {
    "blip-coco-base": {"learning_rate": 1e-5, "weight_decay": 0.05, "epochs": 5, "crop_scale": (0.5, 1.0), "beams": 3},
    "blip-coco-large": {"learning_rate": 2e-6, "weight_decay": 0.05, "epochs": 5, "prompt": "a picture of"},
    "blip-lora-cc3m": {"rank": 8, "alpha": 32, "learning_rate": 1e-5, "batch_size": 32, "epochs": 100},
    "blip-lora-folder": {"rank": 16, "alpha": 32, "dropout": 0.05, "learning_rate": 1e-3, "weight_decay": 1e-4},
    "clipcap-coco-mlp": {"mapper": "mlp", "prefix_length": 10, "learning_rate": 2e-5, "batch_size": 8, "beams": 5},
    "clipcap-coco-transformer": {"mapper": "transformer", "prefix_length": 40, "mapper_layers": 8, "join": "prefix"},
    "clipcap-laion": {"max_tokens": 128, "batch_size": 64, "freeze": ("vision", "language")},
    "clip-text-decoder-coco": {"image_vectors": "pooled", "captions_per_image": "one", "accumulate": 4, "epochs": 10},
    "vit-gpt2-lora-cc3m": {"rank": 8, "batch_size": 16, "schedule": "linear", "metric": "validation_loss"},
}
"""What the documents of the systems that recipes follow say, by leaf name."""


def tiny_clip(folder: Path) -> Path:
    """A CLIP of two small towers."""
    torch.manual_seed(0)
    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=16)
    text = CLIPTextConfig(**small, vocab_size=64, projection_dim=16)
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(folder)
    write_preparation(folder, ImageSpec(32, 32, HALF, HALF, resize="crop"), "CLIPImageProcessor")
    return folder


def tiny_mobilenet(folder: Path) -> Path:
    """A quarter as wide as the narrowest that is published."""
    torch.manual_seed(0)
    MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.0625, image_size=192)).save_pretrained(folder)
    write_preparation(folder, ImageSpec(192, 192, HALF, HALF), "MobileNetV1ImageProcessor")
    return folder


STAND_INS: dict[str, Callable[[Path], Path]] = {
    "Salesforce/blip-image-captioning-base": tiny_blip,
    "Salesforce/blip-image-captioning-large": tiny_blip,
    "nlpconnect/vit-gpt2-image-captioning": tiny_encoder_decoder,
    "openai/clip-vit-base-patch32": tiny_clip,
    "openai/clip-vit-large-patch14": tiny_clip,
    "google/mobilenet_v1_0.75_192": tiny_mobilenet,
    "distilgpt2": tiny_text_decoder,
    "gpt2": tiny_text_decoder,
}
"""For each hub id of a recipe, what makes a tiny checkpoint of its kind; a folder of an id's name is taken before the hub."""


def commands_of(recipe: Path) -> list[list[str]]:
    """The commands in the comment on top of a recipe, word by word."""
    comment = re.match(r"(?:#.*\n)*", recipe.read_text(encoding="utf-8"))
    assert comment is not None
    return [shlex.split(line) for line in re.findall(r"^#   (captrain .*)$", comment[0], re.MULTILINE)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_command_on_top_runs_dry(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    settings = resolve(load_recipe(recipe)).model
    chosen = {settings.encoder, settings.decoder} if settings.encoder else {settings.model}
    for name in chosen - {None}:
        STAND_INS[name](tmp_path / name)
    shutil.copytree(recipe.parent, tmp_path / "recipes")
    *before, train = commands_of(recipe)
    assert all(words[:3] == ["captrain", "data", "get"] for words in before)
    assert train[:2] == ["captrain", "train"]
    assert train[-2:] == ["--recipe", f"recipes/{recipe.name}"]
    assert all(words[4:] == [train[2]] for words in before)
    tiny_photos(tmp_path / train[2], count=12)
    result = cli(*train[1:], "--dry-run --device cpu --precision fp32 --keep off")
    assert result.code == 0, result.err
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_what_show_prints_is_the_recipe(recipe: Path, cli: Cli) -> None:
    result = cli("config show --recipe", recipe)
    assert result.code == 0
    assert resolve(yaml.safe_load(result.out)) == resolve(load_recipe(recipe))


@pytest.mark.parametrize("name", EXPECTED)
def test_recipes_say_what_their_systems_say(name: str) -> None:
    settings = resolve(load_recipe(RECIPES[0].with_name(f"{name}.yaml")))
    values = {leaf: value for section in settings.model_dump().values() for leaf, value in section.items()}
    assert {leaf: values[leaf] for leaf in EXPECTED[name]} == EXPECTED[name]
