"""Silence while a model is loaded: the bars and warnings of the libraries below say nothing to who asked for a captioner."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers.utils.logging as transformers_logging
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

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
