"""Which weights learn: LoRA adapters, everything, or chosen parts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, nearest
from captrain.models.captioner import PARTS, Captioner, plain_name


def add_lora(
    captioner: Captioner,
    rank: int,
    alpha: float,
    dropout: float,
    parts: Sequence[str] = ("language",),
    target_modules: Sequence[str] = (),
    fresh_modules: Sequence[str] = (),
) -> None:
    """Freeze the captioner and give it LoRA adapters (Hu et al. 2021), which learn.

    Args:
        parts: parts whose attention and feed-forward layers get adapters. target_modules: ends of module names, instead.
        fresh_modules: modules that were never trained (a new cross-attention, say); they learn whole, beside the adapters.

    Raises `ModelError` when a part or a name matches nothing.
    """
    targets = list(target_modules) or "|".join(
        f"({captioner.lora_targets(part)})" for part in parts if captioner.lora_targets(part)
    )
    for name in target_modules:
        _check_matches(captioner, name)
    if isinstance(targets, str):
        _check_parts(captioner, parts)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # peft multiplies by alpha / r; a fraction is fine
        lora_dropout=dropout,
        target_modules=targets,
        exclude_modules=rf".*\.({'|'.join(fresh_modules)})(\..*)?" if fresh_modules else None,
        modules_to_save=[
            name for name in fresh_modules if any(name in module for module, _ in captioner.named_modules())
        ]
        or None,
    )
    captioner.model = get_peft_model(captioner.core(), config)


def lower_frozen(captioner: Captioner) -> None:
    """Keep frozen matrices in bf16, so that they are not converted anew in every step.

    Products are computed in bf16 either way. Norms and all that learns stay in fp32. Only for captioners whose frozen weights are
    not written back: an adapter's base, or a captioner that does not train.
    """
    for module in captioner.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)


def freeze(captioner: Captioner, parts: Sequence[str]) -> None:
    """Let everything learn except `parts`. Raises `ModelError` when nothing is left."""
    members = captioner.parts()
    for part in PARTS:
        for _, parameter in members[part]:
            parameter.requires_grad_(part not in parts)
    if not any(parameter.requires_grad for parameter in captioner.parameters()):
        raise ModelError(
            f"freeze: {', '.join(parts)} are all there is, nothing would learn; leave out one of {', '.join(PARTS)}"
        )


def count_parameters(captioner: Captioner) -> dict[str, dict[str, int]]:
    """Parameters of each part, all and learning.

    For BLIP base with rank-16 adapters on the text decoder, `language` learns about 6.5 million.
    """
    return {
        part: {
            "total": sum(parameter.numel() for _, parameter in members),
            "trainable": sum(parameter.numel() for _, parameter in members if parameter.requires_grad),
        }
        for part, members in captioner.parts().items()
    }


def linear_modules(captioner: Captioner) -> list[str]:
    """Names of all modules that an adapter can be put on."""
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)
    return [plain_name(name) for name, module in captioner.named_modules() if isinstance(module, kinds)]


def _check_matches(captioner: Captioner, name: str) -> None:
    """A name of `target_modules` must be the end of some module's name, as peft matches it."""
    modules = linear_modules(captioner)
    if not any(module == name or module.endswith("." + name) for module in modules):
        kinds = sorted({re.sub(r".*\.\d+\.", "", module) for module in modules})
        raise ModelError(
            f"target_modules: '{name}' matches no module of this model.{nearest(name, kinds)} It has: {', '.join(kinds)}"
        )


def _check_parts(captioner: Captioner, parts: Sequence[str]) -> None:
    """Each part that is to get adapters must have layers for them."""
    modules = linear_modules(captioner)
    for part in parts:
        pattern = captioner.lora_targets(part)
        if not pattern or not any(re.fullmatch(pattern, module) for module in modules):
            raise ModelError(
                f"lora_parts: the part '{part}' of a {captioner.family} captioner has no layers for adapters"
            )
