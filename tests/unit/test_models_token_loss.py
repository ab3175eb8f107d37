"""The loss of learned tokens against torch's own cross entropy, its gradient included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captrain.models.layers import packing
from captrain.models.layers.packing import token_loss


def drawn(tokens: int, vocabulary: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scores and targets."""
    generator = torch.Generator().manual_seed(tokens)
    scores = 5 * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64)
    return scores.to(kind).requires_grad_(), torch.randint(0, vocabulary, (tokens,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 300, 1 << 20])
def test_it_is_torchs_cross_entropy(
    smoothing: float, kind: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row, a few rows at a time, or all together."""
    monkeypatch.setattr(packing, "NUMBERS_AT_ONCE", at_once)
    scores, targets = drawn(37, 101, kind)
    plain = scores.detach().clone().requires_grad_()
    wide = plain if kind == torch.float64 else plain.float()
    expected = cross_entropy(wide, targets, label_smoothing=smoothing, reduction="sum")
    found = token_loss(scores, targets, smoothing)
    (expected / 7).backward()
    (found / 7).backward()
    assert found.dtype == wide.dtype
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scores.grad, plain.grad)


def test_its_gradient_is_the_derivative() -> None:
    """Held against differences."""
    scores, targets = drawn(5, 9, torch.float64)
    assert torch.autograd.gradcheck(lambda values: token_loss(values, targets, 0.1), (scores,))


def test_no_tokens_no_loss() -> None:
    """A row that only keeps a process busy has none to learn."""
    scores, targets = drawn(0, 9, torch.float32)
    token_loss(scores, targets, 0.1).backward()
    assert scores.grad is not None
    assert scores.grad.shape == (0, 9)


def test_huge_scores_stay_finite() -> None:
    """As in torch: the largest is taken off before anything is raised to a power."""
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    found = token_loss(scores, torch.tensor([1]))
    found.backward()
    assert float(found.detach()) == pytest.approx(2e4)
    assert torch.isfinite(scores.grad).all()
