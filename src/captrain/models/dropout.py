"""Dropout that draws fast on CPUs.

Where torch can't take Intel's library for it, it draws a CPU's dropout number by number in one thread, whatever else is done
in how many: with dropout 0.3 that was a third of a small decoder's step. Here sixteen bits decide over a number, four numbers
come from one draw, and all of torch's threads compare and multiply.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""What sixteen bits can tell apart."""


def drop(values: Tensor, share: float) -> Tensor:
    """A `share` of the values replaced by zero, the others enlarged so that the mean stays (Srivastava et al. 2014).

    On a CPU the share is rounded to 1/65536. Random numbers come from torch's generator, as many of them for the same shape:
    who restores its state gets the same zeros.

    >>> dropped = drop(torch.ones(100_000), 0.25)
    >>> sorted(set(dropped.tolist())), round(float(dropped.mean()), 1)
    ([0.0, 1.3333333730697632], 1.0)
    """
    threshold = round(share * LEVELS)
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < LEVELS:
        return nn.functional.dropout(values, share)
    count = values.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    kept = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(bits[:count].view(values.shape), threshold - LEVELS // 2, out=kept)
    return values * kept.mul_(LEVELS / (LEVELS - threshold))


class Dropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input, a share of it dropped while learning."""
        return drop(input, self.p) if self.training and self.p else input


def quicken_dropout(model: nn.Module) -> None:
    """Let every plain `nn.Dropout` of a model draw by `drop`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
