"""What torchrun, `accelerate launch` and captrain itself tell a process that they start as one of a group. Imports no torch."""

from __future__ import annotations

import os


def is_member() -> bool:
    """Whether this process was started as one of a group."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_silent() -> bool:
    """Whether another process of the group speaks for this one."""
    return is_member() and os.environ["RANK"] != "0"
