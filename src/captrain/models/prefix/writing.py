"""Captions behind a prefix with `transformers.generate`, the prefix read once an image, however many beams there are.

Shape letters: I images, P prefix vectors, W width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from captrain.models.decoding import SharedFeaturesCache, until


def write_causal(
    language: PreTrainedModel, prefix: Tensor, prompt: list[int], config: GenerationConfig
) -> list[list[int]]:
    """Token ids written behind a prefix (I, P, W) and a prompt, without end and padding.

    Everything but the last vector goes through the model once an image; its keys and values are then repeated for the beams.
    """
    given = torch.tensor([prompt] * len(prefix), dtype=torch.int64, device=prefix.device)
    words = language.get_input_embeddings()(given)
    start = torch.cat([prefix.to(words.dtype), words], 1)
    cache = DynamicCache(config=language.config)
    if start.shape[1] > 1:
        language.base_model(inputs_embeds=start[:, :-1], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(config.num_beams)
    seen = torch.ones(start.shape[:2], dtype=torch.int64, device=prefix.device)
    written = language.generate(
        inputs_embeds=start, attention_mask=seen, past_key_values=cache, generation_config=config
    )
    return [until(row, config.eos_token_id) for row in written.tolist()]


def write_seq2seq(
    language: PreTrainedModel, context: Tensor, prompt: list[int], config: GenerationConfig
) -> list[list[int]]:
    """Token ids written from what the model's own encoder made of a prefix (I, P, W), without prompt, end and padding.

    Args:
        prompt: ids that every caption begins with, the start token first.
    """
    given = torch.tensor([prompt] * len(context), device=context.device)
    filled = EncoderDecoderCache(DynamicCache(), DynamicCache())
    language.get_decoder()(
        input_ids=given[:, :1], encoder_hidden_states=context, past_key_values=filled, use_cache=True
    )
    filled.cross_attention_cache.batch_repeat_interleave(config.num_beams)
    written = language.generate(
        encoder_outputs=BaseModelOutput(context),
        decoder_input_ids=given,
        past_key_values=SharedFeaturesCache(DynamicCache(), filled.cross_attention_cache),
        generation_config=config,
    )
    return [until(row, config.eos_token_id) for row in written[:, len(prompt) :].tolist()]
