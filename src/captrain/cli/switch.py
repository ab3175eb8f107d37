"""Flags that are given or not."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
"""Off unless given; there is no `--no-...`, and help shows no default."""
