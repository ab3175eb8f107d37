"""What all sections of the settings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PartName = Literal["vision", "bridge", "language"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after creation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """The box in which the help of commands lists a setting's flag; boxes are sorted by `place`.

    It is a mark beside a setting's type. The command line reads it; nothing here needs the library that parses flags.
    """

    title: str
    place: float


@dataclass(frozen=True, slots=True)
class RecipeOnly:
    """Marks a setting that recipes and Python calls have, and the command line has not."""


@dataclass(frozen=True, slots=True)
class FormerFlag:
    """The flag that a setting had before; it still works."""

    name: str
