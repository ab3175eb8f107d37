"""Training and evaluation mode, changed for a while and put back.

Silence while a model is loaded: the bars and warnings of the libraries below say nothing to who asked for a captioner.

Work beside the training that must not change what it draws.
"""

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
    """While this is open a module is in evaluation mode; afterwards each of its modules is in the mode that it was in.

    A captioner's modes are not all alike: in training its frozen parts stay in evaluation mode.

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
    """Whatever modes are set while this is open, afterwards each module is in the one that it was in."""
    modes = [(inner, inner.training) for inner in module.modules()]
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode


def keep_still(modules: Sequence[nn.Module]) -> None:
    """Modules none of which has a weight that learns are as when captioning: no dropout, fixed statistics; others stay as set."""
    if any(weight.requires_grad for module in modules for weight in module.parameters(recurse=False)):
        return
    for module in modules:
        # Layers that compute activations again do so in training mode only; they have no dropout of their own.
        module.training = getattr(module, "gradient_checkpointing", False)


LIBRARIES = ("accelerate", "huggingface_hub", "peft", "torch", "transformers")


@contextmanager
def quietly() -> Iterator[None]:
    """While this is open the libraries speak of errors only, and show no bars but those of downloads, which take minutes.

    All of it is afterwards as it was before. Where captrain itself is to tell everything, they may speak too.
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
    """Whatever is drawn within, the generators of Python, numpy and torch (GPU included) go on as if it had not been."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
