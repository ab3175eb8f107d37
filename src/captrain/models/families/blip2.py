"""BLIP-2: a large ViT, a Q-Former that asks it 32 learned questions, and a language model that reads the answers before words.

The model is transformers' own `Blip2ForConditionalGeneration`, with OPT (a decoder alone) or Flan-T5 (encoder and decoder) as
its language model. Captions are read and written as LAVIS does it (Li et al. 2023, lavis/models/blip2_models): behind the
answers OPT reads </s>, the prompt and the caption, which ends with a line break; T5's encoder reads the answers, the prompt
and </s>, and its decoder the caption.

Shape letters: R rows, L tokens of a row, N vectors of the ViT, D their width, P answers, W width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.captioner import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.families.prefix.captioner import (
    behind_prefix,
    room_for_words,
    scale_before_head,
    write_causal,
    write_seq2seq,
)
from captrain.models.layers.attention import share_features
from captrain.models.layers.vision import see

LANGUAGES = ("opt", "t5")
"""Kinds of language models that BLIP-2 was published with, and that packed rows were compared with."""


class Blip2Captioner(CaptionerModel):
    """BLIP-2 behind the contract. Kept features are the ViT's vectors, so that the Q-Former can learn from them."""

    family = "blip-2"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__(model, tokenizer, image_spec)
        _check_language(self.core(), tokenizer)
        if not self.has_encoder:
            self.image_positions = int(self.core().config.num_query_tokens)  # those of the answers
            share_features(self.decoder)

    @property
    def has_encoder(self) -> bool:
        """Whether the language model reads the answers through an encoder of its own, as T5 does."""
        return bool(self.decoder.config.is_encoder_decoder)

    @property
    def start_id(self) -> int:
        """OPT's </s>; T5's <pad>."""
        config = self.decoder.config
        return int(config.decoder_start_token_id if self.has_encoder else config.bos_token_id)

    @property
    def end_id(self) -> int:
        """What the language model's configuration says: a line break for the published OPTs, </s> for T5."""
        return int(self.decoder.config.eos_token_id)

    @property
    def decoder(self) -> PreTrainedModel:
        """The language model."""
        return self.core().language_model

    @property
    def max_positions(self) -> int:
        """2,016 for OPT, whose context of 2,048 the answers share."""
        return room_for_words(self.decoder.config, self.core().config.num_query_tokens + 1)

    def look(self, pixels: Tensor) -> Tensor:
        """All vectors of the ViT, the class vector first."""
        return see(self.core().vision_model, pixels).last_hidden_state

    def context(self, features: Tensor) -> Tensor:
        """The answers (R, P, W); for T5 what its encoder makes of them, the prompt and the end token (R, P + words, W)."""
        core = self.core()
        questions = core.query_tokens.expand(len(features), -1, -1)
        answers = core.qformer(query_embeds=questions, encoder_hidden_states=features).last_hidden_state
        prefix = core.language_projection(answers)
        if not self.has_encoder:
            return prefix
        words = self.decoder.get_input_embeddings()(torch.tensor([*self._prompt(), self.end_id], device=prefix.device))
        source = torch.cat([prefix, words.expand(len(prefix), -1, -1)], 1)
        return self.decoder.get_encoder()(inputs_embeds=source).last_hidden_state

    def read(self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of the language model's last layer, those of the answers left out."""
        if self.has_encoder:
            states = self.decoder.get_decoder()(
                input_ids=input_ids, attention_mask=mask, encoder_hidden_states=context, use_cache=False
            )
            return states.last_hidden_state * scale_before_head(self.decoder.config)
        answers = context.shape[1]
        before = torch.arange(answers, device=context.device).expand(len(context), -1)
        words = self.decoder.get_input_embeddings()(input_ids)
        states = self.decoder.base_model(
            inputs_embeds=torch.cat([context, words], 1),
            attention_mask=behind_prefix(mask, answers),
            position_ids=torch.cat([before, position_ids + answers], 1),
            use_cache=False,
        )
        return states.last_hidden_state[:, answers:]

    def head(self, hidden: Tensor) -> Tensor:
        """The language model's head."""
        return self.decoder.get_output_embeddings()(hidden)

    def write(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids written for each image."""
        prompt = [self.start_id, *self.prompt_ids()]
        write = write_seq2seq if self.has_encoder else write_causal
        return write(self.decoder, context, prompt, config)

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """How to write; the placeholder that stands for an image in transformers' inputs is no word of a caption."""
        config, placeholder = super().generation_config(decoding), self.core().config.image_token_index
        if placeholder is not None:
            config.suppress_tokens = [*(config.suppress_tokens or []), placeholder]
        return config

    def prompt_ids(self) -> list[int]:
        """Token ids that captions begin with: none for T5, which reads the prompt with the answers."""
        return [] if self.has_encoder else self._prompt()

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """Questions, Q-Former and projection are the bridge."""
        return {
            "vision": ("vision_model",),
            "bridge": ("query_tokens", "qformer", "language_projection"),
            "language": ("language_model",),
        }

    def lora_targets(self, part: str) -> str:
        """Attention and feed-forward layers; the head is left alone."""
        return {
            "vision": r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.fc[12])",
            "bridge": r"qformer\.encoder\.layer\.\d+\.((cross)?attention\.(attention\.(query|key|value)|output\.dense)|"
            r"(intermediate|output)_query\.dense)|language_projection",
            "language": r"language_model\.(model\.decoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|fc[12])|"
            r"(en|de)coder\.block\.\d+\.layer\.\d+\.((SelfAttention|EncDecAttention)\.[qkvo]|DenseReluDense\.w[io](_[01])?))",
        }[part]

    def _prompt(self) -> list[int]:
        """Token ids of the prompt, wherever it is read."""
        return super().prompt_ids()


def _check_language(core: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` unless language model and tokenizer are of a kind that BLIP-2 was published with, and fit."""
    config, name = core.language_model.config, core.config.name_or_path or "blip-2"
    if config.model_type not in LANGUAGES:
        raise ModelError(
            f"{name}: its language model is a '{config.model_type}'; expected one of {', '.join(LANGUAGES)}"
        )
    start = "decoder_start_token_id" if config.is_encoder_decoder else "bos_token_id"
    for key in (start, "eos_token_id"):
        if getattr(config, key) is None:
            raise ModelError(f"{name}: config.json says no {key} in its text_config; expected the number of a token")
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{name}: its tokenizer has {len(tokenizer)} entries, the language model only {config.vocab_size}; use its own"
        )
