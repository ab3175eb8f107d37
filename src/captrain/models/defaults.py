"""The defaults of settings that depend on the model's family or its checkpoint. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captrain.errors import CaptrainError
from captrain.models.checkpoint.located import EXTRAS
from captrain.models.families import FAMILIES, family_named, family_of_type, joined_family
from captrain.models.zoo import CHECKPOINTS, resolve_name
from captrain.settings.schema import ModelSettings
from captrain.settings.schema.conflicts import frozen_of, method_of

LARGEST_CONFIG = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundFamily:
    """The name of a family, and how it was found out."""

    name: str
    known_by: str


def family_of(model: ModelSettings) -> FoundFamily:
    """The family of the model that settings name: by `join`, by the checkpoint's config, by a published name, or by a guess.

    >>> family_of(ModelSettings(model="git-base-coco"))
    FoundFamily(name='git', known_by='the published checkpoint git-base-coco')
    >>> family_of(ModelSettings(model="ada/my-blip2-cats")).name
    'blip-2'
    """
    if model.encoder is not None:
        return FoundFamily(joined_family(model.join).name, f"join: {model.join}")
    folder = _folder(model.model)
    kind = folder and (_read(folder / EXTRAS).get("family") or _type_of(folder))
    if isinstance(kind, str) and kind in FAMILIES:
        return FoundFamily(kind, f"the files in {folder}")
    hub_id = resolve_name(model.model)
    for checkpoint in CHECKPOINTS:
        if checkpoint.hub_id == hub_id:
            return FoundFamily(checkpoint.family, f"the published checkpoint {checkpoint.name}")
    name = hub_id.rsplit("/", 1)[-1].lower()
    words = {word: family.name for family in FAMILIES.values() for word in family.hub_words if word in name}
    guess = words[max(words, key=len)] if words else joined_family("cross-attention").name
    return FoundFamily(guess, f"guessed from the name {hub_id!r}; its config.json decides")


def learning_rate_of(family: str, model: ModelSettings) -> float:
    """The family's peak learning rate for the method; a decoder from scratch has its own.

    >>> learning_rate_of("blip", ModelSettings()), learning_rate_of("encoder-decoder", ModelSettings(encoder="vit"))
    (0.0005, 0.001)
    """
    rates, method = family_named(family).learning_rates, method_of(model)
    kind = "new" if model.encoder is not None and model.decoder is None else method
    return rates.get(kind, rates[method])


def default_values(family: str, model: ModelSettings) -> dict[str, Any]:
    """The defaults by the names of settings, as far as they are known before anything is loaded.

    >>> default_values("blip", ModelSettings())["label_smoothing"]
    0.1
    """
    own = family_named(family)
    folder = _folder(model.encoder or model.model)
    values: dict[str, Any] = {
        "method": method_of(model),
        "freeze": list(frozen_of(model)) if method_of(model) == "full" else [],
        "image_vectors": own.image_vectors,
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
    """The image preparation that a checkpoint's folder states; empty if it states none."""
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
    """The folder of a model, or of the model in a run; None if there is no such folder."""
    path = Path(name)
    inner = path / "model"
    if inner.is_dir() and not (path / "config.json").is_file():
        return inner
    return path if path.is_dir() else None


def _type_of(folder: Path) -> str | None:
    """The name of the family, by `config.json`."""
    family = family_of_type(str(_read(folder / "config.json").get("model_type")))
    return None if family is None else family.name


def _read(path: Path) -> dict[str, Any]:
    """A small JSON object; empty if the file is missing or holds something else."""
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
