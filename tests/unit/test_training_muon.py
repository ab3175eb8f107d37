"""Muon beside AdamW: who gets which weights, and that each does what it does alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from captrain.models.checkpoint.folder import load_captioner
from captrain.testing import TINY_CAPTIONERS
from captrain.training.optimization.muon import MATRICES, MuonWithAdamW, lists_of_vectors


def small() -> nn.Sequential:
    """A vocabulary, a layer, a norm and a head."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 7))


def learn(model: nn.Sequential, step: object) -> None:
    """One backward pass and a step."""
    model(torch.tensor([0, 3, 6])).pow(2).mean().backward()
    step()  # type: ignore[operator]
    model.zero_grad()


def test_each_half_steps_as_it_does_alone() -> None:
    """Three steps of the pair are three of torch's Muon on the matrices and three of its AdamW on the rest."""
    both, apart = small(), None
    apart = copy.deepcopy(both)
    pair = MuonWithAdamW(
        [{"params": list(both.parameters()), "lr": 0.01, "weight_decay": 0.1}], 0.01, (0.9, 0.98), [both[0].weight]
    )
    muon = torch.optim.Muon(
        [apart[1].weight, apart[3].weight], lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    rest = [weight for weight in apart.parameters() if weight.ndim == 1 or weight is apart[0].weight]
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1, betas=(0.9, 0.98), fused=True)
    for _ in range(3):
        learn(both, pair.step)
        learn(apart, lambda: (muon.step(), adamw.step()))
    for found, expected in zip(both.parameters(), apart.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_rates_of_the_groups_are_followed() -> None:
    """A schedule writes into the pair's groups; at a rate of 0 nothing moves."""
    model = small()
    before = copy.deepcopy(model.state_dict())
    pair = MuonWithAdamW([{"params": list(model.parameters()), "lr": 0.01}], 0.01, (0.9, 0.98), [model[0].weight])
    for group in pair.param_groups:
        group["lr"] = 0.0
    learn(model, pair.step)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("family", list(TINY_CAPTIONERS))
def test_vocabularies_and_heads_are_adamws(family: str, tmp_path: Path) -> None:
    """In every family: no matrix with a row a token is orthogonalised, and the attention's are."""
    captioner = load_captioner(str(TINY_CAPTIONERS[family](tmp_path / "tiny")))
    tokens = captioner.decoder.get_input_embeddings().weight.shape[0]
    groups = [{"params": [weight for weight in captioner.parameters() if weight.requires_grad]}]
    pair = MuonWithAdamW(groups, 0.01, (0.9, 0.98), lists_of_vectors(captioner))
    matrices = [weight for group in pair.param_groups if group[MATRICES] for weight in group["params"]]
    assert len(matrices) > 4
    assert all(weight.ndim == 2 and weight.shape[0] != tokens for weight in matrices)
