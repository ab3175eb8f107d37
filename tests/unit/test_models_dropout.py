"""Dropout as captrain draws it on CPUs: the share, the mean, the gradient, the state of the generator, who gets it."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from captrain.models.layers.attention import Dropout, attend, drop, quicken_dropout


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_share_goes_and_the_mean_stays(share: float, kind: torch.dtype) -> None:
    """Zeros are as many as asked, within five deviations; what stays is enlarged."""
    count = 400_000
    dropped = drop(torch.ones(count, dtype=kind), share)
    gone = float((dropped == 0).double().mean())
    assert abs(gone - share) < 5 * (share * (1 - share) / count) ** 0.5
    assert float(dropped.double().max()) == pytest.approx(1 / (1 - share), rel=1e-4 if kind == torch.float32 else 4e-3)


def test_neighbours_do_not_go_together() -> None:
    """Four numbers share a draw; they are still independent."""
    gone = (drop(torch.ones(1_000_000), 0.5) == 0).double().view(-1, 4)
    assert (torch.corrcoef(gone.T) - torch.eye(4)).abs().max() < 0.01


def test_what_was_dropped_has_no_gradient() -> None:
    """The gradient is that of the same mask."""
    values = torch.randn(7, 13, requires_grad=True)
    dropped = drop(values, 0.4)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, torch.where(dropped == 0, 0.0, 1 / 0.6), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 3, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    """Counts that four does not divide, too."""
    assert drop(torch.ones(shape), 0.3).shape == shape


@pytest.mark.parametrize(("share", "left"), [(0.0, 5.0), (1.0, 0.0)])
def test_nothing_and_everything(share: float, left: float) -> None:
    """The ends of the range."""
    assert float(drop(torch.ones(5), share).sum()) == left


def test_the_generators_state_decides() -> None:
    """Who restores it, as an exact resume does, gets the same zeros; the next draw differs."""
    state = torch.get_rng_state()
    first, second = drop(torch.ones(1000), 0.3), drop(torch.ones(1000), 0.3)
    torch.set_rng_state(state)
    assert torch.equal(drop(torch.ones(1000), 0.3), first)
    assert not torch.equal(first, second)


def test_a_model_and_its_adapters_draw_by_it() -> None:
    """Every plain dropout is replaced, in LoRA's dictionaries too; the weights and their names stay."""
    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model = get_peft_model(GPT2LMHeadModel(config), LoraConfig(lora_dropout=0.1, target_modules=["c_attn"]))
    names = list(model.state_dict())
    quicken_dropout(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(found) >= 5
    assert all(type(module) is Dropout for module in found)
    assert list(model.state_dict()) == names


def test_nothing_is_dropped_in_evaluation() -> None:
    """As with torch's own."""
    values = torch.randn(10)
    assert Dropout(0.5).eval()(values) is values


def test_attention_drops_weights_of_the_same_mean() -> None:
    """Over many draws the mean is what attention gives without dropout."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 3, 4) for _ in range(3))

    def expanded(dropout: float) -> Tensor:
        rows = [tensor.expand(4000, -1, -1, -1) for tensor in (query, key, value)]
        return attend(*rows, dropout=dropout).mean(0)

    torch.testing.assert_close(expanded(0.2), expanded(0.0), rtol=0, atol=0.05)
