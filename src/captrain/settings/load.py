"""From a recipe and flags to checked settings; unknown names are refused with the nearest known one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from captrain.errors import SettingsError, nearest
from captrain.settings.schema import Section, Settings

Nested = Mapping[str, Mapping[str, Any]]
Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: str | Path) -> dict[str, dict[str, Any]]:
    """The sections of a YAML recipe as plain dictionaries, names checked, values not yet.

    Raises `SettingsError` when the file is missing, is not YAML, or names an unknown section or key.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [str(file) for file in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        raise SettingsError(f"recipe {path}: no such file.{nearest(str(path), siblings)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"recipe {path}: can't be read as YAML: {reason}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(f"recipe {path}: found a {type(content).__name__}, expected sections: {', '.join(sections())}")
    for name, section in content.items():
        _check_section(str(name), section, f"recipe {path}")
    return {str(name): dict(section or {}) for name, section in content.items()}


def resolve(recipe: Nested | None = None, flags: Nested | None = None) -> Settings:
    """Settings from a recipe and flags; a flag wins over the recipe, the recipe over the defaults.

    >>> resolve({"model": {"rank": 8}}, {"model": {"rank": 4}}).model.rank
    4
    """
    merged: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    for layer in (recipe or {}, flags or {}):
        for name, values in layer.items():
            merged[name].update(values)
    return validate(Settings, merged)


def validate(schema: type[Model], values: Mapping[str, Any]) -> Model:
    """Check values against a schema; the first thing wrong becomes one line."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"] if not str(step).startswith(("function", "literal", "constrained")))
        raise SettingsError(f"setting {place}: found {first['input']!r}: {first['msg']}") from None


def sections() -> dict[str, type[Section]]:
    """Section names and their models, in the order of the schema."""
    return {name: field.annotation for name, field in Settings.model_fields.items()}  # type: ignore[misc]


def leaves() -> dict[str, str]:
    """Every setting's name with the section it belongs to.

    >>> leaves()["rank"]
    'model'
    """
    return {leaf: name for name, section in sections().items() for leaf in section.model_fields}


def _check_section(name: str, section: Any, where: str) -> None:
    """Refuse an unknown section or key, with the nearest name and the section it belongs to."""
    known = sections()
    if name not in known:
        owner = leaves().get(name)
        hint = f" '{name}' belongs into the section '{owner}'." if owner else nearest(name, known)
        raise SettingsError(f"{where}: unknown section '{name}'.{hint} Sections: {', '.join(known)}")
    if section is not None and not isinstance(section, dict):
        raise SettingsError(f"{where}: section '{name}' holds a {type(section).__name__}, expected key: value lines")
    for key in section or {}:
        if key not in known[name].model_fields:
            owner = leaves().get(key)
            hint = f" '{key}' belongs into the section '{owner}'." if owner else nearest(str(key), leaves())
            raise SettingsError(f"{where}: unknown key '{key}' in section '{name}'.{hint}")
