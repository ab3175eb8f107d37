"""Generating captions with `generate` of transformers; an image's keys and values are computed once for all its beams.

Also the room for a caption: how many tokens the decoder's positions leave after the image, the start token and the prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, PreTrainedModel

from captrain.errors import SettingsError
from captrain.models.layers.packing import IGNORED
from captrain.settings.load import validate
from captrain.settings.schema import GenerationSettings
from captrain.settings.schema.conflicts import conflict_of_lengths

logger = logging.getLogger(__name__)


FOR_SAMPLING = ("top_p", "temperature")
"""Settings that only sampling uses."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How captions are generated: greedy (1 beam), beam search, or nucleus sampling (`sample`).

    With `mirror` the features are the mean of those of the picture and of its mirror image.

    Raises `SettingsError` for values that the settings of section `generation` refuse.
    """

    beams: int = 3
    max_new_tokens: int = 30
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    mirror: bool = False

    def __post_init__(self) -> None:
        checked = validate(GenerationSettings, asdict(self), "generation")
        for name, value in checked:
            object.__setattr__(self, name, value)
        if conflict := conflict_of_lengths(checked):
            raise SettingsError(f"generation: {conflict}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Decoding:
        """From saved settings. Unknown names, of other versions, are left out.

        >>> Decoding.from_dict({"beams": 5, "made_up": 1}).beams
        5
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to save with a model."""
        return asdict(self)

    def generation_config(self, start: int, end: int, pad: int) -> GenerationConfig:
        """The same as transformers takes it."""
        config: dict[str, Any] = {
            "num_beams": 1 if self.sample else self.beams,
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens or None,
            "do_sample": self.sample,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "repetition_penalty": self.repetition_penalty if self.repetition_penalty != 1.0 else None,
        }
        if self.sample:
            config |= {"top_p": self.top_p, "top_k": 0, "temperature": self.temperature}
        elif self.beams > 1:
            config |= {"length_penalty": self.length_penalty}
        return GenerationConfig(**{name: value for name, value in config.items() if value is not None})


class DecodingChanges(TypedDict, total=False):
    """Changes to how captions are written: the fields of `Decoding`, each of which may be left out."""

    beams: int
    """Beams of the beam search; 1 is greedy search."""
    max_new_tokens: int
    """Longest caption in tokens."""
    min_new_tokens: int
    """Shortest caption in tokens."""
    length_penalty: float
    """Above 1 favours longer captions, below 1 shorter ones."""
    sample: bool
    """Sample tokens at random (nucleus sampling) instead of taking the best."""
    top_p: float
    """With `sample`: draw from the smallest set of tokens that have this much probability together."""
    temperature: float
    """With `sample`: below 1 prefers likely tokens more, above 1 less."""
    repetition_penalty: float
    """Above 1 makes words that were written already less likely."""
    mirror: bool
    """Encode the mirrored picture too and average both: better captions, twice the encoding."""


@dataclass(frozen=True, slots=True)
class Written:
    """One generated caption: token ids (without the end token), text, and mean log-probability per token (end included)."""

    tokens: list[int]
    text: str
    score: float


class SharedFeaturesCache(EncoderDecoderCache):
    """A cache in which all beams of an image share the image's keys and values, so that these never change places."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the keys and values of the words as the beams go on; those of the image stay where they are."""
        self.self_attention_cache.reorder_cache(beam_idx)


@dataclass(frozen=True, slots=True)
class GenerateInputs:
    """What `generate` of transformers takes beside pixels, and how many tokens come before the caption in its output.

    Attributes:
        argument: its name. ids: token ids. before: tokens of the output before the caption.
        pictures: how many times the `placeholder` of the picture comes before the ids.
    """

    argument: str
    ids: list[int]
    before: int
    pictures: int = 0
    placeholder: int = 0

    def code(self) -> str:
        """The ids as Python code.

        >>> GenerateInputs("input_ids", [2, 7], 2).code(), GenerateInputs("input_ids", [2], 9, 8, 50265).code()
        ('[2, 7]', '[50265] * 8 + [2]')
        """
        return f"[{self.placeholder}] * {self.pictures} + {self.ids}" if self.pictures else str(self.ids)


