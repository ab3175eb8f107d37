"""BLIP, base and large: a ViT and a BERT-like decoder that attends to its patch vectors.

The model is transformers' own, with attention computed by `attend` instead of matrix by matrix: transformers 5 has eager
attention only for BLIP. The subclasses below keep all names of weights and modules, and the class name, so that what is
saved is a plain `BlipForConditionalGeneration`.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor
from transformers import BlipConfig, Cache, EncoderDecoderCache, PreTrainedModel
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from captrain.models.contract import CaptionerModel
from captrain.models.decoding import GenerateInputs
from captrain.models.layers.attention import attend
from captrain.models.layers.vision import run_encoder


class FusedBlipVisionAttention(BlipAttention):
    """Self-attention of the ViT through `attend`."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        """Hidden states (I, N, D) -> the same, and no attention weights."""
        images, length, width = hidden_states.shape
        mixed = self.qkv(hidden_states).view(images, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        context = attend(query, key, value, dropout=dropout, scale=self.scale)
        return self.projection(context.transpose(1, 2).reshape(images, length, width)), None


class FusedBlipTextAttention(BlipTextSelfAttention):
    """Self- or cross-attention of the text decoder through `attend`; in cross-attention beams share an image's keys."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Hidden states (R, L, D) -> the same, and no attention weights."""
        query = self._heads(self.query(hidden_states))
        crossing = encoder_hidden_states is not None
        mask = encoder_attention_mask if crossing else attention_mask
        source = encoder_hidden_states if encoder_hidden_states is not None else hidden_states
        key, value = self._keys_and_values(source, crossing, past_key_values)
        context = attend(query, key, value, mask, self.dropout.p if self.training else 0.0)
        return context.transpose(1, 2).flatten(2), None

    def _keys_and_values(self, source: Tensor, crossing: bool, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Keys and values (rows, heads, N, width of a head), from the cache if it has them."""
        if isinstance(cache, EncoderDecoderCache):
            if crossing and cache.is_updated.get(self.layer_idx):
                layer = cache.cross_attention_cache.layers[self.layer_idx]
                return layer.keys, layer.values
            if crossing:
                cache.is_updated[self.layer_idx] = True
            cache = cache.cross_attention_cache if crossing else cache.self_attention_cache
        key, value = self._heads(self.key(source)), self._heads(self.value(source))
        return (key, value) if cache is None else cache.update(key, value, self.layer_idx)

    def _heads(self, states: Tensor) -> Tensor:
        """(R, L, D) -> (R, heads, L, width of a head)."""
        return states.view(*states.shape[:-1], -1, self.attention_head_size).transpose(1, 2)


class BlipForConditionalGeneration(transformers.BlipForConditionalGeneration):
    """transformers' BLIP captioner with fused attention. The name is the same, so `config.json` states it."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        for layer in self.vision_model.encoder.layers:
            layer.self_attn = FusedBlipVisionAttention(config.vision_config)
        for index, layer in enumerate(self.text_decoder.bert.encoder.layer):
            layer.attention.self = FusedBlipTextAttention(config.text_config, False, index)
            layer.crossattention.self = FusedBlipTextAttention(config.text_config, True, index)
        self.post_init()


class BlipCaptioner(CaptionerModel):
    """BLIP behind the contract. Loss and generation follow LAVIS: captions begin with [DEC], end with [SEP]."""

    family = "blip"

    @property
    def start_id(self) -> int:
        """[DEC], by the configuration: the tokenizer of the published checkpoints does not know it."""
        return int(self.core().config.text_config.bos_token_id)

    @property
    def end_id(self) -> int:
        """[SEP]."""
        return int(self.core().config.text_config.sep_token_id)

    @property
    def decoder(self) -> PreTrainedModel:
        """The BERT-like decoder."""
        return self.core().text_decoder

    @property
    def max_positions(self) -> int:
        """512 in the published checkpoints."""
        return int(self.core().config.text_config.max_position_embeddings)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """All vectors of the ViT, the class token's first."""
        return run_encoder(self.core().vision_model, pixels).last_hidden_state

    def project(self, features: Tensor) -> Tensor:
        """The features themselves: BLIP's cross-attention projects them, and there is no bridge."""
        return features

    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of the decoder's last layer."""
        return self.decoder.bert(
            input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            encoder_hidden_states=context,
            past_key_values=cache,
            use_cache=cache is not None,
            is_decoder=True,
        ).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """BERT's prediction head."""
        return self.decoder.cls(hidden)

    def plain_inputs(self) -> GenerateInputs:
        """BLIP's `generate` replaces the first token by the start token, and leaves the last one out."""
        start = [self.start_id, *self.prompt_ids()]
        return GenerateInputs("input_ids", [*start, self.end_id], len(start))

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """The cross-attention is in the decoder's layers: it belongs to `language`."""
        return {"vision": ("vision_model",), "bridge": (), "language": ("text_decoder",)}

    def lora_targets(self, part: str) -> str:
        """Attention (self and cross) and feed-forward layers, without the prediction head."""
        return {
            "vision": r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.fc[12])",
            "bridge": "",
            "language": r"text_decoder\.bert\.encoder\.layer\.\d+\."
            r"((cross)?attention\.(self\.(query|key|value)|output\.dense)|intermediate\.dense|output\.dense)",
        }[part]
