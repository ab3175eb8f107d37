"""Encoder, mapper and language model as one transformers model, which the Auto classes know once this module is imported.

Shape letters: I images, N vectors of an image, D their width, P prefix vectors, L tokens, W width of the language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    CLIPVisionModelWithProjection,
    GenerationConfig,
    GenerationMixin,
    MetaClip2VisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import new_model
from captrain.models.families.prefix.mapper import PrefixConfig, begin, check_mapper, language_width, make_mapper
from captrain.models.layers.vision import pooled_vector, rows_of_vectors, see

PROJECTED = {
    "clip_vision_model": CLIPVisionModelWithProjection,
    "metaclip_2_vision_model": MetaClip2VisionModelWithProjection,
}
"""Image towers whose pooled vector is the projected one, which is compared with captions (`image_embeds`)."""


class PrefixModel(PreTrainedModel, GenerationMixin):
    """ClipCap: an image's vectors, mapped to a prefix, before the words of a language model.

    A causal language model reads the prefix as its first inputs, and its last vector predicts the first word. One with an
    encoder of its own (T5) reads it there.
    """

    config_class = PrefixConfig
    main_input_name = "pixel_values"
    base_model_prefix = "prefix"
    input_modalities = ("image",)
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(
        self, config: PrefixConfig, encoder: PreTrainedModel | None = None, language: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        self.encoder = encoder or _make_encoder(config)
        self.language = language or _make_language(config.language_config())
        self.language.generation_config = GenerationConfig()  # how captions are written is not the language model's say
        width = language_width(self.language.config)
        check_mapper(config, width)
        self.mapper = make_mapper(config, width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """First weights of the mapper; the other two know their own."""
        begin(module)

    def look(self, pixel_values: Tensor) -> Tensor:
        """The encoder's vectors (I, N, D) of normalised pixels (I, 3, height, width)."""
        return vectors_of(self.encoder, pixel_values, self.config.vectors)

    def prefix(self, vectors: Tensor) -> Tensor:
        """The prefix (I, P, W) of vectors (I, N, D). Raises `ModelError` when they are not of this model's encoder."""
        _check_vectors(self.config, vectors)
        vectors = vectors.float()
        return self.mapper(normalize(vectors, dim=-1) if self.config.normalize else vectors)

    def read_prefix(self, prefix: Tensor) -> Tensor:
        """What the words attend to (I, P, W): the prefix itself, or what the language model's own encoder makes of it."""
        if not self.language.config.is_encoder_decoder:
            return prefix
        return self.language.get_encoder()(inputs_embeds=prefix).last_hidden_state

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> ModelOutput:
        """Logits of tokens (I, L) behind the prefix of pictures: (I, P + L, V), or (I, L, V) from a decoder of its own."""
        context = self.read_prefix(self.prefix(self.look(pixel_values)))
        if self.language.config.is_encoder_decoder:
            return self.language(encoder_outputs=BaseModelOutput(context), decoder_input_ids=input_ids)
        words = self.language.get_input_embeddings()(input_ids)
        return self.language(inputs_embeds=torch.cat([context, words], 1))

    @torch.no_grad()
    def generate(self, pixel_values: Tensor, **options: Any) -> Tensor:
        """Token ids of captions; `options` are those of transformers' `generate`."""
        context = self.read_prefix(self.prefix(self.look(pixel_values)))
        options.setdefault("generation_config", self.generation_config)
        if self.language.config.is_encoder_decoder:
            return self.language.generate(encoder_outputs=BaseModelOutput(context), **options)
        seen = torch.ones(context.shape[:2], dtype=torch.int64, device=context.device)
        return self.language.generate(inputs_embeds=context, attention_mask=seen, **options)


AutoConfig.register(PrefixConfig.model_type, PrefixConfig)
AutoModel.register(PrefixConfig, PrefixModel)


def vectors_of(encoder: PreTrainedModel, pixels: Tensor, vectors: str) -> Tensor:
    """An encoder's vectors (I, N, D) of normalised pixels (I, 3, height, width): all of them, or N = 1 for the whole image."""
    output = see(encoder, pixels)
    if vectors == "all":
        return rows_of_vectors(output.last_hidden_state)
    projected = getattr(output, "image_embeds", None)
    return (pooled_vector(output) if projected is None else projected)[:, None]


def _make_encoder(config: PrefixConfig) -> PreTrainedModel:
    """An encoder without weights."""
    vision = config.vision_config()
    return PROJECTED[vision.model_type](vision) if config.projected else new_model(AutoModel, vision)


def _make_language(config: PreTrainedConfig) -> PreTrainedModel:
    """A language model without weights."""
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return new_model(kind, config)


def _check_vectors(config: PrefixConfig, vectors: Tensor) -> None:
    """Features kept for another encoder, or pictures of another size than the mapper has positions for."""
    if vectors.shape[-1] != config.feature_size:
        raise ModelError(
            f"features: found vectors of width {vectors.shape[-1]}, expected {config.feature_size} as this captioner's "
            "encoder gives; compute them with this captioner"
        )
    expected = {"pooled": 1, "all": config.projection_length if config.mapper_positions else vectors.shape[1]}
    if vectors.shape[1] != expected[config.vectors]:
        raise ModelError(
            f"features: found {vectors.shape[1]} vectors an image, expected {expected[config.vectors]}; "
            "use the image size that this captioner was made with"
        )
