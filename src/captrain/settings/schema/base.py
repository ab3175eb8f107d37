"""What all sections of the settings share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["vision", "bridge", "language"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after creation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
