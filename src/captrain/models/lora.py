"""LoRA adapters (Hu et al. 2021): which modules get them, how they begin, and how they are added to a captioner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, nearest
from captrain.models.adapters import check_plain, name_base
from captrain.models.contract import CaptionerModel
from captrain.models.parts import plain_name

STARTS = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal", "pissa": "pissa", "olora": "olora"}
"""The ways to initialise adapters, and the names that peft has for them."""

NEED_MORE = {
    "eva": "a pass over training data first",
    "corda": "a pass over training data first",
    "lora_ga": "gradients of training data",
    "loftq": "full-precision weights beside quantised ones",
    "pissa_niter": "random numbers that are drawn again at each loading",
}
"""Initialisations of peft that captrain does not offer, and what they would need."""

FROM_THE_WEIGHTS = ("pissa", "olora")
"""Initialisations that move a part of the weights into the adapter, so that it can't be wider than the weights."""


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """LoRA adapters (Hu et al. 2021).

    Attributes:
        rank, alpha, dropout: the adapter's output is multiplied by alpha / rank; dropout is on its input.
        parts, layers: the parts and the kinds of layers that get adapters.
        target_modules: the ends of the names of the modules that get adapters, instead of parts and layers.
        rslora: multiply by alpha / sqrt(rank), so that high ranks learn as fast as low ones (Kalajdzievski 2023).
        dora: learn the length of each row apart from its direction (Liu et al. 2024). Slower, often better at low ranks.
        start: one of `STARTS`. `pissa` (Meng et al. 2024) and `olora` (Büyükakyüz 2024) begin with the weights' main directions.
    """

    rank: int
    alpha: float
    dropout: float
    parts: Sequence[str] = ("language",)
    target_modules: Sequence[str] = ()
    layers: Sequence[str] = ("attention", "feed-forward")
    rslora: bool = False
    dora: bool = False
    start: str = "default"


def add_lora(captioner: CaptionerModel, lora: LoraOptions, fresh_modules: Sequence[str] = ()) -> None:
    """Freeze the captioner, and add LoRA adapters, which learn.

    Args:
        fresh_modules: modules that were never trained (a new cross-attention, say); they learn whole, beside the adapters.

    Raises `ModelError` if a part or a name matches nothing, if the adapters can't begin as asked, or if the captioner has an
    adapter already.
    """
    from peft import LoraConfig, get_peft_model

    check_plain(captioner)
    names = lora_modules(captioner, lora.parts, lora.layers, lora.target_modules, fresh_modules)
    _check_start(captioner, lora.start, lora.rank, names)
    present = [name for name in fresh_modules if any(name in module for module, _ in captioner.named_modules())]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # peft multiplies by alpha / r; a fraction is fine
        lora_dropout=lora.dropout,
        target_modules=names,
        modules_to_save=present or None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=STARTS[lora.start],
    )
    captioner.model = get_peft_model(captioner.core(), config)
    name_base(captioner)


def _check_start(captioner: CaptionerModel, start: str, rank: int, names: Sequence[str]) -> None:
    """Raise `ModelError` unless the adapters can be initialised as asked."""
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
    """Raise `ModelError` unless `pissa` or `olora` can decompose a weight, and the adapter is not wider than it."""
    weight = getattr(module, "weight", None)
    if not isinstance(module, (nn.Linear, Conv1D)) or weight is None or not weight.is_floating_point():
        raise ModelError(f"lora_init {start}: can't decompose {name} ({type(module).__name__}); use lora_init default")
    if start == "olora" and isinstance(module, Conv1D):  # peft does not see that the weight is transposed
        raise ModelError(f"lora_init olora: peft can't do it for {name}, whose weight is transposed (GPT-2); use pissa")
    if rank > min(weight.shape):
        raise ModelError(
            f"lora_init {start}: rank {rank} is larger than the rank of {name} ({min(weight.shape)}); lower the rank"
        )


LAYERS = ("attention", "feed-forward", "all-linear")
"""The kinds of layers that can get adapters."""

ATTENTION_BLOCK = re.compile(r"attn|attention", re.IGNORECASE)
ATTENTION_LAYER = re.compile(r"query|key|value|qkv|(q|k|v|o|qkv|out|in)_proj|[qkvo]|to_(queries|keys_values)")


