"""The original BLIP repository's flat files (salesforce/BLIP: `configs/caption_coco.yaml`, `nocaps.yaml`), in LAVIS's sections.

Both trained the same models by the same rules; what the old files leave to the code stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captrain.errors import SettingsError
from captrain.settings.lavis.sections import Imported, Kind, Note, Section

KEYS: dict[str, tuple[str, Kind]] = {
    "vit": ("model.vit_type", "a name"),
    "vit_grad_ckpt": ("model.vit_grad_ckpt", "true or false"),
    "vit_ckpt_layer": ("model.vit_ckpt_layer", "a whole number"),
    "image_size": ("model.image_size", "a whole number"),
    "prompt": ("model.prompt", "text"),
    "pretrained": ("model.pretrained", "text"),
    "image_root": ("datasets.coco_caption.images", "text"),
    "ann_root": ("datasets.coco_caption.ann_root", "text"),
    "coco_gt_root": ("datasets.coco_caption.coco_gt_root", "text"),
    "batch_size": ("run.batch_size_train", "a whole number"),
    "init_lr": ("run.init_lr", "a number"),
    "min_lr": ("run.min_lr", "a number"),
    "weight_decay": ("run.weight_decay", "a number"),
    "max_epoch": ("run.max_epoch", "a whole number"),
    "max_length": ("run.max_len", "a whole number"),
    "min_length": ("run.min_len", "a whole number"),
    "num_beams": ("run.num_beams", "a whole number"),
}
"""Each key's place in LAVIS's sections."""

OF_CAPTIONING = frozenset({"max_length", "min_length", "num_beams", "prompt"})
OF_TRAINING = frozenset({"init_lr", "max_epoch"})
FINISHED = ("model_base_caption_capfilt_large.pth", "model_large_caption.pth")
"""Weights that the hub's checkpoints were made of."""

OTHER_TASKS = {
    "vqa_root": "question answering",
    "queue_size": "retrieval or pretraining",
    "k_test": "retrieval",
    "batch_size_train": "another task",
}
"""A key that only files of another task have, and which."""


def is_flat(content: Mapping[Any, Any]) -> bool:
    """Whether a file is one of the flat ones: no sections, and several of their keys."""
    flat = not any(isinstance(value, Mapping) for value in content.values())
    return flat and len((set(KEYS) | set(OTHER_TASKS)) & set(content)) >= 3


def in_sections(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The same file as LAVIS would have it. Raises `SettingsError` for one of another task, or with a wrong kind of value."""
    task = next((task for key, task in OTHER_TASKS.items() if key in content), None)
    if task is not None or not OF_CAPTIONING & set(content):
        raise SettingsError(
            f"{where}: is a file of BLIP for {task or 'another task'}, expected one for captioning, with "
            f"{', '.join(sorted(OF_CAPTIONING))}"
        )
    flat = Section("", content, where)
    whole: dict[str, Any] = {"model": {}, "datasets": {"coco_caption": {}}, "run": {}}
    for key, value in content.items():
        if key not in KEYS:
            whole["run"][key] = value  # to be noted there as unknown
            continue
        place, kind = KEYS[key]
        section, *between, name = place.split(".")
        part = whole[section][between[0]] if between else whole[section]
        part[name] = flat.take(key, kind)
    _add_what_is_code(whole, training=bool(OF_TRAINING & set(content)))
    return whole


def in_its_words(done: Imported, content: Mapping[Any, Any]) -> None:
    """Notes under the keys that the file has, and none on what it does not say."""
    names = {place: key for key, (place, _) in KEYS.items()}
    found = [Note(names.get(note.key, note.key.removeprefix("run.")), note.reason) for note in done.notes]
    done.notes[:] = [note for note in found if note.key in set(map(str, content))]


def _add_what_is_code(whole: dict[str, Any], *, training: bool) -> None:
    """What BLIP's scripts do without being asked: 30 words a caption, fp32, seed 42; NoCaps with a repetition penalty."""
    model, data, run = whole["model"], whole["datasets"]["coco_caption"], whole["run"]
    if str(model.get("pretrained", "")).endswith(FINISHED):
        del model["pretrained"]
    run |= {"task": "captioning", "device": "cuda", "amp": False, "seed": 42, "num_workers": 4}
    if not training:
        run |= {"evaluate": True, "repetition_penalty": 1.1}
        return
    data["vis_processor"] = {"train": {"name": "blip_image_train"}}
    prompt = {"prompt": model["prompt"]} if model.get("prompt") else {}
    data["text_processor"] = {"train": {"name": "blip_caption", "max_words": 30, **prompt}}
