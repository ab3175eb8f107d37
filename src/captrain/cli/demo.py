"""`captrain demo`."""

from __future__ import annotations

from pathlib import Path

from captrain.cli.logs import quiet_libraries
from captrain.cli.switch import Switch


def demo(out: Path = Path("runs/demo"), /, *, seed: int = 0, overwrite: Switch = False) -> int:
    """Draw pictures, train on them, score and report: no data, no network needed.

    Args:
        out: Run folder to write.
        seed: Seed of the pictures and of the training.
        overwrite: Begin anew in a folder that holds a run; the old one is lost.
    """
    quiet_libraries()
    from captrain.demo.run import run_demo

    run_demo(out, seed=seed, overwrite=overwrite)
    return 0
