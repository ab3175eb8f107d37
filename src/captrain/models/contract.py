"""The contract of all captioners: an image encoder, a bridge and a text decoder.

    pixels --encode_image--> features --project--> context --decode--> hidden states --head--> logits over the vocabulary

The encoder turns a picture into feature vectors. The bridge projects them to the context, to which the decoder attends while it
predicts the next word: in training for all words of all captions of a picture at once (teacher forcing), else word by word.

Shape letters: I images, R rows (one for each image), L tokens of a row, N feature vectors of an image, D their width,
C context vectors of an image, H width of the decoder, T learned tokens, V size of the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import (
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput

from captrain.data.images import ImageSpec
from captrain.models.choosing import Rules
from captrain.models.contexts import evaluate_frozen, evaluating
from captrain.models.decoding import Decoding, GenerateInputs, Room, Written, generate_cross_attending, mean_log_probs
from captrain.models.families import FAMILIES
from captrain.models.layers.attention import causal_caption_mask
from captrain.models.layers.packing import IGNORED, PackedRows, pack, row_groups, token_loss
from captrain.models.layers.vision import drop_patches, mean_with_mirrored, scale
from captrain.models.parts import PARTS, part_of
from captrain.models.search import Found, Search


@dataclass
class CaptionerOutput(ModelOutput):
    """`loss`: the mean over the learned tokens. `logits` (T, V) and `targets` (T): of the learned tokens, row after row."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    targets: Tensor | None = None


