"""What all sections of the settings share."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, Field

Part = Literal["vision", "bridge", "language"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after creation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


def panel(title: str, place: float) -> Parameter:
    """Where the help of commands lists a setting's flag: in a box of its own, among the others by `place`."""
    return Parameter(group=Group(title, sort_key=place))
