"""Any vision encoder of transformers as a row of vectors an image.

Encoders differ in what they return: vectors (I, N, D), or a grid (I, D, height, width); some have a pooled vector, some
don't; some are the half of a two-tower model. `VisionVectors` levels that, as a model of its own that the Auto classes know,
so that it can be the encoder of a plain `VisionEncoderDecoderModel`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from captrain.errors import ModelError


class VisionVectorsConfig(PreTrainedConfig):
    """Which encoder, and whether all its vectors or the pooled one."""

    model_type = "captrain_vision_vectors"

    def __init__(self, vision: dict[str, Any] | None = None, vectors: str = "all", hidden_size: int = 0, **kwargs: Any):
        self.vision = vision or {}
        self.vectors = vectors
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


class VisionVectors(PreTrainedModel):
    """An encoder whose output is always (I, N, D): a grid row by row, or N = 1 pooled vector."""

    config_class = VisionVectorsConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vision_vectors"

    def __init__(self, config: VisionVectorsConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        settings = dict(config.vision)
        self.encoder = encoder or AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing here has weights of its own."""

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Normalised pixels (I, 3, height, width) -> vectors (I, N, D)."""
        output = self.encoder(pixel_values=pixel_values)
        pooled = self.config.vectors == "pooled"
        return BaseModelOutput(
            last_hidden_state=pooled_vector(output)[:, None] if pooled else rows_of_vectors(output[0])
        )


AutoConfig.register(VisionVectorsConfig.model_type, VisionVectorsConfig)
AutoModel.register(VisionVectorsConfig, VisionVectors)


def rows_of_vectors(states: Tensor) -> Tensor:
    """A grid (I, D, height, width) as (I, height * width, D), row by row; vectors (I, N, D) as they are.

    >>> rows_of_vectors(torch.zeros(1, 768, 7, 7)).shape
    torch.Size([1, 49, 768])
    """
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def load_encoder(source: str, vectors: str, height: int, width: int) -> PreTrainedModel:
    """A vision encoder from a folder or hub id, ready to be joined with a text decoder.

    Of a two-tower checkpoint (CLIP, SigLIP, BLIP) only the image tower is loaded. What already returns (I, N, D) and says its
    width stays as it is, so that the joined model needs nothing but transformers; everything else is wrapped.

    Args:
        vectors: `all`, or `pooled` for the one vector that stands for the whole image.
        height, width: of the pictures that it will see; it is run on one to find what it returns.
    """
    config = AutoConfig.from_pretrained(source)
    config = getattr(config, "vision_config", config)
    if type(config) not in MODEL_MAPPING:
        raise ModelError(
            f"{source}: '{config.model_type}' is no encoder that transformers can load; expected a vision model"
        )
    encoder = MODEL_MAPPING[type(config)].from_pretrained(source, dtype=torch.float32)
    if getattr(encoder, "main_input_name", "") != "pixel_values":
        raise ModelError(
            f"{source}: a '{config.model_type}' reads {encoder.main_input_name}, not pictures; expected a vision encoder"
        )
    with torch.no_grad():
        output = encoder.eval()(pixel_values=torch.zeros(1, 3, height, width))
    states = output.last_hidden_state
    if vectors == "all" and states.dim() == 3 and getattr(encoder.config, "hidden_size", None) == states.shape[-1]:
        return encoder
    size = pooled_vector(output).shape[-1] if vectors == "pooled" else rows_of_vectors(states).shape[-1]
    return VisionVectors(VisionVectorsConfig(encoder.config.to_dict(), vectors, size), encoder)


def pooled_vector(output: ModelOutput) -> Tensor:
    """The vector (I, D) that stands for the image: what the encoder pools, else the mean of its vectors."""
    pooled = getattr(output, "pooler_output", None)
    return rows_of_vectors(output.last_hidden_state).mean(1) if pooled is None else pooled.flatten(1)
