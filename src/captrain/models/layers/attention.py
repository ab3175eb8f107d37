"""Scaled dot-product attention for every decoder, in which the beams of an image share its keys and values; and fast dropout.

Shape letters: I images, K beams or samples of an image, H heads, L queries, N keys, D width of a head.

Without Intel's library, torch draws dropout on a CPU number by number in one thread: with dropout 0.3 that took a third of a
small decoder's step. Here sixteen bits decide about each number, one draw serves four numbers, and all threads compare and
multiply.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

SHARED_ATTENTION = "captrain_shared"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Attention of queries (I*K, H, L, D) to keys and values (I, H, N, D) -> (I*K, H, L, D).

    With K > 1 the queries of all beams of an image become K*L queries of one row, so that the image's keys and values are
    neither copied nor computed again. A mask (I, 1, K*L, N) says what each beam attends to; any other mask is the same for all
    beams and hides nothing of the image, so it is left out.
    """
    rows, heads, length, width = query.shape
    images = key.shape[0]
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    learns_on_cpu = query.device.type == "cpu" and torch.is_grad_enabled()
    if images == rows and learns_on_cpu and (dropout or query.dtype == torch.bfloat16):
        return _attend_by_products(query, key, value, mask, dropout, scale, causal)
    if images == rows:
        return scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale=scale)
    beams = rows // images
    folded = (
        query.view(images, beams, heads, length, width).transpose(1, 2).reshape(images, heads, beams * length, width)
    )
    of_beams = mask if mask is not None and mask.shape[2] == beams * length else None
    context = scaled_dot_product_attention(folded, key, value, of_beams, dropout, scale=scale)
    return context.view(images, heads, beams, length, width).transpose(1, 2).reshape(rows, heads, length, width)


def _attend_by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scale: float | None,
    causal: bool,
) -> Tensor:
    """The same as single products, with softmax in fp32: on a CPU in bf16, its backward is 3 to 6 times faster than fused.

    Measured with torch 2.13 on AVX512-BF16, forward and backward at BLIP's size and below; see docs/dev-log.md. With dropout,
    torch has no fused kernel for CPUs. Queries are scaled instead of scores, and the mask is added in place: each pass over
    the scores that is left out is one less in the backward pass, too.
    """
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores += _added(mask, scores.dtype)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (drop(weights, dropout) if dropout else weights) @ value


def _added(mask: Tensor, kind: torch.dtype) -> Tensor:
    """A mask as it is added to scores: 0 where a boolean one is True, else minus infinity."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=kind, device=mask.device).masked_fill_(~mask, float("-inf"))


def _interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`attend` as transformers' attention interface calls it: returns the output (I*K, L, H, D), and no weights."""
    causal = bool(is_causal if is_causal is not None else getattr(module, "is_causal", True))
    causal = causal and attention_mask is None and query.shape[2] > 1
    context = attend(query, key, value, attention_mask, dropout, scaling, causal)
    return context.transpose(1, 2).contiguous(), None


def share_features(decoder: nn.Module) -> bool:
    """Make a transformers decoder use `attend`. False if its attention can't be chosen; then each beam copies the features."""
    if not getattr(decoder, "_supports_sdpa", False):
        return False
    AttentionInterface.register(SHARED_ATTENTION, _interface)
    AttentionMaskInterface.register(SHARED_ATTENTION, sdpa_mask)
    decoder.set_attn_implementation(SHARED_ATTENTION)  # type: ignore[operator]
    return True


def causal_caption_mask(caption_ids: Tensor) -> Tensor:
    """The causal mask of packed rows: a token attends to itself and to the tokens before it in its own caption.

    Args:
        caption_ids: (R rows, L tokens), the number of the caption that a token belongs to, 0 for padding.

    Returns:
        (R, 1, L, L) bool, True if the token of the row attends to the token of the column.

    >>> causal_caption_mask(torch.tensor([[1, 1, 2]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same = caption_ids[:, :, None] == caption_ids[:, None, :]
    length = caption_ids.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=caption_ids.device).tril()
    return (same & before)[:, None]


LEVELS = 1 << 16
"""The number of values of sixteen bits."""


def drop(values: Tensor, share: float) -> Tensor:
    """Dropout: a `share` of the values becomes zero, and the others grow so that the mean stays (Srivastava et al. 2014).

    On a CPU the share is rounded to 1/65536. The random numbers come from torch's generator, always as many for the same
    shape: if its state is restored, the same values become zero.

    >>> dropped = drop(torch.ones(100_000), 0.25)
    >>> sorted(set(dropped.tolist())), round(float(dropped.mean()), 1)
    ([0.0, 1.3333333730697632], 1.0)
    """
    threshold = round(share * LEVELS)
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < LEVELS:
        return nn.functional.dropout(values, share)
    count = values.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    kept = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(bits[:count].view(values.shape), threshold - LEVELS // 2, out=kept)
    return values * kept.mul_(LEVELS / (LEVELS - threshold))


class Dropout(nn.Dropout):
    """`nn.Dropout` that uses `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input; in training, a share of it is dropped."""
        return drop(input, self.p) if self.training and self.p else input


def quicken_dropout(model: nn.Module) -> None:
    """Make every plain `nn.Dropout` of a model use `drop`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
