"""Prefix captioners such as ClipCap: any image encoder, a mapper, any causal or seq2seq language model that is checked here.

Packed rows keep ClipCap's formula: the last prefix vector predicts the first word. So a row has all prefix vectors but the
last once, and each of its captions begins with the last one instead of a start token. In generation, the language model reads
the prefix once for each image, however many beams there are.

Shape letters: I images, R rows, L tokens of a row, N vectors of an image, D their width, P prefix vectors, W width of the
language model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.checkpoint.loading import class_for, load_model, read_config
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import SharedFeaturesCache, until
from captrain.models.families.encoder_decoder import new_decoder
from captrain.models.layers.attention import share_features


class PrefixCaptioner(CaptionerModel):
    """A `PrefixModel` behind the contract."""

    family = "prefix"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__(model, tokenizer, image_spec)
        config = self.decoder.config
        check_language(config, config.name_or_path or "language model")
        check_room(config, self.core().config.prefix_length)
        # The last prefix vector takes the place of a start token. With an encoder, the prefix takes no positions.
        self.image_positions = 0 if self.has_encoder else self.core().config.prefix_length - 1
        self.shares_features = not self.has_encoder and _one_key_a_head(config) and share_features(self.decoder)

    @property
    def has_encoder(self) -> bool:
        """Whether the language model reads the prefix through its own encoder, as T5 does."""
        return bool(self.decoder.config.is_encoder_decoder)

    @property
    def start_id(self) -> int:
        """T5's own start token. Otherwise a prefix vector takes its place, and the end token only marks that place."""
        return int(self.decoder.config.decoder_start_token_id) if self.has_encoder else self.end_id

    @property
    def end_id(self) -> int:
        """The tokenizer's end token."""
        end = self.tokenizer.eos_token_id
        return int(self.tokenizer.sep_token_id if end is None else end)

    @property
    def decoder(self) -> PreTrainedModel:
        """The language model."""
        return self.core().language

    @property
    def max_positions(self) -> int:
        """1,024 for GPT-2, minus what the prefix takes."""
        return room_for_words(self.decoder.config, self.core().config.prefix_length)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """The encoder's vectors, not normalised."""
        return self.core().encode_image(pixels)

    def project(self, features: Tensor) -> Tensor:
        """The prefix (R, P, W); if the language model has an encoder, its output for the prefix."""
        return self.core().encode_prefix(self.core().prefix(features))

    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of the language model's last layer."""
        if self.has_encoder:
            states = self.decoder.get_decoder()(
                input_ids=input_ids, attention_mask=mask, encoder_hidden_states=context, use_cache=False
            ).last_hidden_state
            return states * scale_before_head(self.decoder.config)
        first = (position_ids == 0)[..., None]
        words = torch.where(first, context[:, -1:], self.decoder.get_input_embeddings()(input_ids))
        if cache is not None:
            return self.decoder.base_model(
                inputs_embeds=words,
                attention_mask=mask,
                position_ids=position_ids + self.image_positions,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        shared = context.shape[1] - 1
        before = torch.arange(shared, device=position_ids.device).expand(len(context), -1)
        states = self.decoder.base_model(
            inputs_embeds=torch.cat([context[:, :-1], words], 1),
            attention_mask=self._as_attention_takes_it(behind_prefix(mask, shared)),
            position_ids=torch.cat([before, position_ids + shared], 1),
            use_cache=False,
        ).last_hidden_state
        return states[:, shared:]

    def head(self, hidden: Tensor) -> Tensor:
        """The language model's head."""
        return self.decoder.get_output_embeddings()(hidden)

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """The mapper is the bridge."""
        return {"vision": ("encoder",), "bridge": ("mapper",), "language": ("language",)}

    def lora_targets(self, part: str) -> str:
        """Linear layers in the blocks of the part (attention and feed-forward), without the head."""
        return {
            "vision": r"encoder\.(.*\.)?(layers?|blocks?|stages?)\.\d+\..*"
            r"(query|key|value|qkv|[qkvo]_proj|out_proj|projection|dense|fc[12]|dense[12]|pwconv[12])",
            "bridge": r"mapper\.(model\.\d+|transformer\.layers\.\d+\..*(to_queries|to_keys_values|project|fc[12]))",
            "language": r"language\.(.*\.)?(h|layers?|block)\.\d+\.(.*\.)?"
            r"(c_attn|c_proj|c_fc|[qkvo]_proj|qkv_proj|out_proj|fc[12]|fc_in|fc_out|(gate|up|gate_up|down)_proj|"
            r"query_key_value|dense|dense_h_to_4h|dense_4h_to_h|[qkvo]|wi|wi_[01]|wo)",
        }[part]

    def begin(self, context: Tensor) -> Cache:
        """A cache with the prefix but its last vector, which stands where other captions have a start token."""
        cache = DynamicCache()
        if context.shape[1] > 1:
            self.decoder.base_model(inputs_embeds=context[:, :-1], past_key_values=cache, use_cache=True)
        return cache

    def penalised_ids(self) -> list[int]:
        """None: the language model reads the prompt as vectors."""
        return []

    def generate_tokens(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids of one caption for each image."""
        if self.has_encoder:
            return generate_seq2seq(self.decoder, context, [self.start_id, *self.prompt_ids()], config)
        return generate_causal(self.decoder, context, self.prompt_ids(), config)

    def _as_attention_takes_it(self, mask: Tensor) -> Tensor:
        """The mask as the language model's attention takes it: eager attention adds it to the scores."""
        if self.decoder.config._attn_implementation != "eager":
            return mask
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, lowest)


def behind_prefix(mask: Tensor, shared: int) -> Tensor:
    """The mask of rows after shared prefix vectors: these attend to those before them, and every word to all of them.

    Args:
        mask: (R, 1, L, L) bool, of the words alone. shared: number of prefix vectors.

    Returns:
        (R, 1, shared + L, shared + L) bool.

    >>> behind_prefix(torch.tensor([[1, 0], [0, 1]]).bool()[None, None], 2)[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    rows, _, length, _ = mask.shape
    whole = mask.new_zeros(rows, 1, shared + length, shared + length)
    whole[..., :shared] = True
    whole[..., :shared, :shared] = torch.ones(shared, shared, dtype=torch.bool, device=mask.device).tril()
    whole[..., shared:, shared:] = mask
    return whole


def _one_key_a_head(config: object) -> bool:
    """Whether each head has its own keys. Heads that share keys use transformers' own attention."""
    heads = getattr(config, "num_attention_heads", None)
    return (getattr(config, "num_key_value_heads", None) or heads) == heads


CAUSAL = (
    "gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "phi", "phi3", "stablelm",
    "starcoder2", "olmo", "olmo2", "gemma", "gemma3_text", "smollm3", "codegen", "gpt_bigcode", "xglm", "biogpt",
)  # fmt: skip
"""Causal language models for which packed rows and captions were compared with plain transformers: they take a 4-D mask,
positions, and vectors instead of words, and their head is one linear layer."""

SEQ2SEQ = ("t5", "mt5", "umt5")
"""The same for models with an encoder. Their decoders know only distances, so packed rows are exact. T0 and Flan are T5."""

SCALED = {"t5": "scale_decoder_outputs", "umt5": "tie_word_embeddings"}
"""The setting that says whether hidden states are scaled before the head, as in the first T5."""

POSITIONS = ("max_position_embeddings", "n_positions")
"""The names that configurations have for the length of the context."""

UNLIMITED = 1_000_000
"""The longest caption of a model with distances instead of positions: more tokens than any caption has."""


def load_language(source: str) -> PreTrainedModel:
    """A language model from a folder or hub id. Raises `ModelError` if it is of a kind that can't follow a prefix."""
    config = read_config(source)
    check_language(config, source)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return load_model(class_for(kind, config), source, config)


def new_language(
    tokenizer: PreTrainedTokenizerBase, layers: int, width: int, heads: int, dropout: float
) -> PreTrainedModel:
    """A GPT-2 from scratch, for the tokenizer's vocabulary."""
    with torch.device("meta"):  # only for its settings
        config = new_decoder(tokenizer, layers, width, heads, dropout).config
    config.add_cross_attention = False
    return GPT2LMHeadModel(config)


def check_language(config: PreTrainedConfig, source: str) -> None:
    """Raise `ModelError` for kinds that were not checked: many can't read packed rows, and would mix up captions."""
    if config.model_type not in (*CAUSAL, *SEQ2SEQ):
        raise ModelError(
            f"{source}: a '{config.model_type}' can't be the language model behind a prefix; "
            f"expected one of {', '.join((*CAUSAL, *SEQ2SEQ))}"
        )


def room_for_words(config: PreTrainedConfig, prefix_length: int) -> int:
    """The longest caption after a prefix, in tokens. The last prefix vector takes the place of a start token.

    >>> from transformers import GPT2Config, T5Config
    >>> room_for_words(GPT2Config(), 10), room_for_words(T5Config(), 10)
    (1015, 1000000)
    """
    if config.is_encoder_decoder:
        return UNLIMITED
    limits = [getattr(config, name) for name in POSITIONS if getattr(config, name, None)]
    return limits[0] - prefix_length + 1 if limits else UNLIMITED


def check_room(config: PreTrainedConfig, prefix_length: int) -> None:
    """Raise `ModelError` if a prefix leaves no room for a word and the end token."""
    room = room_for_words(config, prefix_length)
    if room < 3:
        raise ModelError(
            f"prefix_length: {prefix_length} vectors leave no room for words in the language model's context of "
            f"{room + prefix_length - 1}; choose a shorter prefix"
        )


def scale_before_head(config: PreTrainedConfig) -> float:
    """The factor by which a seq2seq model multiplies hidden states before its head.

    >>> from transformers import MT5Config, T5Config
    >>> scale_before_head(T5Config(d_model=64)), scale_before_head(MT5Config())
    (0.125, 1.0)
    """
    return float(config.d_model**-0.5) if getattr(config, SCALED.get(config.model_type, ""), False) else 1.0


def generate_causal(
    language: PreTrainedModel, prefix: Tensor, prompt: list[int], config: GenerationConfig
) -> list[list[int]]:
    """Token ids after a prefix (I, P, W) and a prompt, without end and padding.

    All vectors but the last go through the model once for each image; their keys and values are then repeated for the beams.
    """
    given = torch.tensor([prompt] * len(prefix), dtype=torch.int64, device=prefix.device)
    words = language.get_input_embeddings()(given)
    start = torch.cat([prefix.to(words.dtype), words], 1)
    cache = DynamicCache(config=language.config)
    if start.shape[1] > 1:
        language.base_model(inputs_embeds=start[:, :-1], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(config.num_beams)
    seen = torch.ones(start.shape[:2], dtype=torch.int64, device=prefix.device)
    generated = language.generate(
        inputs_embeds=start, attention_mask=seen, past_key_values=cache, generation_config=config
    )
    return [until(row, config.eos_token_id) for row in generated.tolist()]


def generate_seq2seq(
    language: PreTrainedModel, context: Tensor, prompt: list[int], config: GenerationConfig
) -> list[list[int]]:
    """Token ids from the encoder's output for a prefix (I, P, W), without prompt, end and padding.

    Args:
        prompt: ids that every caption begins with, the start token first.
    """
    given = torch.tensor([prompt] * len(context), device=context.device)
    filled = EncoderDecoderCache(DynamicCache(), DynamicCache())
    language.get_decoder()(
        input_ids=given[:, :1], encoder_hidden_states=context, past_key_values=filled, use_cache=True
    )
    filled.cross_attention_cache.batch_repeat_interleave(config.num_beams)
    generated = language.generate(
        encoder_outputs=BaseModelOutput(context),
        decoder_input_ids=given,
        past_key_values=SharedFeaturesCache(DynamicCache(), filled.cross_attention_cache),
        generation_config=config,
    )
    return [until(row, config.eos_token_id) for row in generated[:, len(prompt) :].tolist()]
