"""Which weights learn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MobileNetV1Config, MobileNetV1Model
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, SettingsError
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.lora import STARTS, LoraOptions, add_lora, lora_modules
from captrain.models.parts import PARTS, plain_name
from captrain.models.what_learns import checkpoint_activations, count_parameters, freeze, lower_frozen, quantization
from captrain.testing import TINY_CAPTIONERS, clear_pictures, teach
from captrain.training.optimization.optimizers import parameter_groups

BLIP_LAYER = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "crossattention.self.query", "crossattention.self.key", "crossattention.self.value", "crossattention.output.dense",
    "intermediate.dense", "output.dense",
)  # fmt: skip


@pytest.fixture
def blip(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["blip"]))


@pytest.fixture
def joined(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["encoder-decoder"]))


@pytest.fixture(params=list(TINY_CAPTIONERS))
def family_captioner(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders[request.param]))


def _adapted(captioner: CaptionerModel) -> set[str]:
    """Modules with an adapter."""
    return {name.removesuffix(".lora_A") for name, _ in captioner.core().named_modules() if name.endswith(".lora_A")}


def _learning(captioner: CaptionerModel) -> list[str]:
    return [name for name, parameter in captioner.named_parameters() if parameter.requires_grad]


def test_blip_gets_adapters_on_attention_and_feed_forward_of_the_text_decoder(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0))
    prefix = "text_decoder.bert.encoder.layer"
    assert _adapted(blip) == {f"{prefix}.{layer}.{name}" for layer in (0, 1) for name in BLIP_LAYER}
    assert all("lora_" in name for name in _learning(blip))


def test_vision_part_gets_adapters_on_request(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, parts=("vision",)))
    names = ("self_attn.qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2")
    assert _adapted(blip) == {f"vision_model.encoder.layers.{layer}.{name}" for layer in (0, 1) for name in names}
    assert blip.vision_learns()


def test_encoder_decoder_gets_adapters_in_every_layer(joined: CaptionerModel) -> None:
    add_lora(joined, LoraOptions(rank=4, alpha=8, dropout=0.0, parts=("language", "bridge", "vision")))
    kinds = {re.sub(r"\d+", "N", name) for name in _adapted(joined)}
    assert "enc_to_dec_proj" in kinds
    assert {f"decoder.transformer.h.N.{name}" for name in ("attn.c_attn", "crossattention.q_attn", "mlp.c_fc")} <= kinds
    assert not any("lm_head" in kind or "wte" in kind for kind in kinds)


def test_chosen_target_modules_stand_instead_of_parts(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, target_modules=("query", "qkv")))
    assert {name.rsplit(".", 1)[-1] for name in _adapted(blip)} == {"query", "qkv"}


def test_target_module_that_matches_nothing_lists_the_real_names(blip: CaptionerModel) -> None:
    with pytest.raises(ModelError) as error:
        add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, target_modules=("query", "q_proj")))
    text = str(error.value)
    assert "'q_proj' matches no module" in text
    assert "attention.self.query" in text
    assert "self_attn.qkv" in text
    assert "\n" not in text
    with pytest.raises(ModelError, match="matches no module"):
        add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, target_modules=("uery",)))


def test_part_without_layers_is_refused(blip: CaptionerModel) -> None:
    with pytest.raises(ModelError, match="the part 'bridge' of a blip captioner has no layers"):
        add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, parts=("bridge",)))


def test_adapters_begin_without_effect_and_then_learn(blip: CaptionerModel) -> None:
    pixels = torch.from_numpy(clear_pictures(2))
    rows = blip.pack([[[6, 7]], [[8, 9, 10]]]).to_dict()
    before = blip(**rows, pixels=pixels).loss
    add_lora(blip.eval(), LoraOptions(rank=4, alpha=8, dropout=0.0))
    torch.testing.assert_close(blip(**rows, pixels=pixels).loss, before)
    losses = teach(blip, steps=5, learning_rate=1e-2)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("parts", [("vision",), ("vision", "bridge"), ("language",), ()])
def test_frozen_parts_do_not_learn(joined: CaptionerModel, parts: tuple[str, ...]) -> None:
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


def test_freezing_changes_nothing_in_what_is_frozen(joined: CaptionerModel) -> None:
    freeze(joined, ("vision",))
    before = {name: weight.clone() for name, weight in joined.named_parameters()}
    teach(joined, steps=2)
    changed = {name for name, weight in joined.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert not any(name.startswith("model.encoder.") for name in changed)


def test_freezing_everything_is_refused(joined: CaptionerModel) -> None:
    with pytest.raises(ModelError, match="nothing would learn"):
        freeze(joined, PARTS)


def test_counts_of_an_adapter(blip: CaptionerModel) -> None:
    total = sum(parameter.numel() for parameter in blip.parameters())
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0))
    counts = count_parameters(blip)
    width, layers = 32, 2
    square, wide = 4 * 2 * width, 4 * (width + 2 * width)
    assert counts["language"]["trainable"] == layers * (8 * square + 2 * wide)
    assert counts["vision"]["trainable"] == counts["bridge"]["total"] == 0
    assert sum(count["total"] for count in counts.values()) == total + counts["language"]["trainable"]


def test_lowered_weights_give_nearly_the_same_loss(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0))
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


# LoRA in depth.


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (("attention",), {name for name in BLIP_LAYER if "attention" in name}),
        (("feed-forward",), {"intermediate.dense", "output.dense"}),
        (("attention", "feed-forward"), set(BLIP_LAYER)),
    ],
)
def test_kinds_of_layers_of_blip(layers: tuple[str, ...], kept: set[str], blip: CaptionerModel) -> None:
    names = lora_modules(blip, ("language",), layers)
    assert {re.sub(r".*layer\.\d+\.", "", name) for name in names} == kept
    vision = {re.sub(r".*layers\.\d+\.", "", name) for name in lora_modules(blip, ("vision",), layers)}
    expected = {"attention": {"self_attn.qkv", "self_attn.projection"}, "feed-forward": {"mlp.fc1", "mlp.fc2"}}
    assert vision == set().union(*(expected[layer] for layer in layers))


@pytest.mark.parametrize("part", ["vision", "language"])
def test_attention_and_feed_forward_are_halves_of_every_family(part: str, family_captioner: CaptionerModel) -> None:
    attention = lora_modules(family_captioner, (part,), ("attention",))
    feed_forward = lora_modules(family_captioner, (part,), ("feed-forward",))
    both = lora_modules(family_captioner, (part,))
    assert attention
    assert feed_forward
    assert not set(attention) & set(feed_forward)
    assert sorted(attention + feed_forward) == sorted(both)
    assert not any("mlp" in name or "intermediate" in name or "fc" in name for name in attention)
    assert not any(".attn." in name or "query" in name or "qkv" in name for name in feed_forward)


def test_all_linear_takes_every_matrix_but_the_vocabulary(family_captioner: CaptionerModel) -> None:
    parts = [part for part in PARTS if family_captioner.parts()[part]]
    names = set(lora_modules(family_captioner, parts, ("all-linear",)))
    matrices = {
        plain_name(name)
        for name, module in family_captioner.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
        and module is not family_captioner.decoder.get_output_embeddings()
    }
    assert names == matrices
    assert names > set(lora_modules(family_captioner, parts[:1]))


def test_kinds_that_a_part_lacks_are_refused(joined: CaptionerModel, blip: CaptionerModel) -> None:
    with pytest.raises(ModelError, match=r"'bridge' of a encoder-decoder captioner has no layers.*\(attention\)"):
        add_lora(joined, LoraOptions(4, 8, 0.0, parts=("language", "bridge"), layers=("attention",)))
    with pytest.raises(ModelError, match="'bridge' of a blip captioner has no layers"):
        add_lora(blip, LoraOptions(4, 8, 0.0, parts=("bridge",), layers=("all-linear",)))


def test_fresh_modules_learn_whole_and_get_no_adapters(joined: CaptionerModel) -> None:
    add_lora(joined, LoraOptions(4, 8, 0.0), fresh_modules=("crossattention", "enc_to_dec_proj", "not.there"))
    assert not any("crossattention" in name for name in _adapted(joined))
    whole = {name for name in _learning(joined) if "lora_" not in name}
    assert any("crossattention" in name for name in whole)
    assert any("enc_to_dec_proj" in name for name in whole)
    assert all("crossattention" in name or "enc_to_dec_proj" in name for name in whole)


def test_scale_of_plain_and_rank_stabilised_adapters(blip: CaptionerModel, joined: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(rank=16, alpha=32, dropout=0.0))
    add_lora(joined, LoraOptions(rank=16, alpha=32, dropout=0.0, rslora=True))
    assert _scales(blip) == {2.0}
    assert _scales(joined) == {8.0}


def _scales(captioner: CaptionerModel) -> set[float]:
    return {module.scaling["default"] for module in captioner.modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize(
    "options", [{"dora": True}, {"dora": True, "rslora": True}, *({"start": name} for name in STARTS)]
)
def test_every_kind_of_adapter_begins_without_effect_and_learns(options: dict[str, Any], blip: CaptionerModel) -> None:
    pixels = torch.from_numpy(clear_pictures(2))
    rows = blip.eval().pack([[[6, 7]], [[8, 9, 10]]]).to_dict()
    before = blip(**rows, pixels=pixels).logits
    add_lora(blip, LoraOptions(rank=4, alpha=8, dropout=0.0, **options))
    torch.testing.assert_close(blip.eval()(**rows, pixels=pixels).logits, before, rtol=1e-4, atol=1e-4)
    losses = teach(blip, steps=4, learning_rate=3e-3)
    assert losses[-1] < losses[0]
    blip.precision = torch.bfloat16
    lower_frozen(blip)
    lowered = blip(**rows, pixels=pixels).loss
    lowered.backward()
    assert torch.isfinite(lowered)


def test_gpt2_takes_pissa_and_refuses_olora(joined: CaptionerModel) -> None:
    with pytest.raises(ModelError, match=r"olora: peft can't do it for decoder\.transformer"):
        add_lora(joined, LoraOptions(4, 8, 0.0, start="olora"))
    pixels = torch.from_numpy(clear_pictures(1))
    rows = joined.eval().pack([[[6, 7]]]).to_dict()
    before = joined(**rows, pixels=pixels).logits
    add_lora(joined, LoraOptions(4, 8, 0.0, start="pissa"))
    torch.testing.assert_close(joined.eval()(**rows, pixels=pixels).logits, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("start", "rank", "message"),
    [
        ("eva", 4, "'eva' is not offered, as it needs a pass over training data"),
        ("corda", 4, "needs a pass over training data"),
        ("loftq", 4, "quantised"),
        ("pissa_niter_16", 4, "drawn again"),
        ("gausian", 4, "Did you mean 'gaussian'"),
        ("orthogonal", 3, "needs an even rank, found 3"),
        ("pissa", 33, r"rank 33 is larger than the rank of .* \(32\)"),
    ],
)
def test_beginnings_that_can_not_be_are_refused(start: str, rank: int, message: str, blip: CaptionerModel) -> None:
    with pytest.raises(ModelError, match=message) as error:
        add_lora(blip, LoraOptions(rank, 8, 0.0, start=start))
    assert "\n" not in str(error.value)
    assert not hasattr(blip.model, "peft_config")


def test_quantised_weights_are_not_lowered(blip: CaptionerModel) -> None:
    layer = blip.core().text_decoder.bert.encoder.layer[0].intermediate.dense
    layer.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    blip.requires_grad_(False)
    lower_frozen(blip)
    assert layer.weight.dtype == torch.uint8
    assert layer.bias.dtype == torch.bfloat16


def test_groups_hold_every_learning_weight_once(blip: CaptionerModel) -> None:
    add_lora(blip, LoraOptions(4, 8, 0.0, parts=("vision", "language"), dora=True))
    groups = parameter_groups(blip, 1e-3, {"vision": 1e-4}, 0.1, lora_plus=16)
    members = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(members) == sorted(id(weight) for weight in blip.parameters() if weight.requires_grad)
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    for name, weight in blip.named_parameters():
        if weight.requires_grad:
            base = 1e-4 if "vision_model" in name else 1e-3
            assert rates[id(weight)] == pytest.approx(base * (16 if "lora_B" in name else 1)), name


def test_groups_without_lora_plus_spare_biases_and_norms_from_decay(blip: CaptionerModel) -> None:
    groups = parameter_groups(blip, 1e-3, {}, 0.1)
    assert [group["lr"] for group in groups] == [1e-3] * 4
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    names = {id(weight): name for name, weight in blip.named_parameters()}
    spared = [names[id(weight)] for group in groups if not group["weight_decay"] for weight in group["params"]]
    assert all(name.endswith("bias") or "norm" in name.lower() for name in spared)


# Little memory.


@pytest.mark.parametrize("parts", [("language",), ("language", "vision")])
def test_activations_computed_again_change_nothing(parts: tuple[str, ...], family_captioner: CaptionerModel) -> None:
    add_lora(family_captioner, LoraOptions(4, 8, dropout=0.2, parts=parts))
    pixels = torch.from_numpy(clear_pictures(2, family_captioner.image_spec.height))
    rows = family_captioner.pack([[[6, 7], [8]], [[8, 9, 10], [7, 6]]]).to_dict()  # packed: two captions a row
    plain = _loss_and_gradients(family_captioner, rows, pixels)
    checkpoint_activations(family_captioner)
    calls = _count_layer_calls(family_captioner)
    again = _loss_and_gradients(family_captioner, rows, pixels)
    assert again[0] == plain[0]
    assert plain[1].keys() == again[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(again[1][name], gradient, msg=name)
    assert set(calls.values()) == {2}, "some layers were not computed a second time"
    family_captioner.eval()
    assert len(family_captioner.generate(family_captioner.encode(pixels))) == 2


def _loss_and_gradients(
    captioner: CaptionerModel, rows: dict[str, torch.Tensor], pixels: torch.Tensor
) -> tuple[float, dict[str, torch.Tensor]]:
    captioner.train()
    captioner.zero_grad()
    torch.manual_seed(7)
    loss = captioner(**rows, pixels=pixels).loss
    loss.backward()
    return loss.item(), {name: w.grad.clone() for name, w in captioner.named_parameters() if w.grad is not None}


def _count_layer_calls(captioner: CaptionerModel) -> dict[str, int]:
    """Counts how often each adapter's A is computed."""
    calls: dict[str, int] = {}

    def counting(name: str) -> Any:
        def count(*_: Any) -> None:
            calls[name] = calls.get(name, 0) + 1

        return count

    for name, module in captioner.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(counting(name))
    return calls


def test_half_that_can_not_compute_again_is_refused_where_it_learns(joined: CaptionerModel) -> None:
    joined.core().encoder = MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25, min_depth=8))
    freeze(joined, ("vision",))
    checkpoint_activations(joined)
    freeze(joined, ())
    with pytest.raises(ModelError, match="checkpoint_activations: MobileNetV1Model stores its activations"):
        checkpoint_activations(joined)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_quantisation_says_what_it_lacks(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=f"quantize {kind}: needs a GPU") as error:
        quantization(kind, torch.device("cpu"))
    assert "\n" not in str(error.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'captrain\[quant\]'"):
        quantization(kind, torch.device("cuda"))
