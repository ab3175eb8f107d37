"""Training and evaluation mode, changed for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
