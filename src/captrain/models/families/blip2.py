"""BLIP-2: a large ViT, a Q-Former whose 32 learned queries attend to it, and a language model that reads their outputs first.

The model is transformers' own `Blip2ForConditionalGeneration`, with OPT (a decoder) or Flan-T5 (encoder and decoder) as its
language model. Inputs and targets are those of LAVIS (Li et al. 2023, lavis/models/blip2_models): after the query outputs, OPT
reads </s>, the prompt and the caption, which ends with a line break; T5's encoder reads the query outputs, the prompt and
</s>, and its decoder the caption.

Shape letters: R rows, L tokens of a row, N vectors of the ViT, D their width, P query outputs, W width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding, GenerateInputs
from captrain.models.families.prefix.captioner import (
    behind_prefix,
    generate_causal,
    generate_seq2seq,
    room_for_words,
    scale_before_head,
)
from captrain.models.layers.attention import share_features
from captrain.models.layers.vision import run_encoder

LANGUAGES = ("opt", "t5")
"""Language models that BLIP-2 was published with, and for which packed rows were checked."""


class Blip2Captioner(CaptionerModel):
    """BLIP-2 behind the contract. Its features are the ViT's vectors, so that the Q-Former can learn from cached ones."""

    family = "blip-2"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__(model, tokenizer, image_spec)
        _check_language(self.core(), tokenizer)
        if not self.has_encoder:
            self.image_positions = int(self.core().config.num_query_tokens)  # those of the query outputs
        self.shares_features = not self.has_encoder and share_features(self.decoder)

    @property
    def has_encoder(self) -> bool:
        """Whether the language model reads the query outputs through its own encoder, as T5 does."""
        return bool(self.decoder.config.is_encoder_decoder)

    @property
    def start_id(self) -> int:
        """OPT's </s>; T5's <pad>."""
        config = self.decoder.config
        return int(config.decoder_start_token_id if self.has_encoder else config.bos_token_id)

    @property
    def end_id(self) -> int:
        """By the language model's configuration: a line break for the published OPTs, </s> for T5."""
        return int(self.decoder.config.eos_token_id)

    @property
    def decoder(self) -> PreTrainedModel:
        """The language model."""
        return self.core().language_model

    @property
    def max_positions(self) -> int:
        """2,016 for OPT: of its 2,048 positions the query outputs take 32."""
        return room_for_words(self.decoder.config, self.core().config.num_query_tokens + 1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """All vectors of the ViT, the class token's first."""
        return run_encoder(self.core().vision_model, pixels).last_hidden_state

    def project(self, features: Tensor) -> Tensor:
        """The query outputs (R, P, W); T5's encoder reads them, the prompt and the end token (R, P + words, W)."""
        core = self.core()
        queries = core.query_tokens.expand(len(features), -1, -1)
        outputs = core.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        prefix = core.language_projection(outputs)
        if not self.has_encoder:
            return prefix
        words = self.decoder.get_input_embeddings()(torch.tensor([*self._prompt(), self.end_id], device=prefix.device))
        source = torch.cat([prefix, words.expand(len(prefix), -1, -1)], 1)
        return self.decoder.get_encoder()(inputs_embeds=source).last_hidden_state

    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of the language model's last layer, without those of the query outputs."""
        if self.has_encoder:
            states = self.decoder.get_decoder()(
                input_ids=input_ids, attention_mask=mask, encoder_hidden_states=context, use_cache=False
            )
            return states.last_hidden_state * scale_before_head(self.decoder.config)
        if cache is not None:
            return self.decoder.base_model(
                inputs_embeds=self.decoder.get_input_embeddings()(input_ids),
                attention_mask=mask,
                position_ids=position_ids + self.image_positions,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        prefix = context.shape[1]
        before = torch.arange(prefix, device=context.device).expand(len(context), -1)
        words = self.decoder.get_input_embeddings()(input_ids)
        states = self.decoder.base_model(
            inputs_embeds=torch.cat([context, words], 1),
            attention_mask=behind_prefix(mask, prefix),
            position_ids=torch.cat([before, position_ids + prefix], 1),
            use_cache=False,
        )
        return states.last_hidden_state[:, prefix:]

    def head(self, hidden: Tensor) -> Tensor:
        """The language model's head."""
        return self.decoder.get_output_embeddings()(hidden)

    def begin(self, context: Tensor) -> Cache:
        """A cache with the query outputs, which OPT has read."""
        cache = DynamicCache()
        self.decoder.base_model(inputs_embeds=context, past_key_values=cache, use_cache=True)
        return cache

    def penalised_ids(self) -> list[int]:
        """None: OPT reads the prompt as vectors."""
        return []

    def generate_tokens(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids of one caption for each image."""
        prompt = [self.start_id, *self.prompt_ids()]
        generate = generate_seq2seq if self.has_encoder else generate_causal
        return generate(self.decoder, context, prompt, config)

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Decoding as transformers takes it, without the placeholder of the picture, which is not a word of captions."""
        config, placeholder = super().generation_config(decoding), self.core().config.image_token_index
        if placeholder is not None:
            config.suppress_tokens = [*(config.suppress_tokens or []), placeholder]
        return config

    def prompt_ids(self) -> list[int]:
        """Token ids that captions begin with; none for T5, whose encoder reads the prompt."""
        return [] if self.has_encoder else self._prompt()

    def plain_inputs(self) -> GenerateInputs:
        """Placeholders of the picture, then what OPT's captions begin with, or what T5's encoder reads."""
        config = self.core().config
        placeholders = (int(config.num_query_tokens), int(config.image_token_index))
        if self.has_encoder:
            return GenerateInputs("input_ids", [*self._prompt(), self.end_id], 1, *placeholders)
        start = [self.start_id, *self._prompt()]
        return GenerateInputs("input_ids", start, placeholders[0] + len(start), *placeholders)

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """Queries, Q-Former and projection are the bridge."""
        return {
            "vision": ("vision_model",),
            "bridge": ("query_tokens", "qformer", "language_projection"),
            "language": ("language_model",),
        }

    def lora_targets(self, part: str) -> str:
        """Attention and feed-forward layers, without the head."""
        return {
            "vision": r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.fc[12])",
            "bridge": r"qformer\.encoder\.layer\.\d+\.((cross)?attention\.(attention\.(query|key|value)|output\.dense)|"
            r"(intermediate|output)_query\.dense)|language_projection",
            "language": r"language_model\.(model\.decoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|fc[12])|"
            r"(en|de)coder\.block\.\d+\.layer\.\d+\.((SelfAttention|EncDecAttention)\.[qkvo]|DenseReluDense\.w[io](_[01])?))",
        }[part]

    def _prompt(self) -> list[int]:
        """Token ids of the prompt, for encoder or decoder."""
        return super().prompt_ids()


def _check_language(core: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` unless the language model is of a kind that BLIP-2 was published with, and the tokenizer fits it."""
    config, name = core.language_model.config, core.config.name_or_path or "blip-2"
    if config.model_type not in LANGUAGES:
        raise ModelError(
            f"{name}: its language model is a '{config.model_type}'; expected one of {', '.join(LANGUAGES)}"
        )
    start = "decoder_start_token_id" if config.is_encoder_decoder else "bos_token_id"
    for key in (start, "eos_token_id"):
        if getattr(config, key) is None:
            raise ModelError(f"{name}: config.json has no {key} in its text_config; expected the number of a token")
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{name}: its tokenizer has {len(tokenizer)} entries, the language model only {config.vocab_size}; use its own"
        )
