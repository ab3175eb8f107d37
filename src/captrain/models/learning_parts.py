"""Which weights learn: LoRA adapters, everything, or chosen parts.

Large captioners in little memory: quantised base weights, activations that are computed again instead of kept.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, SettingsError, nearest
from captrain.models.adapters import has_adapter, lora_modules, name_base
from captrain.models.captioner import PARTS, CaptionerModel, plain_name

STARTS = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal", "pissa": "pissa", "olora": "olora"}
"""How adapters can begin, and what peft calls it."""

NEED_MORE = {
    "eva": "training data to look at first",
    "corda": "training data to look at first",
    "lora_ga": "gradients of training data",
    "loftq": "full-precision weights beside quantised ones",
    "pissa_niter": "random numbers that are drawn anew at each loading",
}
"""Beginnings that peft knows and captrain does not offer, and what they would need."""

FROM_THE_WEIGHTS = ("pissa", "olora")
"""Beginnings that move a part of the weights into the adapter, so that it can't be wider than they are."""


def add_lora(
    captioner: CaptionerModel,
    rank: int,
    alpha: float,
    dropout: float,
    parts: Sequence[str] = ("language",),
    target_modules: Sequence[str] = (),
    fresh_modules: Sequence[str] = (),
    layers: Sequence[str] = ("attention", "feed-forward"),
    rslora: bool = False,
    dora: bool = False,
    start: str = "default",
) -> None:
    """Freeze the captioner and give it LoRA adapters (Hu et al. 2021), which learn.

    Args:
        rank, alpha, dropout: the adapter's output is multiplied by alpha / rank, its input dropped out.
        parts, layers: parts and kinds of layers that get adapters. target_modules: ends of module names, instead.
        fresh_modules: modules that were never trained (a new cross-attention, say); they learn whole, beside the adapters.
        rslora: multiply by alpha / sqrt(rank), so that high ranks learn as fast as low ones (Kalajdzievski 2023).
        dora: learn each row's length apart from its direction (Liu et al. 2024). Slower, often better at low ranks.
        start: one of `STARTS`. `pissa` (Meng et al. 2024) and `olora` (Büyükakyüz 2024) begin with the weights' main directions.

    Raises `ModelError` when a part or a name matches nothing, when the adapters can't begin as asked, or when the captioner
    has an adapter already.
    """
    _check_plain(captioner)
    names = lora_modules(captioner, parts, layers, target_modules, fresh_modules)
    _check_start(captioner, start, rank, names)
    present = [name for name in fresh_modules if any(name in module for module, _ in captioner.named_modules())]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # peft multiplies by alpha / r; a fraction is fine
        lora_dropout=dropout,
        target_modules=names,
        modules_to_save=present or None,
        use_rslora=rslora,
        use_dora=dora,
        init_lora_weights=STARTS[start],
    )
    captioner.model = get_peft_model(captioner.core(), config)
    name_base(captioner)


def lower_frozen(captioner: CaptionerModel) -> None:
    """Keep frozen matrices in bf16, so that they are not converted anew in every step.

    Products are computed in bf16 either way. Norms and all that learns stay in fp32, quantised weights as they are. Only for
    captioners whose frozen weights are not written back: an adapter's base, or a captioner that does not train.
    """
    for module in captioner.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter.is_floating_point():
                    parameter.data = parameter.data.to(torch.bfloat16)


def freeze(captioner: CaptionerModel, parts: Sequence[str]) -> None:
    """Let everything learn except `parts`. Raises `ModelError` when nothing is left, or when there is an adapter."""
    _check_plain(captioner)
    members = captioner.parts()
    for part in PARTS:
        for _, parameter in members[part]:
            parameter.requires_grad_(part not in parts)
    if not any(parameter.requires_grad for parameter in captioner.parameters()):
        raise ModelError(
            f"freeze: {', '.join(parts)} are all there is, nothing would learn; leave out one of {', '.join(PARTS)}"
        )


def count_parameters(captioner: CaptionerModel) -> dict[str, dict[str, int]]:
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


def _check_plain(captioner: CaptionerModel) -> None:
    """Raise `ModelError` where an adapter is there already: a second one, or its base, would learn and not be saved."""
    if has_adapter(captioner):
        raise ModelError("the captioner has an adapter already; merge it first, or let it go on learning")


def _check_start(captioner: CaptionerModel, start: str, rank: int, names: Sequence[str]) -> None:
    """Raise `ModelError` unless the adapters can begin as asked."""
    if start not in STARTS:
        needed = NEED_MORE.get(start.partition("_niter")[0] + ("_niter" if "_niter" in start else ""))
        reason = f"is not offered, as it needs {needed}" if needed else f"is unknown.{nearest(start, STARTS)}"
        raise ModelError(f"lora_init: '{start}' {reason}; expected one of {', '.join(STARTS)}")
    if start == "orthogonal" and rank % 2:
        raise ModelError(f"lora_init orthogonal: needs an even rank, found {rank}")
    if start not in FROM_THE_WEIGHTS:
        return
    wanted = set(names)
    for name, module in captioner.named_modules():
        if plain_name(name) in wanted:
            _check_weight(start, rank, plain_name(name), module)


def _check_weight(start: str, rank: int, name: str, module: nn.Module) -> None:
    """What `pissa` and `olora` take apart must be a matrix that they know, and not smaller than the adapter."""
    weight = getattr(module, "weight", None)
    if not isinstance(module, (nn.Linear, Conv1D)) or weight is None or not weight.is_floating_point():
        raise ModelError(f"lora_init {start}: can't take {name} apart ({type(module).__name__}); use lora_init default")
    if start == "olora" and isinstance(module, Conv1D):  # peft takes the transposed weight for the weight
        raise ModelError(f"lora_init olora: peft can't do it for {name}, whose weight is transposed (GPT-2); use pissa")
    if rank > min(weight.shape):
        raise ModelError(
            f"lora_init {start}: rank {rank} is more than {name} has ({min(weight.shape)}); lower the rank"
        )


Quantization = Literal["4bit", "8bit"]


def checkpoint_activations(captioner: CaptionerModel) -> None:
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


def _root(captioner: CaptionerModel, part: str) -> PreTrainedModel:
    """The outermost transformers model of a part."""
    return next(module for _, module in captioner.part_modules(part) if isinstance(module, PreTrainedModel))
