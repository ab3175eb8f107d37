"""A real notebook: its bars and its run are parts of a cell's output, and the stop button leaves a run that goes on."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="notebooks are run where nbclient and ipykernel are installed")
pytest.importorskip("ipykernel")

BEGIN = """
import pathlib, signal, captrain
from captrain.testing import tiny_blip, tiny_photos
folder = pathlib.Path({folder!r})
photos, model = tiny_photos(folder / "photos", count=40), tiny_blip(folder / "blip")
how = dict(model=model, epochs=3, device="cpu", beams=1, batch_size=2, validation_share=0.2)
before = signal.getsignal(signal.SIGINT)
"""
STOPPED = """
try:
    captrain.train(photos, folder / "run", **how)
except captrain.errors.StoppedError as error:
    print(error, signal.getsignal(signal.SIGINT) is before)
"""
AGAIN = """
run = captrain.train(photos, folder / "run", **how)
run
"""


def pages(cell: Any) -> list[str]:
    """The HTML in a cell's output."""
    return [output["data"]["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def press_stop(client: Any, cell: Any) -> None:
    """Interrupt the kernel, as the stop button does, once a cell's output shows a step."""
    for _ in range(1200):
        time.sleep(0.1)
        if any("epoch 1 of 3, step" in page for page in pages(cell)):
            pressed = client.km.interrupt_kernel()
            if inspect.isawaitable(pressed):
                asyncio.run(_wait(pressed))
            return


async def _wait(pressed: Any) -> None:
    await pressed


def test_a_notebook(tmp_path: Path) -> None:
    import nbformat

    cells = [BEGIN.format(folder=str(tmp_path)), STOPPED, AGAIN]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for cell in notebook.cells:
        cell.outputs = []
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    threading.Thread(target=press_stop, args=(client, notebook.cells[1]), daemon=True).start()
    client.execute()
    told = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert "SIGINT stopped the training at step" in told and told.strip().endswith("True")
    bars = pages(notebook.cells[2])
    assert "epoch 3 of 3" in bars[-2] and "<svg" in bars[-1] and "data:image/" in bars[-1]
    assert "going on from step" in "".join(output.get("text", "") for output in notebook.cells[2].outputs)
