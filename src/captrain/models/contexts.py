"""Contexts that change something for a while and restore it: module modes, the libraries' messages, random generators."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import transformers.utils.logging as transformers_logging
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a module and all modules in it; afterwards each has its former mode again.

    These can differ: in training, the frozen parts of a captioner stay in evaluation mode.

    >>> half = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(half):
    ...     print([module.training for module in half])
    [False, False]
    >>> [module.training for module in half]
    [True, False]
    """
    with modes_kept(module):
        module.eval()
        yield


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Restore the mode of each module afterwards."""
    modes = [(inner, inner.training) for inner in module.modules()]
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode


def evaluate_frozen(modules: Sequence[nn.Module]) -> None:
    """Evaluation mode (no dropout, fixed statistics) for modules of which no weight learns; if one learns, nothing changes."""
    if any(weight.requires_grad for module in modules for weight in module.parameters(recurse=False)):
        return
    for module in modules:
        # Layers checkpoint activations in training mode only; they have no dropout of their own.
        module.training = getattr(module, "gradient_checkpointing", False)


LIBRARIES = ("accelerate", "huggingface_hub", "peft", "torch", "transformers")


@contextmanager
def quietly() -> Iterator[None]:
    """Let the libraries report errors only, and show no progress bars except for downloads, which take minutes.

    Afterwards everything is restored. If captrain logs at debug level, the libraries may report everything, too.
    """
    if logging.getLogger("captrain").isEnabledFor(logging.DEBUG):
        yield
        return
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in LIBRARIES}
    bars, downloads = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        _show_downloads(downloads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        _show_downloads(downloads)


def _show_downloads(shown: bool) -> None:
    enable_progress_bars() if shown else disable_progress_bars()


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore the random generators of Python, numpy and torch (GPU included) afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
