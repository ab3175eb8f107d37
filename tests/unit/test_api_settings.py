"""The settings that editors complete are those of the schema. `python tests/unit/test_api_settings.py` writes the file again."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import types
import typing
from collections.abc import Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
from pydantic import create_model

import captrain.api.settings as written
from captrain.settings import schema
from captrain.settings.schema.base import Section

Decoding = create_model(
    "Decoding",
    __base__=Section,
    __doc__="How captions are written, but for the beams, of which an evaluation takes several numbers.",
    **{
        name: (hint, schema.GenerationSettings.model_fields[name])
        for name, hint in typing.get_type_hints(schema.GenerationSettings, include_extras=True).items()
        if name in schema.GenerationSettings.model_fields and name != "beams"
    },
)

CLASSES: dict[str, tuple[type[Section], type[Section] | None]] = {
    "SourceOptions": (schema.Source, None),
    "ReadingOptions": (schema.ReadingSettings, None),
    "DataOptions": (schema.DataSettings, schema.ReadingSettings),
    "ModelOptions": (schema.ModelSettings, None),
    "TrainingOptions": (schema.TrainingSettings, None),
    "DecodingOptions": (Decoding, None),
    "GenerationOptions": (schema.GenerationSettings, Decoding),
    "EvaluationOptions": (schema.EvaluationSettings, None),
    "DistributedOptions": (schema.DistributedSettings, None),
    "ComputingOptions": (schema.ComputingSettings, None),
}
"""Each class of `captrain.api.settings`, the section it stands for, and the section whose settings it inherits."""
OF_TRAIN = (
    "DataOptions", "ModelOptions", "TrainingOptions", "GenerationOptions", "EvaluationOptions", "DistributedOptions"
)  # fmt: skip
PLACES = {"model", "base", "encoder", "decoder", "tokenizer", "validation_data", "test_data", "path"}
"""Settings that are text in a recipe and name a place: in Python a `Path` does as well."""
LONGEST = 115
OWN_NAMES = {"metric"}
"""Settings that take a name of one's own in Python, beside those of the schema."""


def python_type(name: str, declared: Any) -> Any:
    """The type of a setting in Python, from that of the schema: what pydantic converts may be given as it comes.

    >>> python_type("freeze", tuple[str, ...] | None)
    collections.abc.Sequence[str] | None
    """
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if declared is schema.Source:
        return written.SourceOptions
    if origin is Annotated:
        return python_type(name, arguments[0])
    if origin in (Union, types.UnionType):
        return reduce(or_, (python_type(name, argument) for argument in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return Sequence[python_type(name, arguments[0])]
    if origin is tuple:
        return tuple[tuple(python_type(name, argument) for argument in arguments)]
    if declared is Path or (declared is str and name in PLACES):
        return str | Path
    if name in OWN_NAMES:
        return declared | str
    return declared


def settings_of(section: type[Section], inherited: type[Section] | None) -> dict[str, Any]:
    """By name, the settings that a section has and the one it inherits from has not: each with its type in Python."""
    names = [name for name in section.model_fields if inherited is None or name not in inherited.model_fields]
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: python_type(name, hints[name]) for name in names}


def help_of(section: type[Section], name: str) -> str:
    """The first sentence of a setting's help."""
    text = " ".join((section.model_fields[name].description or "").split())
    first = re.split(r"(?<=[^\s.][.;])\s", text, maxsplit=1)[0].rstrip(".;") + "."
    return first if len(first) <= LONGEST else f"{first[:LONGEST].rsplit(' ', 1)[0].rstrip(',')} ..."


def spelt(kind: Any) -> str:
    """A type as source text."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " | ".join(map(spelt, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None:
        return f"{origin.__name__ if origin is tuple else 'Sequence'}[{', '.join(map(spelt, arguments))}]"
    return "None" if kind is type(None) else kind.__name__


def source() -> str:
    """The file as it should be, not yet formatted."""
    lines = [
        '"""Settings as keyword arguments, for editors and type checkers. Written from `captrain.settings.schema`: do not edit.',
        "",
        "`python tests/unit/test_api_settings.py` writes this file again when the schema has changed.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Sequence",
        "from pathlib import Path",
        "from typing import Literal, TypedDict",
    ]
    names = {section: name for name, (section, _) in CLASSES.items()}
    for name, (section, inherited) in CLASSES.items():
        of = "TypedDict" if inherited is None else names[inherited]
        about = (section.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"class {name}({of}, total=False):", f'    """{about}"""', ""]
        for setting, kind in settings_of(section, inherited).items():
            lines += [f"    {setting}: {spelt(kind)}", f'    """{help_of(section, setting)}"""']
    about = '"""All settings of a training: those of a recipe, without its sections."""'
    return "\n".join([*lines, "", f"class TrainSettings({', '.join(OF_TRAIN)}, total=False):", f"    {about}", ""])


@pytest.mark.parametrize("name", CLASSES)
def test_names_and_types_are_those_of_the_schema(name: str) -> None:
    section, _ = CLASSES[name]
    assert typing.get_type_hints(getattr(written, name)) == settings_of(section, None), AGAIN


@pytest.mark.parametrize("name", CLASSES)
def test_help_is_that_of_the_schema(name: str) -> None:
    section, inherited = CLASSES[name]
    [tree] = ast.parse(inspect.getsource(getattr(written, name))).body
    assert isinstance(tree, ast.ClassDef)
    texts = [
        node.value.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    assert texts[1:] == [help_of(section, setting) for setting in settings_of(section, inherited)], AGAIN


def test_a_training_takes_every_setting() -> None:
    every = [name for field in schema.Settings.model_fields.values() for name in field.annotation.model_fields]  # type: ignore[union-attr]
    assert sorted(typing.get_type_hints(written.TrainSettings)) == sorted(every)
    assert not written.TrainSettings.__required_keys__


AGAIN = f"run: python {Path(__file__).name} (in tests/unit), which writes captrain/api/settings.py again"

if __name__ == "__main__":
    target = Path(written.__file__)
    target.write_text(source(), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", target], check=True)
