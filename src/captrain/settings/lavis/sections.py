"""The parts of an import from LAVIS: a section whose values are checked, the recipe and notes so far, and a table of its keys.

The table says for each key of LAVIS's captioning files whether it is a setting here, does not matter, or has no counterpart.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from captrain.errors import SettingsError, nearest
from captrain.settings.load import leaves

YAML_1_1 = {"yes": True, "no": False, "on": True, "off": False}
"""What LAVIS's reader takes for true and false beside these words; in YAML 1.2 it is text."""


@dataclass(frozen=True, slots=True)
class LavisSection:
    """One section of the file, with the place that its errors name."""

    name: str
    values: Mapping[Any, Any]
    where: str

    def part(self, key: str) -> LavisSection:
        """The section below a key; an empty one if there is none."""
        values = self.values.get(key)
        name = f"{self.name}.{key}" if self.name else key
        if values is not None and not isinstance(values, Mapping):
            raise SettingsError(
                f"{self.where}: {name} holds a {type(values).__name__}, expected a section as LAVIS has it"
            )
        return LavisSection(name, values or {}, self.where)

    def take(self, key: str, kind: Kind, default: Any = None) -> Any:
        """A value as the kind that it has to be; the default where the file is silent or says null."""
        value = self.values.get(key)
        if value is None:
            return default
        try:
            return _as_kind(value, kind)
        except (TypeError, ValueError, OverflowError):
            name = f"{self.name}.{key}" if self.name else key
            raise SettingsError(f"{self.where}: {name}: found {reprlib.repr(value)}, expected {kind}") from None


def _switch(value: Any) -> bool:
    value = YAML_1_1.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ValueError
    return value


def _as_kind(value: Any, kind: Kind) -> Any:
    """A YAML value as what it has to be; raises `ValueError` or `TypeError`."""
    if kind == "true or false":
        return _switch(value)
    if kind in ("a name", "text"):
        if isinstance(value, str):
            return value
        raise ValueError
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if not math.isfinite(number) or (kind == "a whole number" and number != int(number)):
        raise ValueError
    return int(number) if kind == "a whole number" else number


@dataclass(frozen=True, slots=True)
class ImportNote:
    """A key of the file that has no counterpart, or another value here, and why."""

    key: str
    reason: str


@dataclass(slots=True)
class Imported:
    """A recipe's sections, and what to know about them."""

    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[ImportNote] = field(default_factory=list)
    evaluates: bool = False
    """Whether the file is for an evaluation alone."""

    def set(self, leaf: str, value: Any) -> None:
        """Write one setting into its section."""
        self.recipe.setdefault(leaves()[leaf], {})[leaf] = value

    def get(self, leaf: str) -> Any:
        """A setting that was written, or None."""
        return self.recipe.get(leaves()[leaf], {}).get(leaf)

    def note(self, key: str, reason: str) -> None:
        """Say that a key has no counterpart, or a changed value."""
        self.notes.append(ImportNote(key, reason))


def hint(name: str, known: Any) -> str:
    """A nearest name inside of a sentence."""
    near = nearest(name, known)
    return f" ({near.strip()})" if near else ""


Kind = Literal["a whole number", "a number", "true or false", "a name", "text"]

CROPS: dict[str, tuple[int, int] | None] = {"blip_image_train": (2, 5), "blip2_image_train": None}
"""Processors that crop and flip, and their RandAugment."""

CAPTIONS_AN_IMAGE = {"coco_caption": 5, "flickr30k_caption": 5, "nocaps": 10}
"""How many captions an image of LAVIS's own data sets has."""

AS_IT_IS: dict[str, tuple[str, Kind]] = {
    "init_lr": ("learning_rate", "a number"),
    "weight_decay": ("weight_decay", "a number"),
    "beta2": ("beta2", "a number"),
    "max_epoch": ("epochs", "a whole number"),
    "accum_grad_iters": ("accumulate", "a whole number"),
    "grad_norm_clip": ("max_gradient_norm", "a number"),
    "num_workers": ("workers", "a whole number"),
    "seed": ("seed", "a whole number"),
    "log_freq": ("log_every", "a whole number"),
    "num_beams": ("beams", "a whole number"),
    "use_nucleus_sampling": ("sample", "true or false"),
    "top_p": ("top_p", "a number"),
    "temperature": ("temperature", "a number"),
    "length_penalty": ("length_penalty", "a number"),
    "repetition_penalty": ("repetition_penalty", "a number"),
}
"""Keys of `run` that are settings under another name."""

_LAUNCHER = (
    "how many processes there are, and how they meet, is set by the launcher (torchrun, accelerate), not by a recipe"
)
_PICKLE = "LAVIS's .pth files are pickles in its own layout, which is not read; give `model` a folder or hub id for transformers"
_WEIGHTS = "is decided by the checkpoint's own config.json"

