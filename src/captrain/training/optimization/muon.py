"""Muon for the matrices of layers, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from captrain.models.contract import CaptionerModel

MATRICES = "matrices"


class MuonWithAdamW(Optimizer):
    """Steps along the nearest orthogonal matrix of a matrix's momentum (Jordan et al. 2024), as large as AdamW's steps.

    Vocabularies, positions, biases and norms learn by AdamW, as Muon's authors advise. Both have the same learning rate:
    Muon's steps are scaled to AdamW's root mean square (Liu et al. 2025).

    Args:
        groups: parameters with their rate and weight decay. vectors: matrices that are lists of vectors, such as vocabularies.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], rate: float, betas: tuple[float, float], vectors: Iterable[nn.Parameter]
    ) -> None:
        apart = {id(weight) for weight in vectors}
        self.betas = betas
        super().__init__(_split(groups, apart), {"lr": rate, "weight_decay": 0.0})
        self._share()

    def _share(self) -> None:
        """Both halves work on this optimizer's own groups and state, so that changing or saving these is enough."""
        matrices = [group for group in self.param_groups if group[MATRICES]]
        others = [group for group in self.param_groups if not group[MATRICES]]
        halves: list[Optimizer] = []
        if matrices:
            halves.append(Muon(matrices, momentum=self.betas[0], adjust_lr_fn="match_rms_adamw"))
        if others:
            fused = all(weight.device.type in ("cpu", "cuda") for group in others for weight in group["params"])
            halves.append(AdamW(others, betas=self.betas, fused=fused))
        for half in halves:
            half.state = self.state
        self.halves = halves

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """A step of both optimizers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for half in self.halves:
            half.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share()


def _split(groups: Iterable[dict[str, Any]], apart: set[int]) -> list[dict[str, Any]]:
    """Each group split into its matrices and the rest, without empty groups."""
    split = []
    for group in groups:
        for matrices in (True, False):
            members = [
                weight for weight in group["params"] if (weight.ndim == 2 and id(weight) not in apart) is matrices
            ]
            if members:
                split.append({**group, "params": members, MATRICES: matrices})
    return split


def lists_of_vectors(captioner: CaptionerModel) -> list[nn.Parameter]:
    """Weights whose rows are independent vectors: vocabularies, positions, and the decoder's head."""
    tables = [cast(nn.Parameter, module.weight) for module in captioner.modules() if isinstance(module, nn.Embedding)]
    head = captioner.decoder.get_output_embeddings()
    return tables if head is None else [*tables, cast(nn.Parameter, head.weight)]
