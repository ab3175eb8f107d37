"""Turns a recipe, the recipes that it extends, and flags into checked settings.

Unknown names are refused with the nearest known one. Recipes are read safely, wherever they come from: small, UTF-8, plain
values only, no key twice. Whatever is wrong becomes one line.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from captrain.disk.reading import open_file
from captrain.errors import SettingsError, nearest, nearest_path
from captrain.limits import LARGEST_YAML
from captrain.settings.schema import Section, Settings, Source
from captrain.settings.schema.data import OLD_NAMES, renamed
from captrain.yaml_text import load_yaml

Nested = Mapping[str, Mapping[str, Any]]
Model = TypeVar("Model", bound=BaseModel)

EXTENDS = "extends"  # the one key of a recipe that is no section: the recipe that it builds on
LONGEST_CHAIN = 10  # recipes of which each builds on the next
LONGEST_VALUE = 100  # characters of a wrong value that an error repeats

EXPECTED = {
    "literal_error": "{expected}",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (YAML takes words such as no, 5 and 1.0 for text only in quotes)",
    "tuple_type": "a list such as [a, b]",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
"""What pydantic finds wrong, as what was expected instead."""
PATTERNS = {
    "devices": "all, numbers such as 0,1, or cpu:2",
    "checkpoint_prefix": "letters, digits, dots, hyphens and underscores that begin with a letter or digit",
}
"""What settings that follow a pattern look like."""


@dataclass(frozen=True, slots=True)
class RecipeLayer:
    """What one recipe file says by itself."""

    path: Path
    sections: dict[str, dict[str, Any]]


def load_recipe(path: str | Path) -> dict[str, dict[str, Any]]:
    """The sections of a YAML recipe, with those that it builds on, as plain dictionaries; names are checked, values not all.

    Raises `SettingsError` as `recipe_layers` does.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in reversed(recipe_layers(path)):
        for name, values in layer.sections.items():
            merged.setdefault(name, {}).update(values)
    return merged


def recipe_layers(path: str | Path) -> list[RecipeLayer]:
    """A recipe and those that it builds on: `extends: other.yaml`, relative to the file that says so. The nearest comes first.

    Raises `SettingsError` when a file is missing, is not YAML, names an unknown section or key, builds on itself in the end or
    on more than nine others, and when a value of a recipe below the first is wrong.
    """
    layers: list[RecipeLayer] = []
    seen: list[Path] = []
    following: Path | None = Path(path)
    where = f"recipe {path}"
    while following is not None:
        layer, base = _load_layer(following, where)
        if layers:
            _check_values(layer, where)
        layers.append(layer)
        seen.append(following.resolve())
        following = None if base is None else following.parent / base
        if following is not None:
            _check_chain(following, seen, f"{where}: {EXTENDS}: {base}")
            where = f"recipe {following} (which {layer.path} extends)"
    return layers


def resolve(recipe: Nested | None = None, flags: Nested | None = None, where: str = "settings") -> Settings:
    """Settings from a recipe and flags; a flag wins over the recipe, the recipe over the defaults.

    `where` is what an error names as the place of a wrong value ("recipe photos.yaml").

    >>> resolve({"model": {"rank": 8}}, {"model": {"rank": 4}}).model.rank
    4
    """
    merged: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    for layer in (recipe or {}, flags or {}):
        for name, values in layer.items():
            _check_section(name, values, where)
            merged[name].update(renamed(values or {}) if name == "data" else values or {})
    return validate(Settings, merged, where)


def validate(schema: type[Model], values: Mapping[str, Any], where: str = "settings") -> Model:
    """Check values against a schema; the first thing wrong becomes one line."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        place, complaint = first_problem(error)
        raise SettingsError(f"{where}: {'.'.join(place)}: {complaint}" if place else f"{where}: {complaint}") from None


def check_settings(schema: type[Model], **values: Any) -> None:
    """Raise `SettingsError` for the first of the values that the setting of its name does not take.

    For what Python calls give without settings: the same rules hold as for flags and recipes.

    >>> check_settings(Source, path="photos", ratio=2.0)
    """
    validate(schema, values)


def first_problem(error: ValidationError) -> tuple[list[str], str]:
    """The first thing that pydantic found wrong: where it is, and what was found and expected there.

    >>> try:
    ...     Settings.model_validate({"model": {"method": "ful"}})
    ... except ValidationError as error:
    ...     first_problem(error)
    (['model', 'method'], "found 'ful', expected 'lora' or 'full'. Did you mean 'full'?")
    """
    problems = error.errors(include_url=False)
    first, place = problems[0], _place(problems[0]["loc"])
    if first["type"] == "extra_forbidden":
        return place, f"unknown name.{nearest(place[-1], leaves())}"
    if first["type"] not in (*EXPECTED, "string_pattern_mismatch"):
        return place, first["msg"].removeprefix("Value error, ")
    same_place = [problem for problem in problems if _place(problem["loc"]) == place]
    expected = " or ".join(dict.fromkeys(_expected(problem) for problem in same_place))
    found = first["input"]
    hint = nearest(found, re.findall(r"'([^']+)'", expected)) if isinstance(found, str) else ""
    return place, f"found {reprlib.repr(found)[:LONGEST_VALUE]}, expected {expected}{'.' if hint else ''}{hint}"


def sections() -> dict[str, type[Section]]:
    """Section names and their models, in the order of the schema."""
    return {name: field.annotation for name, field in Settings.model_fields.items()}  # type: ignore[misc]


def leaves() -> dict[str, str]:
    """Every setting's name with the section it belongs to.

    >>> leaves()["rank"]
    'model'
    """
    return {leaf: name for name, section in sections().items() for leaf in section.model_fields}


def _place(steps: tuple[int | str, ...]) -> list[str]:
    """Section and leaf, or the leaf alone, without what pydantic adds for the members of unions and lists.

    >>> _place(("data", "captions_per_image", "constrained-int"))
    ['data', 'captions_per_image']
    """
    return [str(step) for step in steps[: 2 if steps and steps[0] in sections() else 1]]


def _expected(problem: Mapping[str, Any]) -> str:
    """What one complaint of pydantic expects."""
    if problem["type"] == "string_pattern_mismatch":
        return PATTERNS.get(str(problem["loc"][-1]), f"text that matches {problem['ctx']['pattern']}")
    return EXPECTED.get(problem["type"], problem["msg"]).format(**problem.get("ctx", {}))


def _load_layer(path: Path, where: str) -> tuple[RecipeLayer, str | None]:
    """One recipe file, and the name of the one that it builds on."""
    content = read_yaml(path, where)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: found a {type(content).__name__}, expected sections: {', '.join(sections())}")
    base = _base_of(content, where)
    if isinstance(content.get("data"), list):  # several data sets, with nothing else to say about them
        content["data"] = {"sources": content["data"]}
    for name, section in content.items():
        _check_section(str(name), section, where)
    found = {str(name): dict(section or {}) for name, section in content.items()}
    return RecipeLayer(path, found | ({"data": renamed(found["data"])} if "data" in found else {})), base


def _base_of(content: dict[Any, Any], where: str) -> str | None:
    """What `extends` names, taken out of a recipe's content."""
    if EXTENDS not in content:
        return None
    base = content.pop(EXTENDS)
    if not isinstance(base, str) or not base.strip() or "\0" in base:
        raise SettingsError(
            f"{where}: {EXTENDS}: found {reprlib.repr(base)}, expected the path of one recipe such as base.yaml"
        )
    return base


