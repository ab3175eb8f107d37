"""ClipCap's mappers: from an image's vectors to the prefix that a language model reads.

Architecture, first weights and names of weights are those of https://github.com/rmokady/CLIP_prefix_caption (train.py) and, for
all vectors of an encoder, of https://github.com/TheoCoombes/CLIP-Image-Captioning.

Shape letters: I images, N vectors of an image, D their width, C projected vectors, P prefix vectors,
W width of the language model.

What a prefix captioner is made of, as its `config.json` says it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from transformers import PreTrainedConfig
from transformers import initialization as init

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import part_config
from captrain.models.layers.attention import attend

MLP_RATIO = 2
"""Width of the feed-forward layers of a transformer mapper, in widths of the language model."""


class MlpMapper(nn.Module):
    """One vector through one hidden layer of half the prefix's size.

    >>> sum(weight.numel() for weight in MlpMapper(512, 768, 10).parameters())
    31468800
    """

    def __init__(self, feature_size: int, width: int, prefix_length: int) -> None:
        super().__init__()
        size = width * prefix_length
        self.model = nn.Sequential(nn.Linear(feature_size, size // 2), nn.Tanh(), nn.Linear(size // 2, size))
        self.prefix_length = prefix_length

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (I, 1, D) -> prefix (I, P, W)."""
        return self.model(vectors[:, 0]).unflatten(1, (self.prefix_length, -1))


class TransformerMapper(nn.Module):
    """Projected vectors and learned constants through a transformer; what becomes of the constants is the prefix.

    A pooled vector is projected to C vectors at once; of all vectors each is projected by itself (C = N).

    >>> config = PrefixConfig(mapper="transformer", feature_size=512, prefix_length=10, projection_length=10)
    >>> sum(weight.numel() for weight in TransformerMapper(config, 768).parameters())
    41745408
    """

    def __init__(self, config: PrefixConfig, width: int) -> None:
        super().__init__()
        self.pooled = config.vectors == "pooled"
        self.linear = nn.Linear(config.feature_size, width * (config.projection_length if self.pooled else 1))
        self.transformer = Transformer(width, config.mapper_heads, config.mapper_layers)
        self.prefix_const = nn.Parameter(torch.randn(config.prefix_length, width))
        placed = config.mapper_positions and not self.pooled
        self.pos_embeddings = nn.Parameter(torch.randn(config.projection_length, width)) if placed else None

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (I, N, D) -> prefix (I, P, W)."""
        width = self.prefix_const.shape[1]
        projected = self.linear(vectors)
        if self.pooled:
            projected = projected.view(len(vectors), -1, width)
        if self.pos_embeddings is not None:
            projected = projected + self.pos_embeddings
        constants = self.prefix_const.expand(len(vectors), -1, -1)
        return self.transformer(torch.cat([projected, constants], 1))[:, projected.shape[1] :]


class Transformer(nn.Module):
    """Layers one after another, without a norm at the end."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, states: Tensor) -> Tensor:
        """States (I, C + P, W) -> the same."""
        for layer in self.layers:
            states = layer(states)
        return states


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)

    def forward(self, states: Tensor) -> Tensor:
        """States (I, C + P, W) -> the same."""
        states = states + self.attn(self.norm1(states))
        return states + self.mlp(self.norm2(states))


class Attention(nn.Module):
    """Every vector attends to every vector; queries, keys and values without bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States (I, C + P, W) -> the same."""
        query = self.to_queries(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.to_keys_values(states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(attend(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States (I, C + P, W) -> the same."""
        return self.fc2(relu(self.fc1(states)))


def make_mapper(config: PrefixConfig, width: int) -> MlpMapper | TransformerMapper:
    """The mapper that a configuration asks for, before a language model of a width."""
    if config.mapper == "mlp":
        return MlpMapper(config.feature_size, width, config.prefix_length)
    return TransformerMapper(config, width)


def begin(module: nn.Module) -> None:
    """First weights of a mapper's module, as torch and ClipCap draw them; what was loaded already stays."""
    if isinstance(module, nn.Linear):
        init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        if module.bias is not None:
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, TransformerMapper):
        for constants in (module.prefix_const, module.pos_embeddings):
            if constants is not None:
                init.normal_(constants)


Vectors = Literal["all", "pooled"]
MapperKind = Literal["mlp", "transformer"]


class PrefixConfig(PreTrainedConfig):
    """An encoder, a mapper and a language model.

    Args:
        vision: the encoder's configuration. projected: whether it ends in the projection of a two-tower model (CLIP).
        vectors: what the mapper reads, `all` vectors of the encoder or the `pooled` one. feature_size: their width.
        normalize: whether vectors are scaled to length 1 first.
        mapper: `mlp` or `transformer`. prefix_length: vectors that the language model reads before words.
        projection_length: vectors that a transformer mapper reads beside its constants.
        mapper_layers, mapper_heads: of a transformer mapper. mapper_positions: whether `all` vectors get learned positions.
        language: the language model's configuration.
    """

    model_type = "captrain_prefix"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        feature_size: int = 0,
        vectors: Vectors = "pooled",
        projected: bool = False,
        normalize: bool = False,
        mapper: MapperKind = "mlp",
        prefix_length: int = 10,
        projection_length: int = 10,
        mapper_layers: int = 8,
        mapper_heads: int = 8,
        mapper_positions: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vision = vision or {}
        self.language = language or {}
        self.feature_size = feature_size
        self.vectors = vectors
        self.projected = projected
        self.normalize = normalize
        self.mapper = mapper
        self.prefix_length = prefix_length
        self.projection_length = projection_length
        self.mapper_layers = mapper_layers
        self.mapper_heads = mapper_heads
        self.mapper_positions = mapper_positions
        super().__init__(**{**kwargs, "tie_word_embeddings": False})  # a tied language model ties its own

    def vision_config(self) -> PreTrainedConfig:
        """The encoder's configuration as transformers' own object."""
        return part_config(self.vision)

    def language_config(self) -> PreTrainedConfig:
        """The language model's configuration as transformers' own object."""
        return part_config(self.language)


def language_width(config: PreTrainedConfig) -> int:
    """Width of the vectors that a language model reads; OPT-350m projects narrower ones itself.

    >>> from transformers import GPT2Config
    >>> language_width(GPT2Config())
    768
    """
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


def check_mapper(config: PrefixConfig, width: int) -> None:
    """Raise `ModelError` unless the mapper's settings fit each other and the language model's width."""
    if min(config.prefix_length, config.projection_length) < 1:
        raise ModelError(
            f"prefix_length {config.prefix_length}, projection_length {config.projection_length}: expected at least 1"
        )
    if config.mapper == "mlp" and config.vectors == "all":
        raise ModelError("mapper mlp reads one vector an image; use --image-vectors pooled, or --mapper transformer")
    if config.mapper == "transformer" and width % config.mapper_heads:
        raise ModelError(
            f"mapper_heads: {config.mapper_heads} heads do not divide the language model's width of {width}; "
            "choose a divisor of it"
        )