@torch.no_grad()
def generate_cross_attending(
    decoder: PreTrainedModel,
    context: Tensor,
    prompt: list[int],
    config: GenerationConfig,
    shared: bool,
    first_position: int = 0,
) -> list[list[int]]:
    """Token ids of one caption for each image, without start, prompt, end and padding.

    Args:
        decoder: a causal decoder with cross-attention.
        context: (I images, C vectors, H), what it attends to.
        prompt: ids that every caption begins with, the start token first.
        shared: whether the decoder's attention is `attend`, so that beams can share keys and values.
        first_position: the position of a caption's first token.
    """
    images = context.shape[0]
    input_ids = torch.tensor([prompt] * images, device=context.device)
    options: dict[str, Any] = {"encoder_hidden_states": context}
    if shared:
        # With the cache filled the decoder only asks whether there are encoder states, not what they are.
        options = {
            "encoder_hidden_states": context[:, :1],
            "past_key_values": _image_cache(decoder, context, input_ids),
        }
    if first_position:
        positions = torch.arange(first_position, first_position + len(prompt), device=context.device)
        options["position_ids"] = positions.expand(images, -1)
    generated = decoder.generate(
        input_ids=input_ids, attention_mask=torch.ones_like(input_ids), generation_config=config, **options
    )
    return [until(row, config.eos_token_id) for row in generated[:, len(prompt) :].tolist()]


def _image_cache(decoder: PreTrainedModel, context: Tensor, input_ids: Tensor) -> SharedFeaturesCache:
    """The image's keys and values in every layer, from one step of the decoder; the keys and values of its word are dropped."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    first = input_ids[:, :1]
    seen = torch.ones_like(first)
    decoder(first, attention_mask=seen, encoder_hidden_states=context, past_key_values=cache, use_cache=True)
    return SharedFeaturesCache(DynamicCache(), cache.cross_attention_cache)


def until(tokens: list[int], end: int) -> list[int]:
    """The tokens before the first end token.

    >>> until([5, 6, 2, 0], end=2)
    [5, 6]
    """
    return tokens[: tokens.index(end)] if end in tokens else tokens


def mean_log_probs(logits: Tensor, labels: Tensor, lengths: list[int], longest: int) -> list[float]:
    """The mean log-probability per token of one caption in each row, end token included.

    Args:
        logits: (R, L, V). labels: (R, L), the tokens to predict, or `IGNORED`. lengths: tokens of each caption.
        longest: at this length a caption was cut off, and has no end token.

    >>> found = mean_log_probs(torch.zeros(1, 3, 2), torch.tensor([[0, 1, 1]]), [2], longest=9)
    >>> [round(value, 4) for value in found]
    [-0.6931]
    """
    losses = cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    for row, length in enumerate(lengths):
        if length >= longest:
            last = int((labels[row] != IGNORED).nonzero()[-1])
            losses[row, last] = 0.0
    counts = [length + (length < longest) for length in lengths]
    return [-float(total) / max(count, 1) for total, count in zip(losses.sum(1), counts, strict=True)]


LEAST = 2
"""Tokens of the shortest caption: a word and the end token."""


@dataclass(frozen=True, slots=True)
class Room:
    """The positions of a decoder: some are for the image, some for start token and prompt, the rest for the caption.

    Attributes:
        family: of the captioner. positions: all of them. image: those of the image. before: those of start token and prompt.

    >>> room = Room("blip", positions=512, image=0, before=4)
    >>> room.most
    508
    """

    family: str
    positions: int
    image: int
    before: int

    def checked(self) -> Room:
        """This room. Raises `SettingsError` if the prompt leaves none for a caption."""
        if self.most < LEAST:
            prompt = self.before - 1
            raise SettingsError(
                f"prompt: found {prompt} tokens, which leave no room for a caption; {self.told}; "
                f"expected at most {prompt + self.most - LEAST}"
            )
        return self

    @property
    def most(self) -> int:
        """The longest caption in tokens, end token included."""
        return self.positions - self.image - self.before

    @property
    def told(self) -> str:
        """The limit in words, with its cause.

        >>> Room("prefix", 64, 9, 1).told
        'the decoder of this prefix captioner holds 64 positions, of which the image takes 9, start and prompt 1'
        """
        taken = f"of which {f'the image takes {self.image}, ' if self.image else ''}start and prompt"
        return (
            f"the decoder of this {self.family} captioner holds {self.positions} positions, "
            f"{taken}{'' if self.image else ' take'} {self.before}"
        )

    def require(self, name: str, tokens: int) -> None:
        """Raise `SettingsError` unless captions of `tokens` tokens fit, which the setting `name` asks for."""
        if tokens > self.most:
            raise SettingsError(f"{name}: found {tokens}, but {self.told}; expected at most {self.most}")

    def fitted(self, decoding: Decoding, asked: Collection[str] = ()) -> Decoding:
        """A decoding whose captions fit.

        A length that comes from a default or from another model is lowered, with a warning. Raises `SettingsError` if a length
        among the settings that were `asked` for does not fit.
        """
        for name in ("max_new_tokens", "min_new_tokens"):
            if name in asked or name == "min_new_tokens":
                self.require(name, getattr(decoding, name))
        if decoding.max_new_tokens <= self.most:
            return decoding
        logger.warning("captions end at %d tokens, not at %d: %s", self.most, decoding.max_new_tokens, self.told)
        return replace(decoding, max_new_tokens=self.most)
