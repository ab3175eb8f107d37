"""TensorBoard: event files in the run's `tensorboard/`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from captrain.disk.folders import make_folders
from captrain.training.trackers import SampleCaption, TrackedRun


class TensorBoard:
    """Scalars, and each sample as a picture and a text of one name."""

    id = None
    rewinds = True

    def __init__(self, run: TrackedRun) -> None:
        # If an earlier session got further, TensorBoard hides its steps from this one on.
        folder = make_folders(run.folder / "tensorboard", run.folder)
        unguessed = f".{secrets.token_hex(8)}"  # the rest of the file's name can be guessed
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=run.step + 1, filename_suffix=unguessed)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve for each name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def samples(self, step: int, captions: Sequence[SampleCaption]) -> None:
        """Under `samples/NUMBER`."""
        for number, caption in enumerate(captions, start=1):
            tag = f"samples/{number}"
            if caption.picture is not None:
                self.writer.add_image(tag, np.asarray(caption.picture), step, dataformats="HWC")
            self.writer.add_text(tag, as_markdown(caption), step)
        self.writer.flush()

    def close(self, *, whole: bool) -> None:
        """Write the last lines to disk."""
        self.writer.close()


def as_markdown(caption: SampleCaption) -> str:
    """The caption in bold, the references, and the picture's name; markup in them is escaped.

    >>> as_markdown(SampleCaption("1.jpg", "a dog", ["two *dogs*"], None))
    '**a dog**\\n\\n- two \\\\*dogs\\\\*\\n\\n`1.jpg`'
    """
    references = "\n".join(f"- {_plain(reference)}" for reference in caption.references)
    name = caption.id.replace("`", "'")
    return f"**{_plain(caption.text) or '(nothing)'}**\n\n{references}\n\n`{name}`"


def _plain(text: str) -> str:
    """Text on one line with markdown's special characters escaped."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-!|&" else letter for letter in " ".join(text.split()))
