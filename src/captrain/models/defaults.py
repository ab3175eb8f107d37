"""What settings come to where they leave a choice to the model's family or the checkpoint. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captrain.errors import CaptrainError
from captrain.models.checkpoint.located import EXTRAS
from captrain.models.zoo import CHECKPOINTS, FAMILY_DEFAULTS, resolve_name
from captrain.settings.schema import ModelSettings
from captrain.settings.schema.conflicts import frozen_of, method_of

FAMILY_BY_TYPE = {
    "blip": "blip",
    "blip-2": "blip-2",
    "captrain_prefix": "prefix",
    "git": "git",
    "vision-encoder-decoder": "encoder-decoder",
}
"""For each `model_type` of a config.json the family, as `captrain.models.checkpoint.folder` loads it."""

FAMILY_BY_WORD = {"blip2": "blip-2", "blip-2": "blip-2", "blip": "blip", "git": "git"}
"""What a hub id says of its family, in the order in which it is looked at."""

LARGEST_CONFIG = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Family:
    """A family, and how it is known."""

    name: str
    known_by: str


def family_of(model: ModelSettings) -> Family:
    """The family that settings are about: by what they join, by the checkpoint's config, by a published name, or guessed.

    >>> family_of(ModelSettings(model="git-base-coco"))
    Family(name='git', known_by='the published checkpoint git-base-coco')
    >>> family_of(ModelSettings(model="ada/my-blip2-cats")).name
    'blip-2'
    """
    if model.encoder is not None:
        return Family("prefix" if model.join == "prefix" else "encoder-decoder", f"join: {model.join}")
    folder = _folder(model.model)
    kind = folder and (_read(folder / EXTRAS).get("family") or _type_of(folder))
    if isinstance(kind, str) and kind in FAMILY_DEFAULTS:
        return Family(kind, f"the files in {folder}")
    hub_id = resolve_name(model.model)
    for checkpoint in CHECKPOINTS:
        if checkpoint.hub_id == hub_id:
            return Family(checkpoint.family, f"the published checkpoint {checkpoint.name}")
    name = hub_id.rsplit("/", 1)[-1].lower()
    guess = next((family for word, family in FAMILY_BY_WORD.items() if word in name), "encoder-decoder")
    return Family(guess, f"taken for it by the name {hub_id!r}, its config.json decides")


def learning_rate_of(family: str, model: ModelSettings) -> float:
    """The family's peak learning rate for the method; a decoder from scratch has one of its own.

    >>> learning_rate_of("blip", ModelSettings()), learning_rate_of("encoder-decoder", ModelSettings(encoder="vit"))
    (0.0005, 0.001)
    """
    rates, method = FAMILY_DEFAULTS[family].learning_rates, method_of(model)
    kind = "new" if model.encoder is not None and model.decoder is None else method
    return rates.get(kind, rates[method])


def default_values(family: str, model: ModelSettings) -> dict[str, Any]:
    """Settings by leaf name, as far as they are known before anything is loaded.

    >>> default_values("blip", ModelSettings())["label_smoothing"]
    0.1
    """
    own = FAMILY_DEFAULTS[family]
    folder = _folder(model.encoder or model.model)
    values: dict[str, Any] = {
        "method": method_of(model),
        "freeze": list(frozen_of(model)) if method_of(model) == "full" else [],
        "image_vectors": "pooled" if family == "prefix" else "all",
        "learning_rate": learning_rate_of(family, model),
        "label_smoothing": own.label_smoothing,
        "prompt": "" if model.encoder is not None else own.prompt,
    }
    if folder is not None:
        extras = _read(folder / EXTRAS)
        return values | ({"prompt": extras["prompt"]} if extras.get("prompt") else {}) | _picture(folder, extras)
    hub_id = resolve_name(model.encoder or model.model)
    known = next((found.image_size for found in CHECKPOINTS if found.hub_id == hub_id), None)
    return values | ({} if known is None else {"image_size": known})


def _picture(folder: Path, extras: dict[str, Any]) -> dict[str, Any]:
    """How a checkpoint's folder says that pictures are prepared; nothing where it does not say."""
    from captrain.models.checkpoint.image_preparation import read_preparation

    spec = extras.get("image_spec")
    if isinstance(spec, dict) and {"height", "resize"} <= set(spec):
        return {"image_size": spec["height"], "resize": spec["resize"], "decode": spec.get("decode", "exact")}
    try:
        found = read_preparation(str(folder))
    except (CaptrainError, OSError, ValueError):
        return {}
    return {"image_size": found.height, "resize": found.resize, "decode": found.decode}


def _folder(name: str) -> Path | None:
    """The folder of a model, or of the model in a run; None where there is none."""
    path = Path(name)
    inner = path / "model"
    if inner.is_dir() and not (path / "config.json").is_file():
        return inner
    return path if path.is_dir() else None


def _type_of(folder: Path) -> str | None:
    """The family by `config.json`."""
    return FAMILY_BY_TYPE.get(str(_read(folder / "config.json").get("model_type")))


def _read(path: Path) -> dict[str, Any]:
    """A small JSON object; an empty one where it is missing or is none."""
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
