"""What an import of a LAVIS file has found so far: a recipe, and notes on what has no counterpart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from captrain.errors import nearest
from captrain.settings.load import leaves


@dataclass(frozen=True, slots=True)
class Note:
    """A key of the file that has no counterpart, or another value here, and why."""

    key: str
    reason: str


@dataclass(slots=True)
class Imported:
    """A recipe's sections, and what to know about them."""

    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    evaluates: bool = False
    """Whether the file is for an evaluation alone."""

    def set(self, leaf: str, value: Any) -> None:
        """Write one setting into its section."""
        self.recipe.setdefault(leaves()[leaf], {})[leaf] = value

    def get(self, leaf: str) -> Any:
        """A setting that was written, or None."""
        return self.recipe.get(leaves()[leaf], {}).get(leaf)

    def note(self, key: str, reason: str) -> None:
        """Say that a key has no counterpart, or a changed value."""
        self.notes.append(Note(key, reason))


def hint(name: str, known: Any) -> str:
    """A nearest name inside of a sentence."""
    near = nearest(name, known)
    return f" ({near.strip()})" if near else ""
