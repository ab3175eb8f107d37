"""Kinds of arguments and flags that several commands have."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
"""Off unless given; there is no `--no-...`, and help shows no default."""
AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]
AboveZero = Annotated[float, Parameter(validator=Number(gt=0))]
Merge = Annotated[bool, Parameter(name="--merge", negative="--keep-adapter")]
