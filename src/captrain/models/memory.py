"""Large captioners in little memory: quantised base weights, activations that are computed again instead of kept."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint
from transformers import BitsAndBytesConfig, PreTrainedModel

from captrain.errors import ModelError, SettingsError
from captrain.models.captioner import Captioner

Quantization = Literal["4bit", "8bit"]


def checkpoint_activations(captioner: Captioner) -> None:
    """Keep only each layer's input in training, and compute the rest again on the way back (Chen et al. 2016).

    Loss and gradients stay the same; a step takes about a third longer, and its memory no longer grows with what is inside
    a layer. The text half always takes part, the image half where it learns.

    Raises `ModelError` when a half can't do it.
    """
    halves = [captioner.decoder]
    if captioner.vision_learns():
        halves.append(_root(captioner, "vision"))
    for half in halves:
        try:  # not by activation_checkpointing_enable: BLIP's text half can, and says that it can't
            half._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
        except ValueError:
            raise ModelError(
                f"checkpoint_activations: {type(half).__name__} keeps its activations, as transformers can't compute them "
                "again; leave --checkpoint-activations out, or --freeze the part"
            ) from None


def quantization(kind: Quantization, device: torch.device) -> BitsAndBytesConfig:
    """How transformers is to load weights in 4 bits (NF4, quantised twice, as QLoRA does) or in 8 (LLM.int8).

    Raises `SettingsError` where there is no GPU, or no bitsandbytes.
    """
    if device.type != "cuda":
        raise SettingsError(f"quantize {kind}: needs a GPU (cuda), found {device.type}; leave --quantize out here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(f"quantize {kind}: needs bitsandbytes, which is not here; pip install 'captrain[quant]'")
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _root(captioner: Captioner, part: str) -> PreTrainedModel:
    """The outermost transformers model of a part."""
    return next(module for _, module in captioner.part_modules(part) if isinstance(module, PreTrainedModel))
