"""The run folder as processes see it that write nothing into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captrain.training.run_folder import RunFolder


class Onlooker(RunFolder):
    """A run folder that another process of the group keeps. What reads works; what writes does nothing."""

    def claim(self, *args: Any, **kwargs: Any) -> list[str]:
        """Whose it is, the first process has found out."""
        return []

    def write_settings(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def rewind(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def append(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: it is there when this is asked for."""

    def copy_base(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: it is there when this is asked for."""

    def write_rejects(self, *args: Any, **kwargs: Any) -> Path | None:
        """Nothing."""
        return None

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
