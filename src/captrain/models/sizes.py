"""Sizes that a checkpoint's files state, held against the weights that are there, before anything of such a size is built."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers.initialization import meta_device_safe_creation_ops, no_init_weights, no_tie_weights

from captrain.errors import ModelError
from captrain.models.weight_files import WeightFiles

COUNTS = re.compile(r"(layers?|depths?|blocks|stages|experts|heads?)$")
"""How the names of settings end that say how many modules are made."""
ALWAYS = 1000
"""Modules of a kind that may be made whatever the weights are."""
MOST_LABELS = 1_000_000
"""Classes, each of which gets a name; ImageNet's largest list has 21,843."""
SPARE = 50_000_000
"""Numbers that a model may have beyond those in its files: tables of positions, and parts that are new."""
TIMES = 4
"""How many times the numbers in its files a model may have: weights that are shared, or packed two to a byte."""


def check_counts(source: str, content: Any, weights: WeightFiles | None) -> None:
    """Raise `ModelError` where a configuration asks for more modules than its weights have tensors.

    >>> check_counts("model", {"text_config": {"num_hidden_layers": 12}}, None)
    """
    most = max(ALWAYS, (weights and weights.tensors) or 0)
    for name, value in settings_of(content):
        limit = MOST_LABELS if name == "num_labels" else most if COUNTS.search(name) else None
        if limit is None:
            continue
        parts = value if isinstance(value, list) else [value]
        count = sum(part for part in parts if isinstance(part, (int, float)) and not isinstance(part, bool))
        if max(count, len(parts)) > limit:
            raise ModelError(
                f"{source}: config.json states {name} {count:,}, but its weights have at most {limit:,} of it; "
                "copy or download it again"
            )


def check_built(source: str, kind: type[nn.Module], config: Any, weights: WeightFiles) -> None:
    """Raise `ModelError` where the model that a configuration describes has far more weights than its files.

    It is built without memory for its weights, which takes milliseconds.
    """
    contexts = (torch.device("meta"), meta_device_safe_creation_ops(), no_init_weights(), no_tie_weights())
    with contexts[0], contexts[1], contexts[2], contexts[3]:
        model = kind(deepcopy(config))
    tensors = {id(tensor): tensor.numel() for tensor in chain(model.parameters(), model.buffers())}
    numbers = sum(tensors.values())
    if numbers > TIMES * weights.numbers + SPARE:
        raise ModelError(
            f"{source}: its configuration describes a model of {numbers:,} weights, but its files hold {weights.numbers:,}; "
            "copy or download it again"
        )


def settings_of(content: Any) -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, those of its parts too: numbers, words, and lists.

    >>> list(settings_of({"a": 1, "vision": {"b": [2, 3]}}))
    [('a', 1), ('b', [2, 3])]
    """
    for part in parts_of(content):
        for name, value in part.items():
            if not isinstance(value, dict):
                yield str(name), value


def parts_of(content: Any) -> Iterator[dict[str, Any]]:
    """A configuration, and the configurations inside it; without recursion, so that depth costs nothing."""
    waiting: deque[Any] = deque([content])
    while waiting:
        part = waiting.popleft()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, Sequence) and not isinstance(part, str):
            waiting.extend(part)
