"""What torchrun, `accelerate launch` and captrain itself tell a process that they start as one of a group. Imports no torch."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def is_member() -> bool:
    """Whether this process was started as one of a group."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_silent() -> bool:
    """Whether another process of the group speaks for this one."""
    return is_member() and os.environ["RANK"] != "0"


def end_process(code: int) -> NoReturn:
    """End this process as `sys.exit` does, but one of a group without taking the interpreter apart.

    A thread of gloo lets go of its last tensor some time after the work is done. Where that falls into the interpreter's end,
    the whole process aborts ("terminate called without an active exception"), and whoever started the group ends the others.
    """
    if not is_member():
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
