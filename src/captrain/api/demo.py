"""`captrain.run_demo`: everything tried out on pictures that captrain draws itself."""

from __future__ import annotations

from pathlib import Path

from captrain.api.options import Place
from captrain.api.process import calling, undisturbed
from captrain.api.runs import Run


def run_demo(out: Place = "runs/demo", *, seed: int = 0, overwrite: bool = False) -> Run:
    """Draw pictures, train on them, score and report, as `captrain demo` does, and return the run.

    Needs no data and no network. 3 to 8 minutes on two cores.

    Args:
        out: Folder to write: `scenes/`, `encoder/` and the run folder `run/`.
        seed: Seed of the pictures and the training.
        overwrite: Start again in a folder that holds a run; the old run is lost.

    >>> run_demo("runs/demo").scores["cider"] > 1          # doctest: +SKIP
    True
    """
    with calling() as begin:
        begin()
        from captrain.demo.run import RUN_FOLDER
        from captrain.demo.run import run_demo as run

        with undisturbed():
            run(Path(out), seed=seed, overwrite=overwrite)
    return Run(Path(out) / RUN_FOLDER)
