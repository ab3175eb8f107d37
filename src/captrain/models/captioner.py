"""The contract every family keeps: an image half, a text half, and the seam between them.

Shape letters: I images, R rows (one an image), L tokens of a row, N vectors of an image, D width, T learned tokens, V vocabulary.

The parts of a captioner, and how the names of its modules and parameters tell them apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from captrain.data.images import ImageSpec
from captrain.models.contexts import evaluating, keep_still
from captrain.models.decoding import Decoding, Room, Written, write_tokens
from captrain.models.layers.attention import causal_caption_mask
from captrain.models.layers.packing import IGNORED, PackedRows, even_groups, pack, token_loss
from captrain.models.layers.vision import drop_patches, mean_with_mirrored, scale
from captrain.models.zoo import FAMILY_DEFAULTS, FamilyDefaults


@dataclass
class CaptionerOutput(ModelOutput):
    """`loss`: mean over the learned tokens; `logits` (T, V) and `targets` (T) of the learned tokens, row after row."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    targets: Tensor | None = None


class CaptionerModel(nn.Module, ABC):
    """A transformers model of one family, seen as encoder, features and decoder.

    Attributes:
        model: the real transformers model, perhaps inside a PEFT model.
        tokenizer: its tokenizer; captions are tokenised without special tokens.
        image_spec: how pictures become pixels.
        prompt: words before every caption. decoding: how captions are written unless asked otherwise.
        origins: of training that began from an adapter, the models that it went through, oldest first.
    """

    family: ClassVar[str]
    shares_features: bool = True
    image_positions: int = 0  # of the decoder, which the image takes beside `max_positions`

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_spec: ImageSpec) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.image_spec = image_spec
        self.prompt = ""
        self.decoding = Decoding()
        self.origins: tuple[str, ...] = ()
        self.precision = torch.float32
        self.label_smoothing = FAMILY_DEFAULTS.get(self.family, FamilyDefaults()).label_smoothing
        self.patch_dropout = 0.0
        self.groups_rows = False
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(image_spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image_spec.std).view(1, -1, 1, 1), persistent=False)

    # What a family says about itself.

    @property
    @abstractmethod
    def start_id(self) -> int:
        """The token that begins every caption."""

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The token that ends every caption, and is learned."""

    @property
    @abstractmethod
    def decoder(self) -> PreTrainedModel:
        """The text half, able to generate."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Most tokens a caption can have, start and prompt included."""

    @property
    def first_position(self) -> int:
        """The number of a caption's first position."""
        return 0

    @abstractmethod
    def look(self, pixels: Tensor) -> Tensor:
        """The image half: normalised pixels (I, 3, height, width) -> vectors (I, N, D)."""

    @abstractmethod
    def context(self, features: Tensor) -> Tensor:
        """The bridge: what the text half attends to, from vectors (I, N, D) -> (I, N, D')."""

    @abstractmethod
    def read(self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor) -> Tensor:
        """The text half without its head: hidden states (R, L, D) of packed rows."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores (..., V) of hidden states (..., D)."""

    @abstractmethod
    def part_prefixes(self) -> dict[str, tuple[str, ...]]:
        """For each part, how the names of its modules begin."""

    @abstractmethod
    def lora_targets(self, part: str) -> str:
        """A regular expression that the names of a part's attention and feed-forward layers match whole."""

    # What follows from it.

    def encode(self, pixels: Tensor, mirror: bool = False) -> Tensor:
        """Vectors (I, N, D) of pictures (I, height, width, 3), uint8, in the order of rows and columns people see.

        With `mirror` the mean of these and of those of their mirror images, as `Decoding.mirror` has it.
        """
        if mirror:
            return mean_with_mirrored(self.encode(pixels), self.encode(pixels.flip(2)), *pixels.shape[1:3])
        scaled = scale(pixels, self.mean.flatten(), self.std.flatten())
        with self.autocast():
            return self.look(scaled)

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
        """Loss of packed rows (R, L), from kept features (R, N, D) or from pixels (R, height, width, 3) uint8.

        The loss is the cross entropy summed over all learned tokens, divided by their number (or by `num_items_in_batch`,
        the number in all batches of one step). Only learned tokens reach the head.
        """
        vectors = self.encode(cast(Tensor, pixels)) if features is None else features
        with self.autocast():
            hidden, targets = self._read_learned(self._seen(vectors), input_ids, position_ids, caption_ids, labels)
            logits = self.head(hidden)
        total = token_loss(logits, targets, self.label_smoothing)
        loss = total / (targets.numel() if num_items_in_batch is None else num_items_in_batch)
        return CaptionerOutput(loss=loss, logits=logits, targets=targets)

    def _read_learned(self, context: Tensor, *packed: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (T, D) of the learned tokens of packed rows, and the tokens to be predicted there (T).

        With `groups_rows` rows of similar length are read together, one group after another: the same, for less padding.
        """
        hidden, targets = [], []
        for rows, longest in self._groups(packed[2]):
            input_ids, position_ids, caption_ids, labels = (part[rows, :longest] for part in packed)
            learned = labels != IGNORED
            mask = causal_caption_mask(caption_ids)
            hidden.append(self.read(context[rows], input_ids, position_ids, mask)[learned])
            targets.append(labels[learned])
        return torch.cat(hidden), torch.cat(targets)

    def _groups(self, caption_ids: Tensor) -> list[tuple[list[int] | slice, int]]:
        """Which rows are read together, and how many of their places."""
        if not (self.groups_rows and self.training):
            return [(slice(None), caption_ids.shape[1])]
        lengths = caption_ids.count_nonzero(1).tolist()
        groups = even_groups(lengths)
        return [(rows, lengths[rows[-1]]) for rows in groups] if len(groups) > 1 else [(slice(None), max(lengths))]

    def _seen(self, vectors: Tensor) -> Tensor:
        """The context of vectors; while it learns, without those that patch dropout takes."""
        context = self.context(vectors)
        return drop_patches(context, self.patch_dropout) if self.training and self.patch_dropout else context

    @torch.no_grad()
    def generate(self, features: Tensor, decoding: Decoding | None = None) -> list[Written]:
        """Captions of features (I, N, D), one an image, each with its mean token log-probability."""
        decoding = decoding or self.decoding
        config = self.generation_config(decoding)
        with evaluating(self), self.autocast():
            captions = self.write(self.context(features), config)
            scores = self.log_probabilities(features, captions, config.max_new_tokens)
        texts = self.tokenizer.batch_decode(captions, skip_special_tokens=True)
        return [Written(*line) for line in zip(captions, [text.strip() for text in texts], scores, strict=True)]

    def write(self, context: Tensor, config: GenerationConfig) -> list[list[int]]:
        """Token ids written for each image, of what the text half attends to (I, N, D')."""
        prompt = [self.start_id, *self.prompt_ids()]
        return write_tokens(self.decoder, context, prompt, config, self.shares_features, self.first_position)

    @torch.no_grad()
    def log_probabilities(self, features: Tensor, captions: list[list[int]], longest: int) -> list[float]:
        """Mean log-probability a token of one caption an image; the end token counts unless the length limit cut it off."""
        rows = self.pack([[caption] for caption in captions]).to(features.device)
        with self.autocast():
            mask = causal_caption_mask(rows.caption_ids)
            logits = self.head(self.read(self.context(features), rows.input_ids, rows.position_ids, mask))
        losses = cross_entropy(logits.float().transpose(1, 2), rows.labels, ignore_index=IGNORED, reduction="none")
        for row, caption in enumerate(captions):
            if len(caption) >= longest:
                last = int((rows.labels[row] != IGNORED).nonzero()[-1])
                losses[row, last] = 0.0
        counts = [len(caption) + (len(caption) < longest) for caption in captions]
        return [-float(total) / max(count, 1) for total, count in zip(losses.sum(1), counts, strict=True)]

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """How to write, in transformers' words, within the decoder's positions; tokens that the model suppresses stay so."""
        config = decoding.generation_config(self.start_id, self.end_id, self.pad_id)
        config.max_new_tokens = min(config.max_new_tokens, Room.of(self).most)
        config.suppress_tokens = getattr(self.core().generation_config, "suppress_tokens", None)
        return config

    def pack(self, rows: list[list[list[int]]]) -> PackedRows:
        """Packed rows with this captioner's start, end and prompt."""
        return pack(rows, self.start_id, self.end_id, self.prompt_ids())

    def tokenize(self, captions: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
        """Token ids of captions without special tokens, and how many captions were cut.

        They are cut so that the end token still fits into `max_tokens`, and with the prompt into the decoder's positions.
        Behind a prompt, byte-level tokenizers (GPT-2's) spell a first word with the space before it; others don't mind.
        """
        room = min(max_tokens, Room.of(self).most) - 1
        captions = [f" {caption}" for caption in captions] if self.prompt_ids() else captions
        ids = self.tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"] if captions else []
        return [caption[:room] for caption in ids], sum(len(caption) > room for caption in ids)

    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        return list(self.tokenizer(self.prompt, add_special_tokens=False)["input_ids"]) if self.prompt else []

    @property
    def pad_id(self) -> int:
        """A token for places that nobody reads."""
        pad = self.tokenizer.pad_token_id
        return int(self.end_id if pad is None else pad)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in this captioner's precision."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def train(self, mode: bool = True) -> CaptionerModel:
        """Training mode for what learns; frozen parts stay as they are when captioning (no dropout, fixed statistics)."""
        super().train(mode)
        if mode:
            for part in PARTS:
                keep_still([module for _, module in self.part_modules(part)])
            if hasattr(self.model, "peft_config"):  # running statistics of what is frozen are not saved with an adapter
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        keep_still([module])
        return self

    def part_modules(self, part: str) -> Iterator[tuple[str, nn.Module]]:
        """Modules of a part, with their names in this module (adapters included)."""
        prefixes = {part: self.part_prefixes()[part]}
        return ((name, module) for name, module in self.named_modules() if part_of(name, prefixes))

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameters of `vision`, `bridge` and `language` by name; a shared one counts once."""
        found: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in PARTS}
        prefixes = self.part_prefixes()
        for name, parameter in self.named_parameters():
            if part := part_of(name, prefixes):
                found[part].append((name, parameter))
        return found

    def vision_learns(self) -> bool:
        """Whether a training step changes what the image half makes of a picture."""
        return any(parameter.requires_grad for _, parameter in self.parts()["vision"])

    def core(self) -> PreTrainedModel:
        """The transformers model, out of its PEFT wrapping if there is one."""
        return cast(PreTrainedModel, self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model)


PARTS = ("vision", "bridge", "language")


def part_of(name: str, prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """The first part whose prefixes a module's or parameter's name begins with; "" where none does.

    >>> part_of("model.vision_model.layers.0", {"vision": ("vision_model",), "language": ("text_decoder",)})
    'vision'
    >>> part_of("model.vision_model_norm", {"vision": ("vision_model",)})
    ''
    """
    plain = plain_name(name)
    for part in PARTS:
        if any(plain == prefix or plain.startswith(prefix + ".") for prefix in prefixes.get(part, ())):
            return part
    return ""


def plain_name(name: str) -> str:
    """A module's or parameter's name as transformers knows it, without the wrappings of this class and of PEFT.

    >>> plain_name("model.base_model.model.text_decoder.bert.lora_A.default.weight")
    'text_decoder.bert.lora_A.default.weight'
    """
    name = name.removeprefix("model.")
    return name.removeprefix("base_model.model.")
