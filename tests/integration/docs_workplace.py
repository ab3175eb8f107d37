"""What a page of the documentation names, in a folder to run it in: photos, models by hub id, recipes, files of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from stand_ins import STAND_INS
from transformers import BlipForConditionalGeneration

from captrain.models.zoo import HUB_IDS
from captrain.testing import tiny_photos

ROOT = Path(__file__).parents[2]
BLIP = "Salesforce/blip-image-captioning-base"
THEIR_MODULES = ("self.query", "self.key", "self.value", "output.dense", "self_attn.qkv", "mlp.fc1", "mlp.fc2")


def furnish(folder: Path, page: str, stock: Path) -> None:
    """Put into a new folder whatever a page's text names. Checkpoints are made once, in the folder `stock`."""
    tiny_photos(folder / "photos", count=12)
    (folder / "more-photos").mkdir()
    Image.new("RGB", (64, 48), "navy").save(folder / "more-photos" / "holiday.jpg")
    album = tiny_photos(folder / "album", count=8)
    (album / "metadata.jsonl").unlink()
    for number in range(6):
        (album / f"photo-{number:03d}.txt").write_text("a dog runs in the snow\na large dog\n")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    for hub_id in _named(page):
        if not (stock / hub_id).exists():
            STAND_INS[hub_id](stock / hub_id)
        shutil.copytree(stock / hub_id, folder / hub_id)
    if "--model loras" in page:
        _save_adapter(folder / BLIP, folder / "loras")
    if 'Path("out")' in page:
        _save_adapter_inside(folder / BLIP, folder / "out")


def _named(page: str) -> set[str]:
    """The hub ids that a page or a recipe named in it needs; BLIP base is every command's default."""
    recipes = [path for path in (ROOT / "recipes").glob("*.yaml") if path.name in page]
    text = page + "".join(path.read_text(encoding="utf-8") for path in recipes)
    if "extends:" in text:
        text += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "recipes").glob("*.yaml"))
    short = {hub_id for name, hub_id in HUB_IDS.items() if f"--model {name}" in page or f'model="{name}"' in page}
    return {BLIP} | {hub_id for hub_id in STAND_INS if hub_id in text or hub_id in short}


def _save_adapter(base: Path, folder: Path) -> None:
    """What caption-train leaves: an adapter that peft saved by itself."""
    model = BlipForConditionalGeneration.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(THEIR_MODULES)))
    adapted.peft_config["default"].base_model_name_or_path = BLIP
    adapted.save_pretrained(folder)


def _save_adapter_inside(base: Path, folder: Path) -> None:
    """What Image-Captioning-CC3M leaves: a whole model, with an adapter inside its text half that has learned something."""
    model = BlipForConditionalGeneration.from_pretrained(base)
    layers = range(model.config.text_config.num_hidden_layers)
    dense = [f"bert.encoder.layer.{layer}.{name}.dense" for layer in layers for name in ("intermediate", "output")]
    config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["query", "value", *dense])
    model.text_decoder = get_peft_model(model.text_decoder, config)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
