"""Settings given as keyword arguments: checked as flags are, with the same texts, and sorted into the schema's sections."""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from captrain.errors import SettingsError, nearest
from captrain.settings.load import first_problem, load_recipe, resolve
from captrain.settings.schema import (
    ComputingSettings,
    DataSettings,
    DistributedSettings,
    EvaluationSettings,
    GenerationSettings,
    ModelSettings,
    ReadingSettings,
    Section,
    Settings,
    TrainingSettings,
)

Place = str | os.PathLike[str]
"""A path, URL or hub id."""

TRAINING: dict[str, type[Section]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "training": TrainingSettings,
    "generation": GenerationSettings,
    "evaluation": EvaluationSettings,
    "distributed": DistributedSettings,
}
CAPTIONING: dict[str, type[Section]] = {
    "reading": ReadingSettings,
    "computing": ComputingSettings,
    "generation": GenerationSettings,
}
READING: dict[str, type[Section]] = {"reading": ReadingSettings}

CALLS = {
    "captrain.train": "captrain.api.training:train",
    "captrain.describe": "captrain.api.training:describe",
    "captrain.caption": "captrain.api.captioning:caption",
    "captrain.evaluate": "captrain.api.scoring:evaluate",
    "captrain.encode": "captrain.api.features:encode",
    "captrain.score": "captrain.api.scoring:score",
    "captrain.compare": "captrain.api.scoring:compare",
    "captrain.check": "captrain.api.data_check:check",
    "captrain.read": "captrain.api.data:read",
    "captrain.convert": "captrain.api.data_sets:convert",
    "captrain.compile": "captrain.api.data_sets:compile",
    "captrain.preview": "captrain.api.data_sets:preview",
    "captrain.estimate": "captrain.api.estimating:estimate",
    "captrain.show_settings": "captrain.api.recipes:show_settings",
}
"""Every function that takes settings as keyword arguments, and where it is."""

LIKE_OTHERS = ("captrain.describe", "captrain.compare", "captrain.show_settings")
"""Those that take the settings of another one."""

Sorted = dict[str, dict[str, Any]]


def sort_settings(call: str, given: Mapping[str, Any], sections: Mapping[str, type[Section]]) -> Sorted:
    """Keyword arguments of a call by section, each as its setting has it; only what was given.

    Raises `SettingsError` for a name that the call does not have, with the nearest that it has, and for the first value
    that its setting does not take.

    >>> sort_settings("captrain.train", {"rank": 4, "validation_split": "dev"}, TRAINING)["data"]
    {'validation_split': ('dev',)}
    >>> try:
    ...     sort_settings("captrain.train", {"rnak": 4}, TRAINING)
    ... except SettingsError as error:
    ...     print(error)
    unknown setting 'rnak' of captrain.train. Did you mean 'rank'? See: help(captrain.train)
    """
    for name in given:
        if not any(name in section.model_fields for section in sections.values()):
            raise SettingsError(_unknown(name, call))
    return {key: _checked(section, given) for key, section in sections.items()}


def settings_from(recipe: Place | None, given: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings of a recipe file and of keyword arguments or flags: these before the recipe, the recipe before the defaults."""
    return (
        resolve(None, given)
        if recipe is None
        else resolve(load_recipe(place(recipe)), given, f"recipe {place(recipe)}")
    )


def how_to_read(reading: ReadingSettings | Mapping[str, Any] | None) -> dict[str, Any]:
    """What settings or flags say about reading a data set, as keyword arguments `format` and `options`."""
    from captrain.data.read_options import ReadOptions

    said = reading if isinstance(reading, ReadingSettings) else ReadingSettings(**(reading or {}))
    return {"format": said.format, "options": ReadOptions.of(said)}


def place(name: Place) -> str:
    """A path, URL or hub id as text.

    >>> place(Path("photos"))
    'photos'
    """
    return os.fspath(name)


def place_or_none(name: Place | None) -> Path | None:
    """A path, or none."""
    return None if name is None else Path(name)


def _checked(section: type[Section], given: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in given.items() if name in section.model_fields}
    try:
        return section.model_validate(values).model_dump(exclude_unset=True)
    except ValidationError as error:
        where, complaint = first_problem(error)
        raise SettingsError(f"{where[-1]}: {complaint}" if where else complaint) from None


def _plain(value: Any) -> Any:
    """A value without paths, which are text in a recipe."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, Mapping) else _plain_items(value)


def _plain_items(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _unknown(name: str, call: str) -> str:
    """The hint for a name that a call does not have: another call's, or a misspelt one."""
    known = {other: _names_of(where) for other, where in CALLS.items()}
    owners = [other for other, names in known.items() if name in names and other not in LIKE_OTHERS]
    if owners:
        hint = f" It belongs to: {', '.join(owners)}."
    else:
        hint = nearest(name, [*known[call], *(each for names in known.values() for each in names)])
    return f"unknown setting '{name}' of {call}.{hint} See: help({call})"


def _names_of(where: str) -> list[str]:
    """The keyword arguments of a function, and of the settings that it takes."""
    module, name = where.split(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    names = [each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]
    settings = re.fullmatch(r"Unpack\[(\w+)\]", function.__annotations__.get("settings", ""))
    return names + list(typing.get_type_hints(getattr(import_module(module), settings[1])) if settings else [])