class CaptionerModel(nn.Module, ABC):
    """A transformers model of one family behind the contract.

    A family defines the abstract methods; loss, packing, generation, freezing and saving follow from them.

    Attributes:
        model: the transformers model itself, or a PEFT model around it.
        tokenizer: its tokenizer; captions are tokenised without special tokens. image_spec: how a picture becomes pixels.
        prompt: words before every caption. decoding: how captions are generated unless asked otherwise.
        origins: the models that training went through before, oldest first, if it began from an adapter.
        precision: of matrix products. label_smoothing: of the loss. patch_dropout: the share of context that training drops.
        groups_rows: whether rows of similar length are decoded together in training, which saves padding.
        shares_features: whether the beams of an image share its keys and values (the decoder uses `attend`).
        image_positions: positions of the decoder that the image takes, beside `max_positions`.
    """

    family: ClassVar[str]
    shares_features: bool = True
    image_positions: int = 0
    mean: Tensor
    std: Tensor

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.image_spec = image_spec
        self.prompt = ""
        self.decoding = Decoding()
        self.origins: tuple[str, ...] = ()
        self.precision = torch.float32
        self.label_smoothing = FAMILIES[self.family].label_smoothing if self.family in FAMILIES else 0.0
        self.patch_dropout = 0.0
        self.groups_rows = False
        self.register_buffer("mean", torch.tensor(image_spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image_spec.std).view(1, -1, 1, 1), persistent=False)

    # What each family defines.

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """The image encoder: normalised pixels (I, 3, height, width) -> features (I, N, D)."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """The bridge: features (I, N, D) -> the context that the decoder attends to (I, C, H)."""

    @abstractmethod
    def decode(
        self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """The text decoder without its head: hidden states (R, L, H) of packed rows, given the context of their images.

        Args:
            context: (R, C, H). input_ids, position_ids: (R, L); positions restart with each caption of a row.
            mask: (R, 1, L, L) bool, True if the token of the row may attend to that of the column.
            cache: while captions are written, the keys and values of all that was read before, from `begin`. The mask then has
                a column for each of them too, and of the context only the last vector (R, 1, H) is given after the first words.
        """

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """The language-model head: hidden states (..., H) -> logits over the vocabulary (..., V)."""

    @property
    @abstractmethod
    def start_id(self) -> int:
        """The token that begins every caption."""

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The token that ends every caption. It is learned."""

    @property
    @abstractmethod
    def decoder(self) -> PreTrainedModel:
        """The text decoder as a transformers model that can generate."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """The longest caption in tokens, start token and prompt included."""

    @property
    def first_position(self) -> int:
        """The position of a caption's first token."""
        return 0

    @abstractmethod
    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """For each of `PARTS`, how the names of its modules begin."""

    @abstractmethod
    def lora_targets(self, part: str) -> str:
        """A regular expression that fully matches the names of a part's attention and feed-forward layers."""

    def begin(self, context: Tensor) -> Cache:
        """The cache for words that follow images with this context (I, C, H).

        This is for decoders with cross-attention, which read the context with the first word. A family whose decoder reads the
        image before the words returns a cache that has read it.
        """
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def penalised_ids(self) -> list[int]:
        """Token ids before the caption that count as repeated when a caption has them too."""
        return [self.start_id, *self.prompt_ids()]

    def generate_tokens(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids of one caption for each image, without start, prompt and end, from the context (I, C, H), by transformers.

        For sampling, and for decoders that can't share an image's keys and values. This one is for cross-attention; a family
        whose decoder takes the image in another way overrides it.
        """
        how = (config, self.shares_features, self.first_position)
        return generate_cross_attending(self.decoder, context, [self.start_id, *self.prompt_ids()], *how)

    def plain_inputs(self) -> GenerateInputs | None:
        """What `generate` of transformers takes beside pixels, for the code on a model card; None without such code."""
        return None

    # What follows from that.

    def encode(self, pixels: Tensor, mirror: bool = False) -> Tensor:
        """Features (I, N, D) of pictures (I, height, width, 3), uint8: normalised, then through the image encoder.

        With `mirror` the mean of these and the features of the mirror images, as `Decoding.mirror` asks for.
        """
        if mirror:
            return mean_with_mirrored(self.encode(pixels), self.encode(pixels.flip(2)), *pixels.shape[1:3])
        scaled = scale(pixels, self.mean.flatten(), self.std.flatten())
        with self.autocast():
            return self.encode_image(scaled)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        caption_ids: Tensor,
        labels: Tensor,
        features: Tensor | None = None,
        pixels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> CaptionerOutput:
        """The loss of packed rows (R, L), given features (R, N, D), or pixels (R, height, width, 3), uint8.

        The loss is the cross entropy summed over all learned tokens, divided by their number (or by `num_items_in_batch`,
        the number in all batches of one optimizer step). Only learned tokens go through the head.
        """
        features = self.encode(cast(Tensor, pixels)) if features is None else features
        with self.autocast():
            context = self.project(features)
            if self.training and self.patch_dropout:
                context = drop_patches(context, self.patch_dropout)
            hidden, targets = self._decode_learned(context, input_ids, position_ids, caption_ids, labels)
            logits = self.head(hidden)
        total = token_loss(logits, targets, self.label_smoothing)
        loss = total / (targets.numel() if num_items_in_batch is None else num_items_in_batch)
        return CaptionerOutput(loss=loss, logits=logits, targets=targets)

    def _decode_learned(self, context: Tensor, *packed: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (T, H) of the learned tokens of packed rows, and the tokens to predict there (T).

        With `groups_rows` one group of rows of similar length is decoded after another: the same result with less padding.
        """
        hidden, targets = [], []
        for rows, longest in row_groups(packed[2], split=self.groups_rows and self.training):
            input_ids, position_ids, caption_ids, labels = (tensor[rows, :longest] for tensor in packed)
            learned = (labels != IGNORED).flatten().nonzero().squeeze(1)
            states = self.decode(context[rows], input_ids, position_ids, causal_caption_mask(caption_ids))
            hidden.append(
                states.flatten(0, 1).index_select(0, learned)
            )  # its gradient goes row by row, a mask's one by one
            targets.append(labels.flatten().index_select(0, learned))
        return torch.cat(hidden), torch.cat(targets)

    @torch.no_grad()
    def generate(self, features: Tensor, decoding: Decoding | None = None) -> list[Written]:
        """One caption for each image from features (I, N, D), each with its mean log-probability per token."""
        decoding = decoding or self.decoding
        with evaluating(self), self.autocast():
            context = self.project(features)
            if search := self.search(decoding):
                found = search.admit(range(len(context)), context)
                while search.rows:
                    found += search.step()
                return self.written(sorted(found, key=lambda caption: caption.number))
            config = self.generation_config(decoding)
            captions = self.generate_tokens(context, config)
            scores = self._log_probabilities(context, captions, config.max_new_tokens)
        return self.written([Found(*line) for line in zip(range(len(captions)), captions, scores, strict=True)])

    def search(self, decoding: Decoding) -> Search | None:
        """A search for captions that are decoded this way; None where transformers writes them: sampled ones, and those of
        decoders that can't share an image's keys and values among its beams."""
        if decoding.sample or not self.shares_features:
            return None
        rules = Rules.of(self.generation_config(decoding), self.penalised_ids())
        return Search(self, rules, [self.start_id, *self.prompt_ids()])

    def written(self, found: Sequence[Found]) -> list[Written]:
        """Captions with their texts, in the same order."""
        if not found:
            return []
        texts = self.tokenizer.batch_decode([caption.tokens for caption in found], skip_special_tokens=True)
        return [
            Written(caption.tokens, text.strip(), caption.score) for caption, text in zip(found, texts, strict=True)
        ]

    def _log_probabilities(self, context: Tensor, captions: list[list[int]], longest: int) -> list[float]:
        """The mean log-probability per token of one caption for each image; of the `longest` length, without end token."""
        rows = self.pack([[caption] for caption in captions]).to(context.device)
        mask = causal_caption_mask(rows.caption_ids)
        logits = self.head(self.decode(context, rows.input_ids, rows.position_ids, mask))
        return mean_log_probs(logits, rows.labels, [len(caption) for caption in captions], longest)

    def room(self) -> Room:
        """How many tokens a caption can have behind the prompt. Raises `SettingsError` if the prompt leaves none."""
        image, before = self.image_positions, 1 + len(self.prompt_ids())
        return Room(self.family, self.max_positions + image, image, before).checked()

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Decoding as transformers takes it, within the decoder's positions. Tokens that the model suppresses stay suppressed."""
        config = decoding.generation_config(self.start_id, self.end_id, self.pad_id)
        config.max_new_tokens = min(config.max_new_tokens, self.room().most)
        own = getattr(self.core(), "generation_config", None)  # None for a model that does not generate by itself
        config.suppress_tokens = getattr(own, "suppress_tokens", None)
        return config

    def pack(self, rows: list[list[list[int]]]) -> PackedRows:
        """Token ids as packed rows, with this captioner's start token, prompt and end token."""
        return pack(rows, self.start_id, self.end_id, self.prompt_ids())

    def tokenize(self, captions: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
        """Token ids of captions without special tokens, and how many captions were cut.

        Captions are cut so that the end token still fits into `max_tokens`, and with the prompt into the decoder's positions.
        After a prompt, byte-level tokenizers (GPT-2's) spell the first word with the space before it; others ignore the space.
        """
        room = min(max_tokens, self.room().most) - 1
        captions = [f" {caption}" for caption in captions] if self.prompt_ids() else captions
        ids = self.tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"] if captions else []
        return [caption[:room] for caption in ids], sum(len(caption) > room for caption in ids)

    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        return list(self.tokenizer(self.prompt, add_special_tokens=False)["input_ids"]) if self.prompt else []

    @property
    def pad_id(self) -> int:
        """A token for positions that no mask lets through."""
        pad = self.tokenizer.pad_token_id
        return int(self.end_id if pad is None else pad)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which matrix products are computed in this captioner's precision."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def train(self, mode: bool = True) -> CaptionerModel:
        """Training mode for what learns. Frozen parts stay in evaluation mode (no dropout, fixed statistics)."""
        super().train(mode)
        if mode:
            for part in PARTS:
                evaluate_frozen([module for _, module in self.part_modules(part)])
            if hasattr(self.model, "peft_config"):  # running statistics of what is frozen are not saved with an adapter
                for norm in (module for module in self.modules() if isinstance(module, _BatchNorm)):
                    evaluate_frozen([norm])
        return self

    def part_modules(self, part: str) -> Iterator[tuple[str, nn.Module]]:
        """The modules of a part with their names, adapters included."""
        prefixes = {part: self.part_prefixes()[part]}
        return ((name, module) for name, module in self.named_modules() if part_of(name, prefixes))

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The parameters of each of `PARTS` with their names; a shared parameter counts once."""
        found: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in PARTS}
        prefixes = self.part_prefixes()
        for name, parameter in self.named_parameters():
            if part := part_of(name, prefixes):
                found[part].append((name, parameter))
        return found

    def vision_learns(self) -> bool:
        """Whether training changes the image encoder, and so the features of a picture."""
        return any(parameter.requires_grad for _, parameter in self.parts()["vision"])

    def core(self) -> PreTrainedModel:
        """The transformers model, unwrapped from PEFT if need be."""
        return cast(PreTrainedModel, self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model)
