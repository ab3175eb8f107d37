"""What a command was told to trust: by itself neither code that lies beside weights, nor, if asked for, pickles.

Only the command line of the very command says so: no recipe, no run and no model can. What it says holds in its process, and
in those that it starts on this machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLE = "CAPTRAIN_ASKED"
"""How processes that a command starts learn of its switches: the number of the command's process, then their names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The switches. `remote_code`: run the code that lies beside a model. `safetensors_only`: read no pickles."""

    remote_code: bool = False
    safetensors_only: bool = False


def ask(*, remote_code: bool = False, safetensors_only: bool = False) -> None:
    """Set the switches for this process and those that it starts.

    >>> ask(safetensors_only=True)
    >>> asked()
    Asked(remote_code=False, safetensors_only=True)
    >>> ask()
    """
    os.environ.pop(VARIABLE, None)
    if remote_code or safetensors_only:
        os.environ[VARIABLE] = f"{os.getpid()} {int(remote_code)} {int(safetensors_only)}"


def asked() -> Asked:
    """The switches of this command. A variable that some other process has set counts for nothing."""
    process, *switches = os.environ.get(VARIABLE, "").split() or [""]
    if process not in (str(os.getpid()), str(os.getppid())) or len(switches) != 2:
        return Asked()
    return Asked(switches[0] == "1", switches[1] == "1")
