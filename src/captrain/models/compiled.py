"""A captioner's training step as compiled kernels instead of one operation after the other."""

from __future__ import annotations

import os
import shutil

import torch
from torch.utils import _triton

from captrain.errors import SettingsError
from captrain.models.captioner import Captioner

COMPILERS = ("g++", "clang++", "c++")


def compile_captioner(captioner: Captioner, backend: str = "inductor") -> None:
    """Compile the captioner's forward pass, and what goes back through it, in place; names of weights stay as they are.

    Sizes are symbols (`dynamic`), so that rows of other lengths take the same kernels. The first steps compile, which takes
    minutes. Results differ in their last digits, as kernels add up in another order.

    Raises `SettingsError` where there is nothing to compile with.
    """
    if backend == "inductor":
        _require_compiler(captioner.device)
    captioner.compile(dynamic=True, backend=backend)


def _require_compiler(device: torch.device) -> None:
    """Refuse a machine without a compiler for the device."""
    if device.type in ("cuda", "xpu"):
        if not _triton.has_triton():
            raise SettingsError(f"compile: needs Triton for {device.type}, which is not here; leave --compile out")
    elif device.type != "cpu":
        raise SettingsError(f"compile: is for cpu, cuda and xpu, found {device.type}; leave --compile out")
    elif not any(map(shutil.which, (os.environ.get("CXX", COMPILERS[0]), *COMPILERS))):
        raise SettingsError("compile: needs a C++ compiler, which is not here; install g++, or leave --compile out")
