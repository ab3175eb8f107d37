"""Progress in a notebook: one output of the cell, drawn again as the work goes on. It needs no widgets, and stays when saved."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import Progress, ProgressColumn, TaskID

SECONDS_BETWEEN_DRAWINGS = 0.5
COLUMNS = 100
FORM = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace">{code}</pre>'


def in_notebook() -> bool:
    """Whether this runs in a kernel whose front end shows HTML: Jupyter, VS Code, Colab, Kaggle."""
    return "IPython" in sys.modules and Console(file=io.StringIO()).is_jupyter


class NotebookBars(Progress):
    """Bars that are part of a cell's output, below `head`."""

    def __init__(self, *columns: ProgressColumn, head: RenderableType = "") -> None:
        super().__init__(*columns, auto_refresh=False, disable=True)
        self.head = head
        self.drawn = 0.0
        self.output: Any = None

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count so many more units. What is drawn is at most half a second old while the work goes on."""
        super().advance(task_id, advance)
        if time.monotonic() - self.drawn >= SECONDS_BETWEEN_DRAWINGS:
            self.draw()

    def draw(self) -> None:
        """Show the present state."""
        from IPython.display import HTML, display

        self.drawn = time.monotonic()
        page = HTML(self.to_html())
        if self.output is None:
            self.output = display(page, display_id=True)
        else:
            self.output.update(page)

    def to_html(self) -> str:
        """Head and bars as a piece of HTML; names of files and captions in it are escaped."""
        console = Console(
            record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, force_jupyter=False,
            color_system="truecolor", legacy_windows=False,
        )  # fmt: skip
        console.print(Group(self.head, self.get_renderable()))
        return console.export_html(inline_styles=True, code_format=FORM)
