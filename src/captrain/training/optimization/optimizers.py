"""The optimizer of a captioner's learning weights: torch's AdamW, others from their libraries.

Weights come in groups; each group has its learning rate and its weight decay.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers.optimization import Adafactor

from captrain.errors import SettingsError
from captrain.models.contract import CaptionerModel
from captrain.models.parts import PARTS, plain_name
from captrain.training.optimization.muon import MuonWithAdamW, lists_of_vectors

Groups = list[dict[str, Any]]
Betas = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OptimizerKind:
    """What captrain knows of an optimizer.

    Attributes:
        make: makes the optimizer from a captioner, groups of its weights, the rate and the betas.
        library: the library that it needs.
        devices: kinds of devices that it runs on.
    """

    make: Callable[[CaptionerModel, Groups, float, Betas], Optimizer]
    library: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda", "mps", "xpu")


def _adamw(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Loshchilov and Hutter 2019, with one kernel for all weights where torch has it."""
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=captioner.device.type in ("cpu", "cuda"))


def _muon(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Jordan et al. 2024: matrices of layers take orthogonal steps, all else is AdamW's. Fewer epochs from scratch."""
    return MuonWithAdamW(groups, rate, betas, lists_of_vectors(captioner))


def _adamw_8bit(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """AdamW with its two moments in 8 bits (Dettmers et al. 2022): a quarter of the memory. Small weights keep 32 bits."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, lr=rate, betas=betas)


def _adafactor(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Shazeer and Stern 2018, with the given rate: it remembers a row and a column per matrix, and no momentum."""
    return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)


def _lion(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Chen et al. 2023: the sign of the momentum as a step, half of AdamW's memory."""
    from lion_pytorch import Lion

    return Lion(groups, lr=rate, betas=betas)


def _schedule_free(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Defazio et al. 2024: the mean of all weights so far is validated and saved."""
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, lr=rate, betas=betas)


def _prodigy(captioner: CaptionerModel, groups: Groups, rate: float, betas: Betas) -> Optimizer:
    """Mishchenko and Defazio 2023: finds the rate itself; the given rate multiplies it. Safe with a warm-up."""
    from prodigyopt import Prodigy

    return Prodigy(groups, lr=rate, betas=betas, safeguard_warmup=True)


KINDS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(_adamw),
    "muon": OptimizerKind(_muon),
    "adamw-8bit": OptimizerKind(_adamw_8bit, "bitsandbytes", devices=("cpu", "cuda", "xpu")),
    "adafactor": OptimizerKind(_adafactor),
    "lion": OptimizerKind(_lion, "lion_pytorch"),
    "schedule-free": OptimizerKind(_schedule_free, "schedulefree"),
    "prodigy": OptimizerKind(_prodigy, "prodigyopt"),
}


def check_optimizer(name: str, device: torch.device) -> None:
    """Raise `SettingsError` if an optimizer is not installed, or does not run on the device."""
    kind = KINDS[name]
    if kind.library and importlib.util.find_spec(kind.library) is None:
        raise SettingsError(f"optimizer {name}: needs {kind.library}, which is missing; pip install 'captrain[optim]'")
    if device.type not in kind.devices:
        raise SettingsError(
            f"optimizer {name}: runs on {', '.join(kind.devices)}, found {device.type}; choose another optimizer or --device"
        )


@dataclass(frozen=True, slots=True)
class Optimization:
    """How weights learn.

    Attributes:
        optimizer: its name, one of `KINDS`.
        learning_rate: the peak rate of parts that are not in `part_rates`.
        betas: the decay of the averages of gradients and of squared gradients.
        weight_decay: of matrices; biases, norms and other vectors have none.
        lora_plus, vision_layer_decay: as `parameter_groups` takes them.
    """

    optimizer: str
    learning_rate: float
    betas: Betas
    weight_decay: float = 0.0
    part_rates: Mapping[str, float] = field(default_factory=dict)
    lora_plus: float = 1.0
    vision_layer_decay: float = 1.0


def make_optimizer(captioner: CaptionerModel, how: Optimization) -> Optimizer:
    """The optimizer, with a group for each part and kind of weight."""
    groups = parameter_groups(
        captioner, how.learning_rate, how.part_rates, how.weight_decay, how.lora_plus, how.vision_layer_decay
    )
    return KINDS[how.optimizer].make(captioner, groups, how.learning_rate, how.betas)


def averaged_weights(optimizer: Optimizer | None) -> None:
    """Switch to the weights that are validated and saved. Only schedule-free trains other weights than these.

    `Trainer` switches back before the next step.
    """
    if callable(switch := getattr(optimizer, "eval", None)):
        switch()


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.RMSNorm)

LAYER = re.compile(r"(?<![^.])(?:layers?|blocks?|stages?|h|resblocks)\.(\d+)\.")
DEEPEST = 2  # a layer's name has at most a stage and a number; anything numbered inside a layer belongs to it


@dataclass(frozen=True, order=True)
class _Key:
    """What the weights of one group have in common. Groups are sorted by it."""

    part: int
    layer: int
    spared: bool
    faster: bool


def parameter_groups(
    captioner: CaptionerModel,
    learning_rate: float,
    part_rates: Mapping[str, float],
    weight_decay: float,
    lora_plus: float = 1.0,
    vision_layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Learning parameters as groups: by part, by layer of the image half, by whether they decay, LoRA's B apart from its A.

    Args:
        learning_rate: of parts that are not in `part_rates`. weight_decay: of all weights except biases, norms and other vectors.
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
    """The power of the decay for each weight of an image encoder, from the names in model order.

    The last layer has 1, and so has everything after it; everything before the first layer has one more than that layer.

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
