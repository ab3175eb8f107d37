"""Which weights learn: all, or those of some parts. And two ways to save memory: quantised weights, recomputed activations."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, SettingsError
from captrain.models.adapters import check_plain
from captrain.models.contract import CaptionerModel
from captrain.models.parts import PARTS


def lower_frozen(captioner: CaptionerModel) -> None:
    """Store frozen matrices in bf16, so that no step has to convert them.

    Products are computed in bf16 either way. Norms and everything that learns stay in fp32; quantised weights stay quantised.
    Use it only if the frozen weights are not saved: for an adapter's base, or for a captioner that does not train.
    """
    for module in captioner.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter.is_floating_point():
                    parameter.data = parameter.data.to(torch.bfloat16)


def freeze(captioner: CaptionerModel, parts: Sequence[str]) -> None:
    """Let everything learn except `parts`. Raises `ModelError` if nothing is left, or if there is an adapter."""
    check_plain(captioner)
    members = captioner.parts()
    for part in PARTS:
        for _, parameter in members[part]:
            parameter.requires_grad_(part not in parts)
    if not any(parameter.requires_grad for parameter in captioner.parameters()):
        raise ModelError(
            f"freeze: {', '.join(parts)} are all parts, so nothing would learn; leave out one of {', '.join(PARTS)}"
        )


def count_parameters(captioner: CaptionerModel) -> dict[str, dict[str, int]]:
    """The number of parameters of each part, in total and trainable.

    For BLIP base with rank-16 adapters on the text decoder, `language` learns about 6.5 million.
    """
    return {
        part: {
            "total": sum(parameter.numel() for _, parameter in members),
            "trainable": sum(parameter.numel() for _, parameter in members if parameter.requires_grad),
        }
        for part, members in captioner.parts().items()
    }


Quantization = Literal["4bit", "8bit"]


def checkpoint_activations(captioner: CaptionerModel) -> None:
    """Store only each layer's input in training, and compute the rest again in the backward pass (Chen et al. 2016).

    Loss and gradients stay the same. A step takes about a third longer, and its memory no longer grows with the activations
    inside a layer. This applies to the decoder, and to the image encoder if it learns.

    Raises `ModelError` if one of them can't do it.
    """
    halves = [captioner.decoder]
    if captioner.vision_learns():
        halves.append(_root(captioner, "vision"))
    for half in halves:
        try:  # activation_checkpointing_enable refuses BLIP's decoder, which can do it
            half._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
        except ValueError:
            raise ModelError(
                f"checkpoint_activations: {type(half).__name__} stores its activations, as transformers can't compute them "
                "again; leave --checkpoint-activations out, or --freeze the part"
            ) from None


def quantization(kind: Quantization, device: torch.device) -> BitsAndBytesConfig:
    """How transformers loads weights in 4 bits (NF4 with double quantisation, as QLoRA) or in 8 (LLM.int8).

    Raises `SettingsError` if there is no GPU, or if bitsandbytes is not installed.
    """
    if device.type != "cuda":
        raise SettingsError(f"quantize {kind}: needs a GPU (cuda), found {device.type}; leave --quantize out here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            f"quantize {kind}: needs bitsandbytes, which is not installed; pip install 'captrain[quant]'"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _root(captioner: CaptionerModel, part: str) -> PreTrainedModel:
    """The outermost transformers model of a part."""
    return next(module for _, module in captioner.part_modules(part) if isinstance(module, PreTrainedModel))
