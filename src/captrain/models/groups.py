"""Learning weights as an optimizer's groups: which rate each has, and whether it decays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from captrain.models.captioner import Captioner
from captrain.models.parts import PARTS, plain_name

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.RMSNorm)

LAYER = re.compile(r"(?<![^.])(?:layers?|blocks?|stages?|h|resblocks)\.(\d+)\.")
DEEPEST = 2  # a layer has at most a stage and a number in it; what is numbered inside of a layer belongs to it


@dataclass(frozen=True, order=True)
class _Key:
    """What the weights of one group share. Its order is the groups' order."""

    part: int
    layer: int
    spared: bool
    faster: bool


def parameter_groups(
    captioner: Captioner,
    learning_rate: float,
    part_rates: dict[str, float],
    weight_decay: float,
    lora_plus: float = 1.0,
    vision_layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Learning parameters as groups: by part, by layer of the image half, by whether they decay, LoRA's B apart from its A.

    Args:
        learning_rate: of parts without an own one in `part_rates`. weight_decay: of all but biases, norms and other vectors.
        lora_plus: B's learning rate over A's (LoRA+, Hayou et al. 2024, who advise 16); 1 is plain LoRA.
        vision_layer_decay: learning rate of a layer of the image half over that of the layer above it (BEiT, Bao et al. 2021).
            Of n layers the last has the rate times the decay, the first times decay^n, the patch embedding times
            decay^(n + 1): the rule of LAVIS's BLIP-2 (`Blip2Base.get_optimizer_params`).
    """
    exempt = {
        id(weight) for module in captioner.modules() if isinstance(module, NORMS) for weight in module.parameters()
    }
    groups: dict[_Key, list[nn.Parameter]] = {}
    powers = {}
    for place, (part, members) in enumerate(captioner.parts().items()):
        powers[place] = layer_powers([name for name, _ in members]) if _by_layer(part, vision_layer_decay) else {}
        for name, weight in members:
            if weight.requires_grad:
                spared = id(weight) in exempt or weight.ndim < 2 or name.endswith("bias")
                faster = lora_plus != 1.0 and _is_lora_b(name)
                groups.setdefault(_Key(place, powers[place].get(name, 0), spared, faster), []).append(weight)
    return [
        {
            "params": groups[key],
            "lr": part_rates.get(PARTS[key.part], learning_rate)
            * vision_layer_decay**key.layer
            * (lora_plus if key.faster else 1.0),
            "weight_decay": 0.0 if key.spared else weight_decay,
        }
        for key in sorted(groups)
    ]


def layer_powers(names: Sequence[str]) -> dict[str, int]:
    """The power of the decay that each weight of an image encoder has, from the names in the order of the model.

    The last layer has 1, and so has what comes after it; what comes before the first layer has one more than it.

    >>> layer_powers(["patches.weight", "encoder.layer.0.mlp.weight", "encoder.layer.1.mlp.weight", "norm.weight"])
    {'patches.weight': 3, 'encoder.layer.0.mlp.weight': 2, 'encoder.layer.1.mlp.weight': 1, 'norm.weight': 1}
    """
    layers: dict[tuple[str, ...], int] = {}
    depths = {}
    for name in names:
        if numbers := tuple(LAYER.findall(plain_name(name))[:DEEPEST]):
            depths[name] = layers.setdefault(numbers, len(layers) + 1)
        else:
            depths[name] = len(layers)
    return {name: max(len(layers) + 1 - depth, 1) for name, depth in depths.items()}


def _by_layer(part: str, decay: float) -> bool:
    """Whether the layers of a part have rates of their own."""
    return part == "vision" and decay != 1.0


def _is_lora_b(name: str) -> bool:
    """Whether a parameter is the B of an adapter, the matrix that begins at zero.

    >>> _is_lora_b("model.base_model.model.decoder.h.0.attn.c_attn.lora_B.default.weight")
    True
    """
    return "lora_B" in name.split(".") or "lora_embedding_B" in name.split(".")
