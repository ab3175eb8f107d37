"""From a recipe and flags to checked settings; unknown names are refused with the nearest known one."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from captrain.errors import SettingsError, nearest
from captrain.settings.schema import Section, Settings

Nested = Mapping[str, Mapping[str, Any]]
Model = TypeVar("Model", bound=BaseModel)

LARGEST_RECIPE = 1024 * 1024  # bytes; real ones have a few hundred
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


def load_recipe(path: str | Path) -> dict[str, dict[str, Any]]:
    """The sections of a YAML recipe as plain dictionaries, names checked, values not yet.

    Raises `SettingsError` when the file is missing, is not YAML, or names an unknown section or key.
    """
    content = _read_yaml(Path(path))
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(
            f"recipe {path}: found a {type(content).__name__}, expected sections: {', '.join(sections())}"
        )
    if isinstance(content.get("data"), list):  # several data sets, with nothing else to say about them
        content["data"] = {"sources": content["data"]}
    for name, section in content.items():
        _check_section(str(name), section, f"recipe {path}")
    return {str(name): dict(section or {}) for name, section in content.items()}


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
            merged[name].update(values or {})
    return validate(Settings, merged, where)


def validate(schema: type[Model], values: Mapping[str, Any], where: str = "settings") -> Model:
    """Check values against a schema; the first thing wrong becomes one line."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        place, complaint = first_problem(error)
        raise SettingsError(f"{where}: {'.'.join(place)}: {complaint}" if place else f"{where}: {complaint}") from None


def first_problem(error: ValidationError) -> tuple[list[str], str]:
    """The first thing that pydantic found wrong: where it is, and what was found and expected there.

    >>> try:
    ...     Settings.model_validate({"evaluation": {"metric": "cidr"}})
    ... except ValidationError as error:
    ...     first_problem(error)
    (['evaluation', 'metric'], "found 'cidr', expected 'cider', 'bleu_4' or 'validation_loss'. Did you mean 'cider'?")
    """
    problems = error.errors(include_url=False)
    first, place = problems[0], _place(problems[0]["loc"])
    if first["type"] == "extra_forbidden":
        return place, f"unknown name.{nearest(place[-1], leaves())}"
    if first["type"] not in EXPECTED:
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
    return EXPECTED.get(problem["type"], problem["msg"]).format(**problem.get("ctx", {}))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where PyYAML would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, after a look at the keys."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, count in Counter(key.value for key in keys).items():
            if count > 1:
                raise yaml.YAMLError(f"'{key}' is given {count} times{node.start_mark}")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Any:
    """What a recipe file holds; raises `SettingsError` where it is missing or not YAML."""
    try:
        content = _read_small(path)
    except FileNotFoundError:
        siblings = [str(file) for file in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        raise SettingsError(f"recipe {path}: no such file.{nearest(str(path), siblings)}") from None
    except OSError as error:
        raise SettingsError(f"recipe {path}: can't be read ({error.strerror}); expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"recipe {path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    try:
        return yaml.load(content, _Loader)
    except Exception as error:  # PyYAML lets through whatever a value's constructor raises: IndexError for `!!int ""`
        raise SettingsError(f"recipe {path}: not valid YAML: {' '.join(str(error).split())}") from None


def _read_small(path: Path) -> str:
    """A file's text, if it is as short as recipes are."""
    with path.open("rb") as file:
        content = file.read(LARGEST_RECIPE + 1)
    if len(content) > LARGEST_RECIPE:
        raise SettingsError(f"recipe {path}: larger than 1 MiB, expected a short YAML file of settings")
    return content.decode("utf-8-sig")


def _check_section(name: str, section: Any, where: str) -> None:
    """Refuse an unknown section or key, with the nearest name and the section it belongs to."""
    known = sections()
    if name not in known:
        owner = leaves().get(name)
        hint = f" '{name}' belongs into the section '{owner}'." if owner else nearest(name, known)
        raise SettingsError(f"{where}: unknown section '{name}'.{hint} Sections: {', '.join(known)}")
    if section is not None and not isinstance(section, Mapping):
        raise SettingsError(f"{where}: section '{name}' holds a {type(section).__name__}, expected key: value lines")
    for key in section or {}:
        if key not in known[name].model_fields:
            owner = leaves().get(key)
            hint = f" '{key}' belongs into the section '{owner}'." if owner else nearest(str(key), leaves())
            raise SettingsError(f"{where}: unknown key '{key}' in section '{name}'.{hint}")