LEFT_OUT: dict[str, str] = {
    "lr_layer_decay": "changes nothing in LAVIS, whose schedules write one rate into all groups; here `vision_layer_decay` does",
    "batch_size_eval": "validation goes in batches of the training's size; `captrain evaluate` has --batch-size",
    "output_dir": "is the second word of the command: captrain train DATA OUT",
    "resume_ckpt_path": "`captrain train ... --resume` goes on from the run folder's own last checkpoint; " + _PICKLE,
    "runner": "epochs are passes over the data here",
    "max_iters": "the length of a training is given in epochs here",
    "iters_per_inner_epoch": "the length of a training is given in epochs here",
    "save_freq": "there is a checkpoint every checkpoint_every steps and at the end of each epoch",
    "save_last": "the newest checkpoints stay, the best model has a place of its own",
    "report_metric": "scores are always computed",
    "use_dist_eval_sampler": _LAUNCHER,
    "world_size": _LAUNCHER,
    "dist_url": _LAUNCHER,
    "dist_backend": _LAUNCHER,
    "distributed": _LAUNCHER,
    "rank": _LAUNCHER,
    "gpu": _LAUNCHER,
    "pretrained": _PICKLE,
    "finetuned": _PICKLE,
    "vit_ckpt_layer": "`checkpoint_activations` is for all layers here; results are the same",
    "vit_drop_path_rate": "BLIP's encoder in transformers drops no paths",
    "vit_layer_norm_epsilon": _WEIGHTS,
    "med_config_path": _WEIGHTS,
    "mean": "is decided by the checkpoint's own preprocessor_config.json",
    "std": "is decided by the checkpoint's own preprocessor_config.json",
    "annotations": "are the first word of the command: captrain train DATA OUT; `captrain data get` fetches COCO's",
    "data_dir": "the data set is the first word of the command: captrain train DATA OUT",
    "config_path": "files that this one builds on are not read; import them by themselves",
    "ann_root": "the data set is the first word of the command; `captrain data get coco-karpathy DATA` fetches COCO's lists",
    "coco_gt_root": "references are the captions of the validation split",
    "annotation_file": "references are the captions of the data set that is evaluated",
    "img_ids": "a data set is evaluated whole, or its first pictures (--limit); keep those pictures in a table of their own",
    "inference_method": "captions are always written, not ranked",
    "val_freq": "there is a validation at the end of each epoch, or every evaluate_every steps",
    "load_pretrained": "begins with the checkpoint that `model` names",
    "vit_model": _WEIGHTS,
    "opt_model": _WEIGHTS,
    "t5_model": _WEIGHTS,
    "num_query_token": _WEIGHTS,
    "drop_path_rate": "BLIP-2's encoder in transformers drops no paths",
    "vit_precision": "one `precision` is for all parts here",
    "apply_lemmatizer": "captions stay as they are written",
}
"""Keys without counterpart in any section, and the reason."""

NO_MATTER: dict[str, tuple[Any, ...]] = {
    "lr_layer_decay": (1, 1.0),
    "runner": ("runner_base",),
    "report_metric": (True,),
    "vit_ckpt_layer": (0,),
    "vit_drop_path_rate": (0, 0.0),
    "distributed": (False,),
    "world_size": (1,),
    "inference_method": ("generate",),
    "val_freq": (1,),
    "load_pretrained": (True,),
    "vit_model": ("eva_clip_g",),
    "opt_model": ("facebook/opt-2.7b", "facebook/opt-6.7b"),
    "t5_model": ("google/flan-t5-xl", "google/flan-t5-xxl"),
    "num_query_token": (32,),
    "drop_path_rate": (0, 0.0),
    "apply_lemmatizer": (False,),
}
"""Values of those that do what captrain does anyway."""

_PROCESSOR = frozenset({"name"})

SECTIONS: dict[str, frozenset[str]] = {
    "model": frozenset(
        {"arch", "model_type", "load_finetuned", "image_size", "prompt", "vit_type", "max_txt_len", "vit_grad_ckpt"}
    )
    | {"use_grad_checkpoint", "freeze_vit"},
    "datasets": frozenset(
        {"vis_processor", "text_processor", "images", "build_info", "data_type", "sample_ratio", "batch_size"}
    ),
    "vis_processor": _PROCESSOR | {"image_size", "min_scale", "max_scale"},
    "text_processor": _PROCESSOR | {"prompt", "max_words"},
    "run": frozenset(AS_IT_IS)
    | {"task", "lr_sched", "min_lr", "warmup_lr", "warmup_steps", "lr_decay_rate"}
    | {"train_splits", "valid_splits", "test_splits"}
    | {"max_len", "min_len", "batch_size_train", "device", "amp", "evaluate"},
}
"""Keys of each section that are read."""
