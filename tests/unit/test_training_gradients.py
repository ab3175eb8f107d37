"""What should learn and gets no gradient is an error that names it; what learns in its own good time is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from captrain.errors import ModelError
from captrain.models.build import Mapper, NewDecoder, build_encoder_decoder, build_prefix
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.what_learns import checkpoint_activations, freeze
from captrain.testing import TINY_CAPTIONERS, clear_pictures, tiny_text_decoder, tiny_vision_encoder
from captrain.training.optimization.gradients import LONGEST_WAIT, GradientCheck, should_learn

SIZES = NewDecoder(1, 16, 2, 0.0, 100)
LORA: dict[str, dict[str, Any]] = {
    "language": {},
    "vision": {"parts": ("vision",)},
    "all-linear": {"parts": ("vision", "language"), "layers": ("all-linear",)},
    "dora": {"dora": True, "rslora": True},
    "pissa": {"start": "pissa"},
}


@pytest.fixture(params=list(TINY_CAPTIONERS))
def captioner(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders[request.param]))


@pytest.fixture
def blip(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["blip"]))


@pytest.fixture
def encoder_decoder(tiny_folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(tiny_folders["encoder-decoder"]))


def _backward(captioner: CaptionerModel) -> None:
    """A step's gradients, of one caption of one word."""
    captioner.train()
    captioner.zero_grad()
    rows = captioner.pack([[[6]], [[8]]]).to_dict()
    captioner(**rows, pixels=torch.from_numpy(clear_pictures(2, captioner.image_spec.height))).loss.backward()


def _check(captioner: CaptionerModel, **options: Any) -> GradientCheck:
    check = GradientCheck(**options)
    _backward(captioner)
    check(captioner)
    return check


@pytest.mark.parametrize("kind", LORA)
def test_no_adapter_of_any_family_is_taken_for_idle(kind: str, captioner: CaptionerModel) -> None:
    add_lora(captioner, LoraOptions(4, 8, 0.1, **LORA[kind]))
    assert _check(captioner).waiting == {}


@pytest.mark.parametrize("still", [(), ("vision",), ("vision", "language")])
@pytest.mark.parametrize("again", [False, True])
def test_no_part_of_any_family_is_taken_for_idle(
    still: tuple[str, ...], again: bool, captioner: CaptionerModel
) -> None:
    if not captioner.parts()["bridge"]:
        still = tuple(part for part in still if part != "language")
    freeze(captioner, still)
    if again:
        checkpoint_activations(captioner)
    assert _check(captioner).waiting == {}
    assert {name.split(":")[0] for name in should_learn(captioner)} == {
        part for part, members in captioner.parts().items() if members and part not in still
    }


@pytest.mark.parametrize("mapper", ["mlp", "transformer"])
@pytest.mark.parametrize("learning", ["lora", "full"])
def test_one_vector_an_image_is_enough(mapper: Any, learning: str, tmp_path: Path) -> None:
    """A query has nothing to choose from then and gets no gradient; the attention as a whole does."""
    encoder, decoder = tiny_vision_encoder(tmp_path / "vit"), tiny_text_decoder(tmp_path / "gpt2")
    parts = (str(encoder), str(decoder), SIZES, [])
    made = [build_encoder_decoder(*parts, vectors="pooled"), build_prefix(*parts, Mapper(mapper, 2, 2, 1, 2))]
    for captioner in made:
        if learning == "lora":
            add_lora(
                captioner,
                LoraOptions(4, 8, 0.0),
                fresh_modules=("crossattention", "ln_cross_attn", "enc_to_dec_proj", "mapper"),
            )
            assert any(name.endswith("new modules") for name in should_learn(captioner))
        else:
            freeze(captioner, ("vision",))
        assert _check(captioner).waiting == {}


DETACHED: dict[str, Callable[[Tensor], Tensor]] = {"detached": Tensor.detach, "times zero": lambda x: x * 0}


