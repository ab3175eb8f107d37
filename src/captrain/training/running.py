"""What a checkpoint holds beside Trainer's own state, so that a run goes on as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from captrain.disk.writing import write_text
from captrain.errors import RunError
from captrain.training.run_place import OTHER_CHECKPOINT

FILE = "running.json"


@dataclass(slots=True)
class Running:
    """Where a run stands within its lines of metrics.jsonl, its epoch, and a series of steps that were left out."""

    loss: float = 0.0
    """Sum of the losses of steps since the last line."""
    line_step: int = 0
    """Step of the last line."""
    steps: int = 0
    """Steps since the last line."""
    left_out: int = 0
    """Of those, how many were left out."""
    bad_steps: int = 0
    """Steps left out so far, because their loss or gradient was no number."""
    bad_in_a_row: int = 0
    """How many of those were the latest steps."""
    epoch_is_open: bool = False
    """Whether the evaluation and the checkpoint that end an epoch are still to be done."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        write_text(folder / FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Running:
        """As a checkpoint has it. Raises `RunError` where its file is broken."""
        try:
            return TypeAdapter(cls).validate_json((folder / FILE).read_bytes(), strict=True)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{folder / FILE}: can't be read ({reason}); {OTHER_CHECKPOINT}") from None
