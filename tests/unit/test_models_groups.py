"""Groups of weights: which rate each layer of the image half has, and what does not decay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ConvNextConfig, ConvNextModel, SwinConfig, SwinModel

from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.parts import plain_name
from captrain.training.optimization.optimizers import layer_powers, parameter_groups


@pytest.fixture
def blip(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["blip"]))


def rates_of(captioner: CaptionerModel, **options: float) -> dict[str, float]:
    groups = parameter_groups(captioner, 1.0, {"vision": 0.1}, 0.05, **options)
    by_weight = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    return {plain_name(name): by_weight[id(weight)] for name, weight in captioner.named_parameters()}


def test_each_layer_of_the_image_half_has_its_rate(blip: CaptionerModel) -> None:
    """LAVIS's rule: of n layers the last has the decay once, the first n times, the embedding n + 1 times."""
    rates = rates_of(blip, vision_layer_decay=0.5)
    powers = {"embeddings": 3, "encoder.layers.0": 2, "encoder.layers.1": 1, "post_layernorm": 1}
    for name, rate in rates.items():
        if name.startswith("vision_model."):
            power = next(power for prefix, power in powers.items() if name.startswith(f"vision_model.{prefix}"))
            assert rate == pytest.approx(0.1 * 0.5**power), name
        else:
            assert rate == 1.0, name


def test_adapters_decay_with_their_layer(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(4, 8, 0.0, parts=("vision", "language")))
    groups = parameter_groups(blip, 1.0, {}, 0.0, lora_plus=16, vision_layer_decay=0.5)
    found = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    for name, weight in blip.named_parameters():
        if weight.requires_grad:
            layer = 1 if "vision_model.encoder.layers.1" in name else 2
            expected = (0.5**layer if "vision_model" in name else 1.0) * (16 if "lora_B" in name else 1)
            assert found[id(weight)] == pytest.approx(expected), name


def test_every_learning_weight_is_in_one_group(blip: CaptionerModel) -> None:
    groups = parameter_groups(blip, 1.0, {}, 0.05, vision_layer_decay=0.9)
    members = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(members) == sorted(id(weight) for weight in blip.parameters())
    assert len({group["lr"] for group in groups}) == 4


def test_vectors_do_not_decay(blip: CaptionerModel) -> None:
    """Scales of layers (DINOv2's) are neither biases nor norms, and as little made to shrink."""
    blip.core().vision_model.post_layernorm.scale = torch.nn.Parameter(torch.ones(4))
    groups = parameter_groups(blip, 1.0, {}, 0.05)
    for group in groups:
        assert all((weight.ndim < 2) == (group["weight_decay"] == 0) for weight in group["params"])


def test_layers_of_stages_count_one_by_one() -> None:
    swin = SwinModel(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4)
    )
    convnext = ConvNextModel(ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 2], num_stages=2))
    for model in (swin, convnext):
        powers = layer_powers([name for name, _ in model.named_parameters()])
        assert max(powers.values()) >= 4 and min(powers.values()) == 1
        assert len({power for name, power in powers.items() if name.startswith("embeddings")}) == 1
        assert list(powers.values()) == sorted(powers.values(), reverse=True)
