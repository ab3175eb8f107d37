"""Flags made from the settings schema: each section flattened, leaf names as flags, only what was given counts as set."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Group, Parameter
from pydantic import Field

from captrain.models.checkpoint.located import set_trust
from captrain.settings.schema import (
    ComputingSettings,
    DataSettings,
    DistributedSettings,
    EvaluationSettings,
    GenerationSettings,
    ModelSettings,
    ReadingSettings,
    Section,
    TrainingSettings,
)
from captrain.settings.schema.base import FormerFlag, Panel, RecipeOnly

FORMER_FLAGS: dict[str, str] = {}
"""Former spellings of flags, which still work but are neither completed nor shown, and the present ones."""


def _mark_flags(*schemas: type[Section]) -> None:
    """Tell the library that parses flags what the marks beside settings say: box in the help, no flag at all, former name."""
    for name, field in (item for schema in schemas for item in schema.model_fields.items()):
        if any(isinstance(mark, Parameter) for mark in field.metadata):
            continue
        for mark in list(field.metadata):
            if isinstance(mark, Panel):
                field.metadata.append(Parameter(group=Group(mark.title, sort_key=mark.place)))
            elif isinstance(mark, RecipeOnly):
                field.metadata.append(Parameter(parse=False))
            elif isinstance(mark, FormerFlag):
                FORMER_FLAGS[mark.name] = f"--{name.replace('_', '-')}"


_mark_flags(ModelSettings, ReadingSettings, DataSettings, TrainingSettings)

ModelFlags = Annotated[ModelSettings | None, Parameter(name="*", group=Group("Model", sort_key=10))]
ReadingFlags = Annotated[ReadingSettings | None, Parameter(name="*", group=Group("Reading the data", sort_key=11))]
DataFlags = Annotated[DataSettings | None, Parameter(name="*", group=Group("Data", sort_key=11))]
TrainingFlags = Annotated[TrainingSettings | None, Parameter(name="*", group=Group("Training", sort_key=12))]
GenerationFlags = Annotated[GenerationSettings | None, Parameter(name="*", group=Group("Generation", sort_key=13))]
AS_SAVED = Parameter(
    name="*", show_default=False, group=Group("Generation (default: as saved with the model)", sort_key=13)
)
DecodingFlags = Annotated[GenerationSettings | None, AS_SAVED]
EvaluationFlags = Annotated[EvaluationSettings | None, Parameter(name="*", group=Group("Evaluation", sort_key=14))]
DistributedFlags = Annotated[
    DistributedSettings | None, Parameter(name="*", group=Group("Several devices", sort_key=15))
]


class SeveralDecodings(GenerationSettings):
    """Ways to write captions, to compare with one another."""

    beams: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()  # type: ignore[assignment]
    """Beams of the beam search; 1 is greedy search. Several numbers are scored and compared."""


SeveralDecodingsFlags = Annotated[SeveralDecodings | None, AS_SAVED]


class TrustSettings(Section):
    """Which of a model's files may be used. Flags only: neither a recipe nor a run can set this."""

    trust_remote_code: bool = False
    """Run the Python code that comes with a model that transformers does not know. Its files, repository and commit are
    named first; read them. Default: no such code is ever run."""
    safetensors_only: bool = False
    """Refuse weights that are pickles (.bin). Default: they are read without running any code in them, if there are no
    others."""


TrustFlags = Annotated[
    TrustSettings | None,
    Parameter(name="*", negative=(), show_default=False, group=Group("Model files", sort_key=21)),
]

ComputingFlags = Annotated[ComputingSettings | None, Parameter(name="*", group=Group("Computing", sort_key=20))]


def trust(flags: TrustSettings | None) -> None:
    """Let this command, and the processes that it starts, use only those files of models that its flags allow."""
    flags = flags or TrustSettings()
    set_trust(remote_code=flags.trust_remote_code, safetensors_only=flags.safetensors_only)


def trusted(flags: TrustSettings | None) -> dict[str, Any]:
    """What of models' files is taken, as keyword arguments of the Python API."""
    return (flags or TrustSettings()).model_dump()


def given(**sections: Section | None) -> dict[str, dict[str, Any]]:
    """By section, the settings whose flags were given.

    >>> given(model=ModelSettings(rank=4), data=None)
    {'model': {'rank': 4}, 'data': {}}
    """
    return {
        name: {} if section is None else section.model_dump(exclude_unset=True) for name, section in sections.items()
    }
