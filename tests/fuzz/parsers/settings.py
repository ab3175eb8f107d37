"""Recipes, and the files of LAVIS and BLIP that become recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from captrain.settings.lavis.convert import import_lavis
from captrain.settings.load import load_recipe, resolve
from fuzz.inputs import Parser

RECIPES = Path(__file__).parents[3] / "recipes"

BASE = "model: {model: blip-base, method: lora, rank: 8}\ntraining: {epochs: 2, learning_rate: 1.0e-4}\n"
RECIPE = """extends: base.yaml
model:
  rank: 16
data:
  sources:
  - {path: photos, ratio: 0.5, train_split: [train]}
  - {path: more, format: csv, ratio: 1}
  crop_scale: [0.5, 1.0]
training:
  batch_size: 8
  seed: 3
evaluation: {metric: cider}
generation: {beams: 3, sample: true, top_p: 0.5}
"""
LAVIS = """model:
  arch: blip_caption
  model_type: base_coco
  load_finetuned: False
  prompt: "a picture of "
datasets:
  coco_caption:
    vis_processor:
      train: {name: "blip_image_train", image_size: 384}
      eval: {name: "blip_image_eval", image_size: 384}
    text_processor:
      train: {name: "blip_caption", prompt: "a picture of ", max_words: 50}
      eval: {name: "blip_caption"}
run:
  task: captioning
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 1e-5
  min_lr: 0
  weight_decay: 0.05
  max_epoch: 5
  batch_size_train: 32
  batch_size_eval: 64
  num_workers: 4
  max_len: 20
  min_len: 5
  num_beams: 3
  seed: 42
  train_splits: ["train"]
  valid_splits: ["val"]
  test_splits: ["test"]
  device: "cuda"
"""
FLAT = """image_root: '/export/coco/images/'
ann_root: 'annotation'
coco_gt_root: 'annotation/coco_gt'
pretrained: 'https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_base_capfilt_large.pth'
vit: 'base'
vit_grad_ckpt: False
vit_ckpt_layer: 0
batch_size: 32
init_lr: 1e-5
image_size: 384
max_length: 20
min_length: 5
num_beams: 3
prompt: 'a picture of '
weight_decay: 0.05
min_lr: 0
max_epoch: 5
"""


def _files(**texts: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    return write


def _shipped(folder: Path) -> None:
    for path in sorted(RECIPES.glob("*.yaml"))[:1]:
        (folder / "recipe.yaml").write_bytes(path.read_bytes())


def _recipe(folder: Path) -> None:
    resolve(load_recipe(folder / "recipe.yaml"), where="recipe")


def _lavis(folder: Path) -> None:
    from captrain.api.recipes import recipe_text
    from captrain.progress import printable

    done = import_lavis(folder / "lavis.yaml")
    notes = [(printable(note.key), printable(note.reason)) for note in done.notes]
    text = recipe_text(folder / "lavis.yaml", "captrain", done.recipe, notes)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    resolve(load_recipe(folder / "recipe.yaml"), where="imported")  # what is written can be read


PARSERS = (
    Parser("settings recipe", _recipe, {"extends": _files(recipe=RECIPE, base=BASE), "shipped": _shipped}, quick=80),
    Parser("settings lavis", _lavis, {"lavis": _files(lavis=LAVIS), "blip": _files(lavis=FLAT)}, quick=80, writes=True),
)
