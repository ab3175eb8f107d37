"""What a prefix captioner is made of, as its `config.json` says it."""

from __future__ import annotations

from typing import Any, Literal

from transformers import PreTrainedConfig

from captrain.errors import ModelError
from captrain.models.loading import part_config

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
