"""Weights & Biases. Its own environment says where to: `wandb login`, `WANDB_MODE=offline`, `WANDB_ENTITY`, ..."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from captrain.disk.folders import make_folders
from captrain.training.trackers import SampleCaption, TrackedRun

logger = logging.getLogger(__name__)

COLUMNS = ["step", "id", "caption", "references"]


class WandB:
    """Scalars over `step`, and the samples as pictures and as a table. Files are in the run's `wandb/`."""

    rewinds = False

    def __init__(self, run: TrackedRun) -> None:
        _require_key()
        make_folders(run.folder / "wandb", run.folder)
        # Without `console="off"` it puts itself between this process and its terminal.
        quiet = wandb.Settings(console="off", silent=True)
        self.run = wandb.init(
            project=run.project, name=run.name, dir=str(run.folder), config=dict(run.settings), id=run.id,
            resume="allow" if run.id else None, settings=quiet,
        )  # fmt: skip
        self.id = str(self.run.id)
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        if not self.run.offline:
            logger.info("wandb: %s", self.run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As part of the step's row in the history."""
        self._log(step, dict(values))

    def samples(self, step: int, captions: Sequence[SampleCaption]) -> None:
        """As pictures with their captions beneath, and a table of captions and references."""
        pictures = [
            wandb.Image(caption.picture, caption=caption.text) for caption in captions if caption.picture is not None
        ]
        rows = [[step, caption.id, caption.text, "\n".join(caption.references)] for caption in captions]
        table = wandb.Table(columns=COLUMNS, data=rows)
        self._log(step, {"samples/pictures": pictures, "samples/captions": table})

    def _log(self, step: int, values: dict[str, Any]) -> None:
        """Log into the row of a step, or the next row that W&B still takes: it drops rows of earlier steps.

        Rows are not numbered from 0: the offline files of several sessions become one run once they are sent, with each row once.
        """
        self.run.log({**values, "step": step}, step=max(step, self.run.step))

    def close(self, *, whole: bool) -> None:
        """Send the rest, and mark an interrupted run as such."""
        self.run.finish(exit_code=0 if whole else 1)


def _require_key() -> None:
    """Raise an error without an API key: on a terminal `wandb.init` would wait for someone to type one."""
    if os.environ.get("WANDB_MODE", "online") == "online" and sys.stdin.isatty() and not wandb.api.api_key:
        raise RuntimeError("no API key is configured; run `wandb login`, or set WANDB_MODE=offline")
