"""GIT, base and large: a CLIP-like ViT whose vectors come before the words in one decoder with self-attention.

The model is transformers' own, with attention computed by `attend` instead of matrix by matrix: transformers 5 has eager
attention only for GIT. The subclasses below keep all names of weights and modules, and the class name, so that what is saved
is a plain `GitForCausalLM`.

Shape letters: I images, K beams or samples of an image, R rows, N vectors of an image, L tokens of a row, T tokens so far,
H heads, W width of a head, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig, GitConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.git.modeling_git import GitSelfAttention, GitVisionAttention

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import GenerateInputs, until
from captrain.models.families.prefix.captioner import behind_prefix
from captrain.models.layers.attention import attend
from captrain.models.layers.vision import run_encoder


class SharedImageCache(DynamicCache):
    """Keys and values of the words so far, for each beam, and those of the image, which all its beams share.

    Args:
        image: keys and values (I, H, N, W) of each layer. They are never reordered.
    """

    def __init__(self, image: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.image = image


class FusedGitVisionAttention(GitVisionAttention):
    """Self-attention of the ViT through `attend`."""

    def forward(self, hidden_states: Tensor, *_: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Hidden states (I, N, D) -> the same, and no attention weights."""
        query, key, value = (
            layer(hidden_states).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        context = attend(query, key, value, dropout=self.dropout if self.training else 0.0, scale=self.scale)
        return self.out_proj(context.transpose(1, 2).flatten(2)), None


class FusedGitTextAttention(GitSelfAttention):
    """Self-attention of image and words through `attend`."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Hidden states (R, L, D) -> the same, and no attention weights."""
        query, key, value = (
            layer(hidden_states).unflatten(2, (self.num_attention_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        if isinstance(past_key_values, SharedImageCache):
            context = attend_beside_image(query, key, value, *past_key_values.image[self.layer_idx])
        else:
            context = attend(query, key, value, attention_mask, self.dropout.p if self.training else 0.0)
        return context.transpose(1, 2).flatten(2), None


class GitForCausalLM(transformers.GitForCausalLM):
    """transformers' GIT with fused attention. The name is the same, so `config.json` states it."""

    def __init__(self, config: GitConfig) -> None:
        super().__init__(config)
        for layer in self.git.image_encoder.vision_model.encoder.layers:
            layer.self_attn = FusedGitVisionAttention(config.vision_config)
        for index, layer in enumerate(self.git.encoder.layer):
            layer.attention.self = FusedGitTextAttention(config, index)
        self.post_init()


class GitCaptioner(CaptionerModel):
    """GIT behind the contract. Captions begin with [CLS] and end with [SEP]; positions are those of words, images have none."""

    family = "git"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__(model, tokenizer, image_spec)
        entries, name = self.decoder.config.vocab_size, self.decoder.config.name_or_path or "git"
        if len(tokenizer) > entries:
            raise ModelError(
                f"{name}: its tokenizer has {len(tokenizer)} entries, the model only {entries}; use its own"
            )
        if not {"cls_token", "sep_token"} <= tokenizer.special_tokens_map.keys():
            raise ModelError(f"{name}: its tokenizer has no start or end token; expected cls_token and sep_token")

    @property
    def start_id(self) -> int:
        """[CLS]."""
        return int(self.tokenizer.cls_token_id)

    @property
    def end_id(self) -> int:
        """[SEP]."""
        return int(self.tokenizer.sep_token_id)

    @property
    def decoder(self) -> PreTrainedModel:
        """The whole model: its decoder gets the image vectors from a cache."""
        return self.core()

    @property
    def max_positions(self) -> int:
        """1,024 in the published checkpoints; the image takes none of them."""
        return int(self.core().config.max_position_embeddings)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """All vectors of the ViT, the class token's first."""
        return run_encoder(self.core().git.image_encoder, pixels).last_hidden_state

    def project(self, features: Tensor) -> Tensor:
        """The vectors in the decoder's width, normalised."""
        return self.core().git.visual_projection(features)

    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of the decoder's last layer, without those of the image."""
        git, vectors = self.core().git, context.shape[1]
        words = git.embeddings(input_ids=input_ids, position_ids=position_ids)
        if cache is not None:
            return git.encoder(words, attention_mask=mask, past_key_values=cache).last_hidden_state
        states = git.encoder(torch.cat([context, words], 1), attention_mask=behind_image(mask, vectors))
        return states.last_hidden_state[:, vectors:]

    def head(self, hidden: Tensor) -> Tensor:
        """The language model's head, one linear layer."""
        return self.core().output(hidden)

    def begin(self, context: Tensor) -> Cache:
        """A cache with the image, which has gone through the decoder."""
        image = DynamicCache()
        self.core().git.encoder(context, past_key_values=image)
        return image

    def generate_tokens(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids of one sampled caption for each image. The image goes through the decoder once for all words."""
        prompt = [self.start_id, *self.prompt_ids()]
        given = torch.tensor([prompt] * len(context), device=context.device)
        image = self.begin(context)
        generated = self.decoder.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            past_key_values=SharedImageCache([(layer.keys, layer.values) for layer in image.layers]),
            generation_config=config,
        )
        return [until(row, config.eos_token_id) for row in generated[:, len(prompt) :].tolist()]

    def plain_inputs(self) -> GenerateInputs:
        """Start token and prompt."""
        start = [self.start_id, *self.prompt_ids()]
        return GenerateInputs("input_ids", start, len(start))

    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """The projection is the bridge, with the embedding of video frames."""
        return {
            "vision": ("git.image_encoder",),
            "bridge": ("git.visual_projection", "git.img_temporal_embedding"),
            "language": ("git.embeddings", "git.encoder", "output"),
        }

    def lora_targets(self, part: str) -> str:
        """Attention and feed-forward layers, without the prediction head."""
        return {
            "vision": r"git\.image_encoder\.vision_model\.encoder\.layers\.\d+\."
            r"(self_attn\.([qkv]|out)_proj|mlp\.fc[12])",
            "bridge": r"git\.visual_projection\.visual_projection\.0",
            "language": r"git\.encoder\.layer\.\d+\."
            r"(attention\.(self\.(query|key|value)|output\.dense)|intermediate\.dense|output\.dense)",
        }[part]


def behind_image(mask: Tensor, vectors: int) -> Tensor:
    """The mask of rows after an image: its vectors attend to each other, not to words; every word attends to all of them.

    Args:
        mask: (R, 1, L, L) bool, of the words alone. vectors: of the image.

    Returns:
        (R, 1, vectors + L, vectors + L) bool.

    >>> behind_image(torch.tensor([[1, 0], [0, 1]]).bool()[None, None], 2)[0, 0].int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    whole = behind_prefix(mask, vectors)
    whole[..., :vectors, :vectors] = True
    return whole


def attend_beside_image(query: Tensor, key: Tensor, value: Tensor, image_key: Tensor, image_value: Tensor) -> Tensor:
    """Attention of words to their image and to the words before them; beams share the image's keys and values.

    Args:
        query: (I*K, H, L, W), of the last L words. key, value: (I*K, H, T, W), of all words so far.
        image_key, image_value: (I, H, N, W).

    Returns:
        (I*K, H, L, W): the same as `attend` over image and words in one row, without a copy of the image for each beam.
    """
    images, vectors = len(image_key), image_key.shape[2]
    to_image = _unfold(_fold(query, images) @ image_key.mT, len(query))
    to_words = query @ key.mT
    length, so_far = to_words.shape[-2:]
    later = torch.ones(length, so_far, dtype=torch.bool, device=query.device).triu(so_far - length + 1)
    scores = torch.cat([to_image, to_words.masked_fill(later, float("-inf"))], -1) * query.shape[-1] ** -0.5
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    from_image = _unfold(_fold(weights[..., :vectors], images) @ image_value, len(query))
    return from_image + weights[..., vectors:] @ value


def _fold(rows: Tensor, images: int) -> Tensor:
    """(I*K, H, L, W) -> (I, H, K*L, W): the beams of an image in one row."""
    return rows.unflatten(0, (images, -1)).transpose(1, 2).flatten(2, 3)


def _unfold(folded: Tensor, rows: int) -> Tensor:
    """(I, H, K*L, W) -> (I*K, H, L, W)."""
    return folded.unflatten(2, (rows // len(folded), -1)).transpose(1, 2).flatten(0, 1)