def _check_chain(path: Path, seen: list[Path], where: str) -> None:
    """Refuse what would not end, or is no plain file."""
    if path.resolve() in seen:
        raise SettingsError(f"{where} builds on this recipe itself; expected recipes that come to an end")
    if len(seen) == LONGEST_CHAIN:
        raise SettingsError(f"{where} is one recipe more than the {LONGEST_CHAIN} that may build on each other")
    if os.path.exists(path) and not os.path.isfile(path):  # a name may be too long for the system to look at
        raise SettingsError(f"{where} is no file; expected the path of one recipe such as base.yaml")


def _check_values(layer: RecipeLayer, where: str) -> None:
    """Refuse a wrong value by the name of the file that has it; what contradicts itself can be put right above it."""
    try:
        Settings.model_validate(layer.sections)
    except ValidationError as error:
        place, complaint = first_problem(error)
        if len(place) > 1:
            raise SettingsError(f"{where}: {'.'.join(place)}: {complaint}") from None


def _check_section(name: str, section: Any, where: str) -> None:
    """Refuse an unknown section or key, with the nearest name and the section it belongs to."""
    known = sections()
    if name not in known:
        owner = leaves().get(name)
        hint = f" '{name}' belongs into the section '{owner}'." if owner else nearest(name, [*known, EXTENDS])
        raise SettingsError(f"{where}: unknown section '{name}'.{hint} Sections: {', '.join(known)}")
    if section is not None and not isinstance(section, Mapping):
        raise SettingsError(f"{where}: section '{name}' holds a {type(section).__name__}, expected key: value lines")
    for key in section or {}:
        if key not in known[name].model_fields and not (name == "data" and key in OLD_NAMES):
            owner = leaves().get(key)
            hint = f" '{key}' belongs into the section '{owner}'." if owner else nearest(str(key), leaves())
            raise SettingsError(f"{where}: unknown key '{key}' in section '{name}'.{hint}")
    sources = section.get("sources") if name == "data" and section else None
    for number, source in enumerate(sources if isinstance(sources, list) else [], 1):
        if isinstance(source, Mapping):
            _check_source(source, f"{where}: source {number} in section 'data'")


def _check_source(source: Mapping[Any, Any], where: str) -> None:
    """Refuse one of several data sets with an unknown key, or without its path."""
    known = list(Source.model_fields)
    for key in source:
        if key not in known:
            raise SettingsError(f"{where}: unknown key '{key}'.{nearest(str(key), known)} Keys: {', '.join(known)}")
    if "path" not in source:
        raise SettingsError(f"{where}: has no path; expected keys such as path: photos")


def read_yaml(path: Path, where: str) -> Any:
    """What a YAML file holds, as plain dictionaries, lists and values.

    `where` begins each error ("recipe photos.yaml"). Raises `SettingsError` if the file is missing, is no file, is too
    large, is not UTF-8 or not YAML, gives a key twice, or asks for Python objects.
    """
    try:
        content = _read_small(path, where)
    except FileNotFoundError:
        siblings = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise SettingsError(f"{where}: no such file.{nearest_path(path, siblings)}") from None
    except OSError as error:
        raise SettingsError(f"{where}: can't be read ({error.strerror}); expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    try:
        return load_yaml(content)
    except ValueError as error:
        raise SettingsError(f"{where}: not valid YAML: {error}") from None


def _read_small(path: Path, where: str) -> str:
    """A file's text, if it is as short as files of settings are."""
    with open_file(path) as file:
        content = file.read(LARGEST_YAML + 1)
    if len(content) > LARGEST_YAML:
        raise SettingsError(f"{where}: larger than 1 MiB, expected a short YAML file of settings")
    return content.decode("utf-8-sig")
