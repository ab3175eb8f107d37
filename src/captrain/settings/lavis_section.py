"""One section of a LAVIS file, its values checked as they are taken."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captrain.errors import SettingsError
from captrain.settings.lavis_keys import Kind

YAML_1_1 = {"yes": True, "no": False, "on": True, "off": False}
"""What LAVIS's reader takes for true and false beside these words; in YAML 1.2 it is text."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file, with the place that its errors name."""

    name: str
    values: Mapping[Any, Any]
    where: str

    def part(self, key: str) -> Section:
        """The section below a key; an empty one where there is none."""
        values = self.values.get(key)
        name = f"{self.name}.{key}" if self.name else key
        if values is not None and not isinstance(values, Mapping):
            raise SettingsError(
                f"{self.where}: {name} holds a {type(values).__name__}, expected a section as LAVIS has it"
            )
        return Section(name, values or {}, self.where)

    def take(self, key: str, kind: Kind, default: Any = None) -> Any:
        """A value as the kind that it has to be; the default where the file is silent or says null."""
        value = self.values.get(key)
        if value is None:
            return default
        try:
            return _as_kind(value, kind)
        except (TypeError, ValueError, OverflowError):
            name = f"{self.name}.{key}" if self.name else key
            raise SettingsError(f"{self.where}: {name}: found {reprlib.repr(value)}, expected {kind}") from None


def _switch(value: Any) -> bool:
    value = YAML_1_1.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ValueError
    return value


def _as_kind(value: Any, kind: Kind) -> Any:
    """A YAML value as what it has to be; raises `ValueError` or `TypeError`."""
    if kind == "true or false":
        return _switch(value)
    if kind in ("a name", "text"):
        if isinstance(value, str):
            return value
        raise ValueError
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if not math.isfinite(number) or (kind == "a whole number" and number != int(number)):
        raise ValueError
    return int(number) if kind == "a whole number" else number
