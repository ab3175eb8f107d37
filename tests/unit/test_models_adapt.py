"""Which weights learn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from captrain.errors import ModelError
from captrain.models.adapt import add_lora, count_parameters, freeze, lower_frozen
from captrain.models.bundle import load_captioner
from captrain.models.captioner import PARTS, Captioner
from captrain.testing import clear_pictures, teach

BLIP_LAYER = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "crossattention.self.query", "crossattention.self.key", "crossattention.self.value", "crossattention.output.dense",
    "intermediate.dense", "output.dense",
)  # fmt: skip


@pytest.fixture
def blip(tiny_folders: dict[str, Path]) -> Captioner:
    return load_captioner(str(tiny_folders["blip"]))


@pytest.fixture
def joined(tiny_folders: dict[str, Path]) -> Captioner:
    return load_captioner(str(tiny_folders["encoder-decoder"]))


def _adapted(captioner: Captioner) -> set[str]:
    """Modules with an adapter."""
    return {name.removesuffix(".lora_A") for name, _ in captioner.core().named_modules() if name.endswith(".lora_A")}


def _learning(captioner: Captioner) -> list[str]:
    return [name for name, parameter in captioner.named_parameters() if parameter.requires_grad]


def test_blip_gets_adapters_on_attention_and_feed_forward_of_the_text_decoder(blip: Captioner) -> None:
    add_lora(blip, rank=4, alpha=8, dropout=0.0)
    prefix = "text_decoder.bert.encoder.layer"
    assert _adapted(blip) == {f"{prefix}.{layer}.{name}" for layer in (0, 1) for name in BLIP_LAYER}
    assert all("lora_" in name for name in _learning(blip))


def test_vision_part_gets_adapters_on_request(blip: Captioner) -> None:
    add_lora(blip, rank=4, alpha=8, dropout=0.0, parts=("vision",))
    names = ("self_attn.qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2")
    assert _adapted(blip) == {f"vision_model.encoder.layers.{layer}.{name}" for layer in (0, 1) for name in names}
    assert blip.vision_learns()


def test_encoder_decoder_gets_adapters_in_every_layer(joined: Captioner) -> None:
    add_lora(joined, rank=4, alpha=8, dropout=0.0, parts=("language", "bridge", "vision"))
    kinds = {re.sub(r"\d+", "N", name) for name in _adapted(joined)}
    assert "enc_to_dec_proj" in kinds
    assert {f"decoder.transformer.h.N.{name}" for name in ("attn.c_attn", "crossattention.q_attn", "mlp.c_fc")} <= kinds
    assert not any("lm_head" in kind or "wte" in kind for kind in kinds)


def test_chosen_target_modules_stand_instead_of_parts(blip: Captioner) -> None:
    add_lora(blip, rank=4, alpha=8, dropout=0.0, target_modules=("query", "qkv"))
    assert {name.rsplit(".", 1)[-1] for name in _adapted(blip)} == {"query", "qkv"}


def test_target_module_that_matches_nothing_lists_the_real_names(blip: Captioner) -> None:
    with pytest.raises(ModelError) as error:
        add_lora(blip, rank=4, alpha=8, dropout=0.0, target_modules=("query", "q_proj"))
    text = str(error.value)
    assert "'q_proj' matches no module" in text
    assert "attention.self.query" in text
    assert "self_attn.qkv" in text
    assert "\n" not in text
    with pytest.raises(ModelError, match="matches no module"):
        add_lora(blip, rank=4, alpha=8, dropout=0.0, target_modules=("uery",))


def test_part_without_layers_is_refused(blip: Captioner) -> None:
    with pytest.raises(ModelError, match="the part 'bridge' of a blip captioner has no layers"):
        add_lora(blip, rank=4, alpha=8, dropout=0.0, parts=("bridge",))


def test_adapters_begin_without_effect_and_then_learn(blip: Captioner) -> None:
    pixels = torch.from_numpy(clear_pictures(2))
    rows = blip.pack([[[6, 7]], [[8, 9, 10]]]).to_dict()
    before = blip(**rows, pixels=pixels).loss
    add_lora(blip.eval(), rank=4, alpha=8, dropout=0.0)
    torch.testing.assert_close(blip(**rows, pixels=pixels).loss, before)
    losses = teach(blip, steps=5, learning_rate=1e-2)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("parts", [("vision",), ("vision", "bridge"), ("language",), ()])
def test_frozen_parts_do_not_learn(joined: Captioner, parts: tuple[str, ...]) -> None:
    freeze(joined, parts)
    counts = count_parameters(joined)
    for part in PARTS:
        assert counts[part]["trainable"] == (0 if part in parts else counts[part]["total"])
        assert counts[part]["total"] > 0
    joined.train()
    for part in PARTS:
        training = [module.training for _, module in joined.part_modules(part)]
        assert all(training) != (part in parts)
        assert any(training) != (part in parts)
    assert joined.vision_learns() == ("vision" not in parts)


def test_freezing_changes_nothing_in_what_is_frozen(joined: Captioner) -> None:
    freeze(joined, ("vision",))
    before = {name: weight.clone() for name, weight in joined.named_parameters()}
    teach(joined, steps=2)
    changed = {name for name, weight in joined.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert not any(name.startswith("model.encoder.") for name in changed)


def test_freezing_everything_is_refused(joined: Captioner) -> None:
    with pytest.raises(ModelError, match="nothing would learn"):
        freeze(joined, PARTS)


def test_counts_of_an_adapter(blip: Captioner) -> None:
    total = sum(parameter.numel() for parameter in blip.parameters())
    add_lora(blip, rank=4, alpha=8, dropout=0.0)
    counts = count_parameters(blip)
    width, layers = 32, 2
    square, wide = 4 * 2 * width, 4 * (width + 2 * width)
    assert counts["language"]["trainable"] == layers * (8 * square + 2 * wide)
    assert counts["vision"]["trainable"] == counts["bridge"]["total"] == 0
    assert sum(count["total"] for count in counts.values()) == total + counts["language"]["trainable"]


def test_lowered_weights_give_nearly_the_same_loss(blip: Captioner) -> None:
    add_lora(blip, rank=4, alpha=8, dropout=0.0)
    blip.eval()
    blip.precision = torch.bfloat16
    pixels = torch.from_numpy(clear_pictures(2))
    rows = blip.pack([[[6, 7]], [[8, 9, 10]]]).to_dict()
    before = blip(**rows, pixels=pixels).loss
    lower_frozen(blip)
    kinds = {name: weight.dtype for name, weight in blip.named_parameters()}
    assert all(kind == torch.float32 for name, kind in kinds.items() if "lora_" in name or "norm" in name.lower())
    assert kinds["model.base_model.model.vision_model.encoder.layers.0.mlp.fc1.weight"] == torch.bfloat16
    lowered = blip(**rows, pixels=pixels).loss
    assert lowered.item() == pytest.approx(before.item(), rel=0.02)
    lowered.backward()
    assert all(weight.grad is not None for weight in blip.parameters() if weight.requires_grad)
