"""`captrain config show` and `captrain config schema`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from captrain.cli.flags import (
    DataFlags,
    DistributedFlags,
    EvaluationFlags,
    GenerationFlags,
    ModelFlags,
    TrainingFlags,
    given,
    settings_from,
)
from captrain.cli.logs import printable
from captrain.models.defaults import default_values, family_of
from captrain.settings.load import EXTENDS, Nested, recipe_layers
from captrain.settings.schema import Settings

DECIDED_BY_FAMILY = frozenset(
    {
        "method",
        "freeze",
        "image_size",
        "resize",
        "mirror",
        "image_vectors",
        "learning_rate",
        "label_smoothing",
        "prompt",
    }
)
"""Settings whose `null` the model family or the checkpoint fills in, once it is loaded."""
UNKNOWN = "the checkpoint's own"
OWN_RATE = ("lion", "prodigy")
"""Optimizers that make another learning rate of the family's."""


def show(
    *,
    recipe: Path | None = None,
    model: ModelFlags = None,
    data: DataFlags = None,
    training: TrainingFlags = None,
    generation: GenerationFlags = None,
    evaluation: EvaluationFlags = None,
    distributed: DistributedFlags = None,
) -> int:
    """Print the settings a training would have as YAML, and behind each where it comes from. It is a recipe itself.

    What is `null` and decided by the model's family has behind it what that comes to.

    Args:
        recipe: YAML file of settings; a flag wins over it.
    """
    flags = given(
        model=model, data=data, training=training, generation=generation, evaluation=evaluation, distributed=distributed
    )
    settings = settings_from(recipe, flags)
    layers: dict[str, Nested] = {"flag": flags}
    if recipe is not None:
        layers |= {f"recipe {printable(str(layer.path))}": layer.sections for layer in recipe_layers(recipe)}
    family = family_of(settings.model)
    print(f"# family: {family.name} ({printable(family.known_by)})")
    print("\n".join(annotated_yaml(settings, layers, _decided(family.name, settings))))
    return 0


def schema() -> int:
    """Print the JSON schema of recipes, for editors."""
    described = Settings.model_json_schema()
    base = {"type": "string", "description": "Recipe that this one builds on, relative to this file."}
    described["properties"] = {EXTENDS: base, **described["properties"]}
    print(json.dumps(described, indent=2))
    return 0


def _decided(family: str, settings: Settings) -> dict[str, str]:
    """What the family and the checkpoint make of settings that are left to them, as text."""
    told = {name: inline(value) for name, value in default_values(family, settings.model).items()}
    if settings.training.optimizer in OWN_RATE:
        told["learning_rate"] = f"that of {settings.training.optimizer}"
    return told


def annotated_yaml(settings: Settings, layers: Mapping[str, Nested], decided: Mapping[str, str]) -> list[str]:
    """Lines of YAML, each with a comment that names the first of the layers that sets it, `default` or `family default`.

    `decided` holds what the family makes of settings that nothing sets.

    >>> lines = annotated_yaml(Settings(), {"flag": {"data": {"format": "jsonl"}}}, {"freeze": "[vision]"})
    >>> lines[lines.index("data:") + 1]
    '  format: null  # flag'
    """
    lines = []
    for section, values in settings.model_dump(mode="json").items():
        lines.append(f"{section}:")
        for leaf, value in values.items():
            by_family = value is None and leaf in DECIDED_BY_FAMILY
            default = f"family default: {decided.get(leaf, UNKNOWN)}" if by_family else "default"
            origin = next((name for name, layer in layers.items() if leaf in layer.get(section, {})), default)
            lines.append(f"  {leaf}: {inline(value)}  # {origin}")
    return lines


def inline(value: Any) -> str:
    """A value as YAML on one line.

    >>> inline(["vision"]), inline(0.00001), inline("a: b")
    ('[vision]', '1.0e-05', "'a: b'")
    """
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
