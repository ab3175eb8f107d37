"""Language models that can stand behind a prefix: which, from where, and new ones."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from captrain.errors import ModelError
from captrain.models.encoder_decoder import new_decoder
from captrain.models.loading import class_for, load_model, read_config

CAUSAL = (
    "gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "phi", "phi3", "stablelm",
    "starcoder2", "olmo", "olmo2", "gemma", "gemma3_text", "smollm3", "codegen", "gpt_bigcode", "xglm", "biogpt",
)  # fmt: skip
"""Causal language models whose packed rows and captions were compared with plain transformers': they take a 4-D mask,
positions, and vectors in place of words, and their head is one linear layer."""

SEQ2SEQ = ("t5", "mt5", "umt5")
"""The same of models with an encoder: their decoders know distances only, so that packed rows are exact. T0 and Flan are T5."""

SCALED = {"t5": "scale_decoder_outputs", "umt5": "tie_word_embeddings"}
"""Where a configuration says that hidden states are scaled before the head, as the first T5 does."""

POSITIONS = ("max_position_embeddings", "n_positions")
"""What configurations call the length of the context."""

UNLIMITED = 1_000_000
"""Tokens of a caption of a model that knows distances instead of positions: more than any caption has."""


def load_language(source: str) -> PreTrainedModel:
    """A language model from a folder or hub id. Raises `ModelError` when it is of no kind that can stand behind a prefix."""
    config = read_config(source)
    check_language(config, source)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return load_model(class_for(kind, config), source, config)


def new_language(
    tokenizer: PreTrainedTokenizerBase, layers: int, width: int, heads: int, dropout: float
) -> PreTrainedModel:
    """A GPT-2 from scratch; sizes as asked for, vocabulary as the tokenizer's."""
    with torch.device("meta"):  # for its settings alone
        config = new_decoder(tokenizer, layers, width, heads, dropout).config
    config.add_cross_attention = False
    return GPT2LMHeadModel(config)


def check_language(config: PreTrainedConfig, source: str) -> None:
    """Refuse kinds that were not checked: many can't read packed rows, and would learn from another image's words."""
    if config.model_type not in (*CAUSAL, *SEQ2SEQ):
        raise ModelError(
            f"{source}: a '{config.model_type}' can't be the language model behind a prefix; "
            f"expected one of {', '.join((*CAUSAL, *SEQ2SEQ))}"
        )


def room_for_words(config: PreTrainedConfig, prefix_length: int) -> int:
    """Most tokens of a caption: what a prefix leaves of the context. Its last vector stands where a start token would.

    >>> from transformers import GPT2Config, T5Config
    >>> room_for_words(GPT2Config(), 10), room_for_words(T5Config(), 10)
    (1015, 1000000)
    """
    if config.is_encoder_decoder:
        return UNLIMITED
    limits = [getattr(config, name) for name in POSITIONS if getattr(config, name, None)]
    return limits[0] - prefix_length + 1 if limits else UNLIMITED


def check_room(config: PreTrainedConfig, prefix_length: int) -> None:
    """Raise `ModelError` when a prefix leaves no room for a word and the end of a caption."""
    room = room_for_words(config, prefix_length)
    if room < 3:
        raise ModelError(
            f"prefix_length: {prefix_length} vectors leave no room for words in the language model's context of "
            f"{room + prefix_length - 1}; choose a shorter prefix"
        )


def scale_before_head(config: PreTrainedConfig) -> float:
    """What a seq2seq model multiplies its decoder's hidden states with before its head.

    >>> from transformers import MT5Config, T5Config
    >>> scale_before_head(T5Config(d_model=64)), scale_before_head(MT5Config())
    (0.125, 1.0)
    """
    return float(config.d_model**-0.5) if getattr(config, SCALED.get(config.model_type, ""), False) else 1.0
