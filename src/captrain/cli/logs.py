"""Log lines: short and plain, on stderr, so that stdout holds results only."""

from __future__ import annotations

import logging
import sys

from captrain.messages import Lines, ShortLines
from captrain.progress import printable

__all__ = ["is_verbose", "printable", "quiet_libraries", "set_up_logging"]

logger = logging.getLogger("captrain")

NOISY_LIBRARIES = ("accelerate", "huggingface_hub", "peft", "torch", "transformers")


def set_up_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Send captrain's messages to stderr: from INFO on, DEBUG when verbose, WARNING when quiet."""
    handler = Lines()
    handler.setFormatter(ShortLines())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def is_verbose() -> bool:
    """Whether `-v` was given."""
    return logger.isEnabledFor(logging.DEBUG)


def verbosity() -> dict[str, bool]:
    """The verbosity, as arguments of `set_up_logging`."""
    return {"verbose": is_verbose(), "quiet": not logger.isEnabledFor(logging.INFO)}


def quiet_libraries() -> None:
    """Show only errors of the libraries below, unless `-v` was given. It imports them: call it where they are needed.

    Downloads still show their progress on a terminal, because they can take minutes.
    """
    if is_verbose():
        return
    import transformers.utils.logging as transformers_logging
    from huggingface_hub.utils import enable_progress_bars

    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        enable_progress_bars()
