"""Checks by gradients that the weights that should learn do so. Weights without a gradient are an error in the first steps."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum

from torch import Tensor, nn

from captrain.errors import ModelError
from captrain.models.contract import CaptionerModel
from captrain.models.lora import layer_kind
from captrain.models.parts import plain_name
from captrain.training.distributed.group import here
from captrain.training.distributed.sharding import local

logger = logging.getLogger(__name__)

LONGEST_WAIT = 10
"""Steps after which a part behind a zero-initialised gate must have a gradient: the gate opens in the first step."""

ADAPTER = re.compile(r"\.(lora_\w+|modules_to_save)\.")
CROSS = re.compile(r"cross|encdec", re.IGNORECASE)

Weights = list[tuple[str, nn.Parameter]]


class Received(IntEnum):
    """What gradient a group of weights got in a step."""

    NOTHING = 0
    ZEROS = 1
    GRADIENT = 2


class GradientCheck:
    """Checks the gradients of the first steps, after all batches of a step were added up.

    Each kind of layer in each learning part, and each module that was asked for by name, must get a gradient. Single weights may
    have none for good reasons: an unused pooler, the query of an attention to a single vector, an adapter's A while
    its B is zero. So whole kinds are checked.

    Args:
        target_modules: names of the modules that get adapters. looks: False with DeepSpeed, which frees gradients at once.
    """

    def __init__(self, target_modules: Sequence[str] = (), *, looks: bool = True) -> None:
        self.target_modules = target_modules
        self.all: dict[str, Weights] | None = None if looks else {}
        self.waiting: dict[str, Weights] = {}
        self.steps = 0

    def __call__(self, captioner: CaptionerModel) -> None:
        """Raise `ModelError` if something that should learn got no gradient in this step."""
        if self.all is None:  # not earlier: sharding replaces the weights
            self.all = self.waiting = should_learn(captioner, self.target_modules)
            _warn_of_idle_adapters(captioner)
        if not self.waiting:
            return
        self.steps += 1
        found = gradients_of(self.waiting)
        self.waiting = {name: weights for name, weights in self.waiting.items() if found[name] != Received.GRADIENT}
        if not self.waiting:
            return
        patient = self.steps < LONGEST_WAIT and all(found[name] == Received.ZEROS for name in self.waiting)
        if not (patient and _has_closed_gate(captioner)):
            raise ModelError(_told(self.waiting, self.all, found, self.steps))


def should_learn(captioner: CaptionerModel, target_modules: Sequence[str] = ()) -> dict[str, Weights]:
    """The learning weights by part and kind of layer, and by the names of the modules that get adapters.

    >>> should_learn(captioner).keys()                                                        # doctest: +SKIP
    dict_keys(['language: attention', 'language: cross-attention', 'language: feed-forward'])
    """
    groups: dict[str, Weights] = {}
    for part, members in captioner.parts().items():
        for name, weight in members:
            if weight.requires_grad:
                groups.setdefault(f"{part}: {_kind(name)}", []).append((name, weight))
                module = ADAPTER.split(plain_name(name))[0]
                for end in target_modules:
                    if module == end or module.endswith("." + end):
                        groups.setdefault(f"target_modules: {end}", []).append((name, weight))
    return groups


def gradients_of(groups: dict[str, Weights]) -> dict[str, Received]:
    """The gradient of each group, in any of the processes."""
    own = {name: _found(weight for _, weight in weights) for name, weights in groups.items()}
    everywhere = here().gather(own)
    return {name: Received(max(process[name] for process in everywhere)) for name in own}


def _kind(name: str) -> str:
    """The kind of layer that a weight belongs to.

    >>> _kind("model.decoder.transformer.h.0.crossattention.c_attn.weight"), _kind("model.decoder.transformer.wte.weight")
    ('cross-attention', 'feed-forward')
    """
    if ".modules_to_save." in name:
        return "new modules"
    module = ADAPTER.split(plain_name(name))[0].removesuffix(".weight").removesuffix(".bias")
    kind = layer_kind(module)
    return "cross-attention" if kind == "attention" and CROSS.search(module) else kind


def _found(weights: Iterable[nn.Parameter]) -> Received:
    """The largest gradient among some weights."""
    found = Received.NOTHING
    for weight in weights:
        if weight.grad is not None:
            found = Received.ZEROS
            if bool(local(weight.grad).any()):
                return Received.GRADIENT
    return found


def _has_closed_gate(captioner: CaptionerModel) -> bool:
    """Whether a learning weight is all zeros, so that what is behind it gets a gradient only after the first step."""
    own = any(
        weight.requires_grad and not name.endswith("bias") and ".lora_" not in name and _is_zero(local(weight.detach()))
        for name, weight in captioner.named_parameters()
    )
    return any(here().gather(own))


def _is_zero(values: Tensor) -> bool:
    return values.numel() > 0 and not bool(values.any())


def _warn_of_idle_adapters(captioner: CaptionerModel) -> None:
    """Warn of single adapters without a gradient: they are harmless and useless."""
    adapters: dict[str, Weights] = {}
    for name, weight in captioner.named_parameters():
        if weight.requires_grad and ".lora_" in name:
            adapters.setdefault(ADAPTER.split(plain_name(name))[0], []).append((name, weight))
    idle = [name for name, found in gradients_of(adapters).items() if found != Received.GRADIENT]
    if idle and here().is_first:
        logger.warning(
            "%d of %d adapters got no gradient in the first step and may never learn: %s",
            len(idle), len(adapters), ", ".join(idle[:3]) + (", ..." if len(idle) > 3 else ""),
        )  # fmt: skip


def _told(idle: dict[str, Weights], everything: dict[str, Weights], found: dict[str, Received], steps: int) -> str:
    """What does not learn, on one line; a part that does not learn at all is named as a whole."""
    working = {name.split(":")[0] for name in everything.keys() - idle.keys()}
    told: dict[str, Weights] = {}
    for name, weights in idle.items():
        part = name.split(":")[0]
        told.setdefault(name if part in working or part == "target_modules" else f"the {part} part", []).extend(weights)
    names = [f"{name} ({len(weights)} weights, first {plain_name(weights[0][0])})" for name, weights in told.items()]
    what = "none" if all(found[name] == Received.NOTHING for name in idle) else "only zeros"
    when = "before the first step" if steps == 1 else f"in {steps} steps"
    return (
        f"no gradient reaches {'; '.join(names)}: it should learn, and {when} got {what}, so nothing would change there; "
        "freeze the part (--freeze), or leave it out of --lora-parts, --lora-layers or --target-modules"
    )
