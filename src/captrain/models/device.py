"""The device and the precision to compute with, compilation of the training step, and what running out of memory looks like."""

from __future__ import annotations

import os
import shutil
from itertools import chain

import torch
from torch import nn
from torch.utils import _triton

from captrain.errors import ModelError, SettingsError
from captrain.models.contract import CaptionerModel

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is the first of cuda, mps, xpu and cpu that this machine has.

    Raises `ModelError` if the machine does not have the device.
    """
    present = [kind for kind in ("cuda", "mps", "xpu") if _is_there(kind)] + ["cpu"]
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise ModelError(f"device '{name}' is not on this machine; it has: {', '.join(present)} (see: captrain doctor)")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a name; `auto` is bf16 if the device multiplies matrices faster in it, else fp32.

    Raises `ModelError` for fp16 on a CPU, where it would be slower and less exact than fp32.
    """
    if name == "fp16" and device.type == "cpu":
        raise ModelError("precision fp16: needs a GPU, found a CPU; use bf16, fp32 or auto")
    if name == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    return PRECISIONS[name]


def fast_bf16(device: torch.device) -> bool:
    """Whether the device has units for bf16 products: AMX or AVX512-BF16 on a CPU, Ampere or later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return device.type == "xpu"


def _is_there(kind: str) -> bool:
    """Whether this machine has a kind of accelerator."""
    if kind == "mps":
        return torch.backends.mps.is_available()
    return bool(getattr(torch, kind).is_available())


ALIGNED = 64  # bytes


def align(model: nn.Module) -> None:
    """Copy the weights on a CPU that do not begin at a multiple of 64 bytes, as those that are read in place from a file.

    Matrix products round by where their numbers begin, so the captions of a copy of a model would have other last digits in their
    scores than those of the model.

    >>> layer = nn.Linear(4, 4)
    >>> layer.weight.data = torch.zeros(17)[1:].view(4, 4)
    >>> align(layer)
    >>> layer.weight.data_ptr() % 64
    0
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()


SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch has an exception for GPUs, and only a message elsewhere.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("size mismatch"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in SIGNS)


COMPILERS = ("g++", "clang++", "c++")


def compile_captioner(captioner: CaptionerModel, backend: str = "inductor") -> None:
    """Compile the forward and backward pass of a captioner in place. The names of weights do not change.

    Sizes are dynamic, so that rows of all lengths use the same kernels. The first steps compile, which takes minutes. Results
    differ in the last digits, as kernels add up in another order.

    Raises `SettingsError` if there is no compiler.
    """
    if backend == "inductor":
        _require_compiler(captioner.device)
    captioner.compile(dynamic=True, backend=backend)


def _require_compiler(device: torch.device) -> None:
    """Raise `SettingsError` if the machine has no compiler for the device."""
    if device.type in ("cuda", "xpu"):
        if not _triton.has_triton():
            raise SettingsError(f"compile: needs Triton for {device.type}, which is not installed; leave --compile out")
    elif device.type != "cpu":
        raise SettingsError(f"compile: works on cpu, cuda and xpu, found {device.type}; leave --compile out")
    elif not any(map(shutil.which, (os.environ.get("CXX", COMPILERS[0]), *COMPILERS))):
        raise SettingsError("compile: needs a C++ compiler, found none; install g++, or leave --compile out")
