"""Which modules get LoRA adapters: chosen by part and kind of layer, or by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, nearest
from captrain.models.captioner import Captioner
from captrain.models.parts import plain_name

LAYERS = ("attention", "feed-forward", "all-linear")
"""Kinds of layers that adapters can be asked for."""

ATTENTION_BLOCK = re.compile(r"attn|attention", re.IGNORECASE)
ATTENTION_LAYER = re.compile(r"query|key|value|qkv|(q|k|v|o|qkv|out|in)_proj|[qkvo]|to_(queries|keys_values)")


def lora_modules(
    captioner: Captioner,
    parts: Sequence[str] = ("language",),
    layers: Sequence[str] = ("attention", "feed-forward"),
    target_modules: Sequence[str] = (),
    fresh_modules: Sequence[str] = (),
) -> list[str]:
    """Full names of the modules that get adapters, in the model's order.

    Args:
        parts: of `vision`, `bridge` and `language`. layers: of `LAYERS`; `all-linear` is every matrix of the part but the
            vocabulary's, in blocks or not.
        target_modules: ends of module names, instead of parts and layers. fresh_modules: modules that learn whole instead.

    Raises `ModelError` when a name or a part matches nothing.
    """
    fresh = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, fresh_modules))})(\..*)?") if fresh_modules else None
    names = [name for name in linear_modules(captioner) if not (fresh and fresh.fullmatch(name))]
    if target_modules:
        return _named(names, target_modules)
    chosen: set[str] = set()
    for part in parts:
        found = _of_part(captioner, part, names)
        wanted = [name for name in found if "all-linear" in layers or kind_of(name) in layers]
        if "all-linear" not in layers:
            wanted = _matching(captioner.lora_targets(part), wanted)
        if not wanted:
            raise _nothing_there(captioner, part, layers)
        chosen.update(wanted)
    return [name for name in names if name in chosen]


def kind_of(name: str) -> str:
    """Whether a layer belongs to its block's attention or to its feed-forward half, by the names people give them.

    >>> kind_of("h.0.crossattention.c_proj"), kind_of("h.0.mlp.c_proj"), kind_of("layer.1.output.dense")
    ('attention', 'feed-forward', 'feed-forward')
    """
    inside = re.split(r"\.\d+\.", name)[-1]  # what comes after the number of the block
    block, _, last = inside.rpartition(".")
    is_attention = ATTENTION_BLOCK.search(block) or ATTENTION_LAYER.fullmatch(last)
    return "attention" if is_attention else "feed-forward"


def linear_modules(captioner: Captioner) -> list[str]:
    """Names of all modules that an adapter can be put on."""
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)
    return [plain_name(name) for name, module in captioner.named_modules() if isinstance(module, kinds)]


def _of_part(captioner: Captioner, part: str, names: Sequence[str]) -> list[str]:
    """A part's matrices, the vocabulary's left out."""
    modules = {plain_name(name): module for name, module in captioner.part_modules(part)}
    head = captioner.decoder.get_output_embeddings()
    return [
        name for name in names if isinstance(module := modules.get(name), (nn.Linear, Conv1D)) and module is not head
    ]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that a family's pattern matches whole; an empty pattern matches none."""
    return [name for name in names if pattern and re.fullmatch(pattern, name)]


def _named(names: Sequence[str], ends: Sequence[str]) -> list[str]:
    """Modules whose names end as asked, as peft matches them; an end that matches nothing is an error."""
    for end in ends:
        if not any(name == end or name.endswith("." + end) for name in names):
            kinds = sorted({re.sub(r".*\.\d+\.", "", name) for name in names})
            hint = nearest(end, [*kinds, *(kind.rpartition(".")[2] for kind in kinds)])
            raise ModelError(
                f"target_modules: '{end}' matches no module of this model.{hint} It has: {', '.join(kinds)}"
            )
    return [name for name in names if any(name == end or name.endswith("." + end) for end in ends)]


def _nothing_there(captioner: Captioner, part: str, layers: Sequence[str]) -> ModelError:
    """A part that should learn has no such layers; if it has others, they are named."""
    names = linear_modules(captioner)
    known = _matching(captioner.lora_targets(part), names)
    others = sorted({kind_of(name) for name in known})
    if not others and _of_part(captioner, part, names):
        others = ["all-linear"]
    asked = " or ".join(layers)
    hint = f"; it has {' and '.join(others)}" if others else ""
    return ModelError(
        f"lora_parts: the part '{part}' of a {captioner.family} captioner has no layers for adapters ({asked}){hint}"
    )
