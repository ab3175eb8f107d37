"""Any image encoder with any causal decoder that has cross-attention, such as ViT + GPT-2.

The model is transformers' `VisionEncoderDecoderModel`. It is loaded from a checkpoint such as
`nlpconnect/vit-gpt2-image-captioning`, or joined here from an encoder and a decoder, or from an encoder and a new decoder.
"""

from __future__ import annotations

import math

from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Cache,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.checkpoint.loading import class_for, load_model, read_config
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import GenerateInputs
from captrain.models.layers.attention import share_features
from captrain.models.layers.vision import VisionVectors, run_encoder

HEADS = ("lm_head", "cls")
"""The names that decoders of transformers have for their head."""

DECODERS = ("gpt2", "bert", "bert-generation", "roberta", "xlm-roberta", "camembert")
"""Decoders that take cross-attention, a 4-D mask and positions, as packed rows need."""

COUNT_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
"""Decoders whose first position is the number after that of the padding token."""


class EncoderDecoderCaptioner(CaptionerModel):
    """A `VisionEncoderDecoderModel` behind the contract."""

    family = "encoder-decoder"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__(model, tokenizer, image_spec)
        _check_decoder(self.decoder.config, self.decoder.config.name_or_path or "decoder")
        self.shares_features = share_features(self.decoder)

    @property
    def start_id(self) -> int:
        """The start token that the checkpoint states, else the tokenizer's."""
        config = self.core().config
        return _first_id(config.decoder_start_token_id, config.decoder.bos_token_id, self.tokenizer.bos_token_id)

    @property
    def end_id(self) -> int:
        """The end token that the checkpoint states, else the tokenizer's."""
        config = self.core().config
        return _first_id(config.eos_token_id, config.decoder.eos_token_id, self.tokenizer.eos_token_id)

    @property
    def decoder(self) -> PreTrainedModel:
        """The causal language model."""
        return self.core().decoder

    @property
    def max_positions(self) -> int:
        """1,024 for GPT-2."""
        return int(getattr(self.decoder.config, "max_position_embeddings", 512)) - self.first_position

    @property
    def first_position(self) -> int:
        """0, except for RoBERTa and its kin."""
        config = self.decoder.config
        return int(config.pad_token_id) + 1 if config.model_type in COUNT_AFTER_PADDING else 0

    def encode_image(self, pixels: Tensor) -> Tensor:
        """The encoder's vectors."""
        encoder = self.core().encoder
        if isinstance(encoder, VisionVectors):
            return encoder.encode_image(pixels)
        return run_encoder(encoder, pixels).last_hidden_state

    def project(self, features: Tensor) -> Tensor:
        """Vectors in the decoder's width: with positions if they form a grid, projected if the encoder's width differs."""
        encoder = self.core().encoder
        features = encoder.add_positions(features) if isinstance(encoder, VisionVectors) else features
        projection = getattr(self.core(), "enc_to_dec_proj", None)
        return features if projection is None else projection(features)

    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of the decoder's last layer."""
        return self.decoder.base_model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids + self.first_position,
            encoder_hidden_states=context,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """The language model's head."""
        for name in HEADS:
            if hasattr(self.decoder, name):
                return getattr(self.decoder, name)(hidden)
        raise ModelError(f"decoder {type(self.decoder).__name__}: found no head named {' or '.join(HEADS)}")

    def plain_inputs(self) -> GenerateInputs:
        """Start token and prompt, for the decoder."""
        start = [self.start_id, *self.prompt_ids()]
        return GenerateInputs("decoder_input_ids", start, len(start))

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """The cross-attention is in the decoder's layers: it belongs to `language`."""
        wrapped = isinstance(self.core().encoder, VisionVectors)
        vision = ("encoder.encoder",) if wrapped else ("encoder",)
        return {
            "vision": vision,
            "bridge": ("enc_to_dec_proj", "encoder.norm", "encoder.positions"),
            "language": ("decoder",),
        }

    def lora_targets(self, part: str) -> str:
        """Linear layers in the blocks of the part (attention and feed-forward), without the head."""
        if part == "bridge":
            return "enc_to_dec_proj"
        return {
            "vision": r"encoder\.(.*\.)?(layers?|blocks?|stages?)\.\d+\..*"
            r"(query|key|value|qkv|[qkvo]_proj|out_proj|projection|dense|fc[12]|dense[12]|pwconv[12])",
            "language": r"decoder\.(.*\.)?(h|layers?)\.\d+\..*"
            r"(c_attn|q_attn|c_proj|c_fc|query|key|value|dense|[qkvo]_proj|out_proj|fc[12])",
        }[part]


def join_encoder_decoder(
    encoder: PreTrainedModel, decoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """One model of an encoder and a decoder. If their widths differ, a linear projection (the bridge) joins them."""
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
    config.decoder_start_token_id = _first_id(
        decoder.config.bos_token_id, tokenizer.bos_token_id, tokenizer.cls_token_id
    )
    config.eos_token_id = _first_id(decoder.config.eos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
    config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else config.eos_token_id
    return VisionEncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)


def load_decoder(source: str) -> PreTrainedModel:
    """A causal language model from a folder or hub id, with fresh cross-attention if it has none yet."""
    config = read_config(source)
    _check_decoder(config, source)
    config.is_decoder = True
    config.add_cross_attention = True
    return load_model(class_for(AutoModelForCausalLM, config), source, config)


def new_decoder(
    tokenizer: PreTrainedTokenizerBase, layers: int, width: int, heads: int, dropout: float, positions: int = 256
) -> PreTrainedModel:
    """A GPT-2 from scratch with cross-attention, for the tokenizer's vocabulary."""
    if width % heads:
        raise ModelError(f"decoder_heads: {heads} heads do not divide a width of {width}; choose a divisor of it")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, as one kernel instead of eight
        initializer_range=0.8
        / math.sqrt(width),  # GPT-2's 0.02 is for widths of 768 and more; small models stall on it
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        bos_token_id=_first_id(tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id),
        eos_token_id=_first_id(tokenizer.eos_token_id, tokenizer.sep_token_id),
        pad_token_id=tokenizer.pad_token_id,
        add_cross_attention=True,
        is_decoder=True,
    )
    return GPT2LMHeadModel(config)


def _check_decoder(config: PreTrainedConfig, source: str) -> None:
    """Raise `ModelError` for decoders that can't attend to an image, or can't read packed rows."""
    if config.model_type not in DECODERS:
        raise ModelError(
            f"{source}: a '{config.model_type}' can't be the decoder, as it takes no cross-attention or no positions; "
            f"expected one of {', '.join(DECODERS)}"
        )


def _first_id(*ids: int | None) -> int:
    """The first id that is known; 0 is one."""
    return int(next(id for id in ids if id is not None))