@pytest.mark.parametrize("how", DETACHED)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_part_that_is_cut_off_is_named(
    how: str, method: str, captioner: CaptionerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "full":
        freeze(captioner, ())
    else:
        add_lora(captioner, LoraOptions(4, 8, 0.0, parts=("vision", "language")))
    encode_image = captioner.encode_image
    monkeypatch.setattr(captioner, "encode_image", lambda pixels: DETACHED[how](encode_image(pixels)))
    with pytest.raises(ModelError, match=r"no gradient reaches the vision part \(\d+ weights, first ") as error:
        _check(captioner)
    assert how != "detached" or "language" not in str(error.value).split("it should learn")[0]
    assert ("none" if how == "detached" else "only zeros") in str(error.value)


def test_cross_attention_that_is_skipped_is_named(
    encoder_decoder: CaptionerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_lora(encoder_decoder, LoraOptions(4, 8, 0.0))
    attend = GPT2Attention.forward

    def cut_off(self: GPT2Attention, *args: Any, **kwargs: Any) -> Any:
        states, *rest = attend(self, *args, **kwargs)
        return (states.detach() if self.is_cross_attention else states, *rest)

    monkeypatch.setattr(GPT2Attention, "forward", cut_off)
    with pytest.raises(ModelError, match="no gradient reaches language: cross-attention"):
        _check(encoder_decoder)


def test_a_module_that_was_asked_for_by_name_is_named(
    encoder_decoder: CaptionerModel, caplog: pytest.LogCaptureFixture
) -> None:
    """The pooler of this encoder is not read by anybody."""
    names = ("encoder.pooler.dense", "c_attn")
    add_lora(encoder_decoder, LoraOptions(4, 8, 0.0, target_modules=names))
    with pytest.raises(ModelError, match=r"no gradient reaches .*target_modules: encoder\.pooler\.dense"):
        _check(encoder_decoder, target_modules=names)


def test_single_idle_adapters_are_told(encoder_decoder: CaptionerModel, caplog: pytest.LogCaptureFixture) -> None:
    add_lora(encoder_decoder, LoraOptions(4, 8, 0.0, parts=("vision",), layers=("all-linear",)))
    with caplog.at_level(logging.WARNING):
        _check(encoder_decoder)
    assert "1 of 13 adapters got no gradient in the first step and may never learn: encoder.pooler.dense" in caplog.text


def test_a_gate_that_learns_may_open_later(encoder_decoder: CaptionerModel) -> None:
    """Zero at first, the projection lets no gradient through; after its first step it does."""
    projection = encoder_decoder.core().enc_to_dec_proj
    torch.nn.init.zeros_(projection.weight)
    freeze(encoder_decoder, ())
    check = _check(encoder_decoder)
    assert check.waiting
    assert {name.split(":")[0] for name in check.waiting} == {"vision"}
    with torch.no_grad():
        projection.weight -= 0.1 * projection.weight.grad
    _backward(encoder_decoder)
    check(encoder_decoder)
    assert check.waiting == {}


def test_a_gate_that_stays_shut_is_no_excuse(encoder_decoder: CaptionerModel) -> None:
    projection = encoder_decoder.core().enc_to_dec_proj
    torch.nn.init.zeros_(projection.weight)
    freeze(encoder_decoder, ())
    check = _check(encoder_decoder)
    for _ in range(LONGEST_WAIT - 2):
        check(encoder_decoder)
    with pytest.raises(ModelError, match=f"in {LONGEST_WAIT} steps got only zeros"):
        check(encoder_decoder)
    freeze(encoder_decoder, ("bridge",))
    with pytest.raises(ModelError, match="no gradient reaches the vision part"):
        _check(encoder_decoder)


def test_nothing_is_looked_at_where_gradients_are_taken_away(blip: CaptionerModel) -> None:
    freeze(blip, ())
    GradientCheck(looks=False)(blip)