def lora_modules(
    captioner: CaptionerModel,
    parts: Sequence[str] = ("language",),
    layers: Sequence[str] = ("attention", "feed-forward"),
    target_modules: Sequence[str] = (),
    fresh_modules: Sequence[str] = (),
) -> list[str]:
    """The full names of the modules that get adapters, in the model's order.

    Args:
        parts: some of `vision`, `bridge` and `language`. layers: some of `LAYERS`; `all-linear` is every matrix of the part
            except the vocabulary's, in blocks or not.
        target_modules: ends of module names, instead of parts and layers. fresh_modules: modules that learn whole instead.

    Raises `ModelError` if a name or a part matches nothing.
    """
    fresh = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, fresh_modules))})(\..*)?") if fresh_modules else None
    names = [name for name in linear_modules(captioner) if not (fresh and fresh.fullmatch(name))]
    if target_modules:
        return _named(names, target_modules)
    chosen: set[str] = set()
    for part in parts:
        found = _of_part(captioner, part, names)
        wanted = [name for name in found if "all-linear" in layers or layer_kind(name) in layers]
        if "all-linear" not in layers:
            wanted = _matching(captioner.lora_targets(part), wanted)
        if not wanted:
            raise _nothing_there(captioner, part, layers)
        chosen.update(wanted)
    return [name for name in names if name in chosen]


def layer_kind(name: str) -> str:
    """Whether a layer belongs to the attention or to the feed-forward half of its block, by its name.

    >>> layer_kind("h.0.crossattention.c_proj"), layer_kind("h.0.mlp.c_proj"), layer_kind("layer.1.output.dense")
    ('attention', 'feed-forward', 'feed-forward')
    """
    inside = re.split(r"\.\d+\.", name)[-1]  # what comes after the number of the block
    block, _, last = inside.rpartition(".")
    is_attention = ATTENTION_BLOCK.search(block) or ATTENTION_LAYER.fullmatch(last)
    return "attention" if is_attention else "feed-forward"


def linear_modules(captioner: CaptionerModel) -> list[str]:
    """The names of all modules that can get an adapter."""
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)
    return [plain_name(name) for name, module in captioner.named_modules() if isinstance(module, kinds)]


def _of_part(captioner: CaptionerModel, part: str, names: Sequence[str]) -> list[str]:
    """The matrices of a part, except the vocabulary's."""
    modules = {plain_name(name): module for name, module in captioner.part_modules(part)}
    head = captioner.decoder.get_output_embeddings()
    return [
        name for name in names if isinstance(module := modules.get(name), (nn.Linear, Conv1D)) and module is not head
    ]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a family's pattern fully matches; an empty pattern matches none."""
    return [name for name in names if pattern and re.fullmatch(pattern, name)]


def _named(names: Sequence[str], ends: Sequence[str]) -> list[str]:
    """The modules whose names end as given, as peft matches them. Raises `ModelError` for an end that matches nothing."""
    for end in ends:
        if not any(name == end or name.endswith("." + end) for name in names):
            kinds = sorted({re.sub(r".*\.\d+\.", "", name) for name in names})
            hint = nearest(end, [*kinds, *(kind.rpartition(".")[2] for kind in kinds)])
            raise ModelError(
                f"target_modules: '{end}' matches no module of this model.{hint} It has: {', '.join(kinds)}"
            )
    return [name for name in names if any(name == end or name.endswith("." + end) for end in ends)]


def _nothing_there(captioner: CaptionerModel, part: str, layers: Sequence[str]) -> ModelError:
    """The error for a part without such layers; it names the kinds that the part has."""
    names = linear_modules(captioner)
    known = _matching(captioner.lora_targets(part), names)
    others = sorted({layer_kind(name) for name in known})
    if not others and _of_part(captioner, part, names):
        others = ["all-linear"]
    asked = " or ".join(layers)
    hint = f"; it has {' and '.join(others)}" if others else ""
    return ModelError(
        f"lora_parts: the part '{part}' of a {captioner.family} captioner has no layers for adapters ({asked}){hint}"
    )
