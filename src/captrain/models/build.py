"""Building captioners: from a checkpoint, or from an image encoder and a text decoder, pretrained or new."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import Decode, ImageSpec
from captrain.errors import ModelError
from captrain.models.adapters import has_adapter, merge_adapter
from captrain.models.checkpoint.folder import clear_errors, holds_adapter, load_captioner
from captrain.models.checkpoint.image_preparation import Resize, adjust, read_preparation
from captrain.models.checkpoint.loading import load_model, read_config
from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.models.families.encoder_decoder import (
    EncoderDecoderCaptioner,
    join_encoder_decoder,
    load_decoder,
    new_decoder,
)
from captrain.models.families.prefix.captioner import (
    PrefixCaptioner,
    check_language,
    check_room,
    load_language,
    new_language,
)
from captrain.models.families.prefix.mapper import MapperKind, PrefixConfig, Vectors, check_mapper, language_width
from captrain.models.families.prefix.model import PROJECTED, PrefixModel, vectors_of
from captrain.models.layers.vision import VisionVectors, load_encoder
from captrain.models.vocabulary import load_tokenizer, make_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewDecoder:
    """A text decoder from scratch, and its tokenizer: `words` or `word-pieces` trained on captions, or a folder or hub id."""

    layers: int
    width: int
    heads: int
    dropout: float
    vocabulary_size: int
    tokenizer: str = "words"

    def make_tokenizer(self, captions: Iterable[str]) -> PreTrainedTokenizerBase:
        """Its tokenizer, trained on captions where it is not given."""
        return make_tokenizer(self.tokenizer, captions, self.vocabulary_size)


@dataclass(frozen=True, slots=True)
class PreparationChanges:
    """Changes to the image preparation that a checkpoint states; None changes nothing."""

    image_size: int | None = None
    resize: Resize | None = None
    decode: Decode | None = None

    def apply(self, spec: ImageSpec) -> ImageSpec:
        """The changed preparation."""
        return adjust(spec, self.image_size, self.resize, self.decode)

    def read(self, source: str) -> ImageSpec:
        """The changed preparation of a checkpoint. Raises `ModelError` if its image size is unknown."""
        return self.apply(read_preparation(source, self.image_size))


UNCHANGED = PreparationChanges()


def load_pretrained(
    source: str,
    changes: PreparationChanges = UNCHANGED,
    quantize: BitsAndBytesConfig | None = None,
    base: str | None = None,
    continues: bool = False,
) -> CaptionerModel:
    """A captioner from a checkpoint.

    An adapter is merged into its base, in full precision: with few bits, rounding would undo what it learned. With `continues`
    it is not merged, and goes on learning.

    Args:
        changes: to the image preparation. quantize: how to quantise the weights.
        base: the model that an adapter was trained on, instead of the one that the adapter names.

    Raises `ModelError` if there is no such checkpoint, or no adapter that could go on.
    """
    if quantize is not None and not continues and holds_adapter(source):
        quantize = None
    captioner = load_captioner(source, quantize, base, adapter_learns=continues)
    if continues and not has_adapter(captioner):
        raise ModelError(f"continue_adapter: {source} has no adapter that could go on learning; leave it out")
    if has_adapter(captioner):
        name = str(captioner.core().name_or_path)
        captioner.origins = (*(captioner.origins or filter(None, [name])), source)
        if not continues:
            merge_adapter(captioner)
            logger.info("%s is an adapter: it was merged into its base %s", source, name or "in there")
    captioner.image_spec = changes.apply(captioner.image_spec)
    return captioner


def build_encoder_decoder(
    encoder: str,
    decoder: str | None,
    new: NewDecoder,
    captions: Iterable[str],
    vectors: str = "all",
    changes: PreparationChanges = UNCHANGED,
    seed: int = 0,
) -> CaptionerModel:
    """A new encoder-decoder captioner.

    Args:
        encoder: the folder or hub id of an image encoder. decoder: that of a text decoder, or None for the `new` one.
        captions: for the tokenizer of a new decoder. vectors: `all` or `pooled`. changes: to the encoder's image preparation.
        seed: of the new weights.
    """
    torch.manual_seed(seed)
    with clear_errors(encoder):
        spec = changes.read(encoder)
        vision = load_encoder(encoder, vectors, spec.height, spec.width)
    if decoder is None:
        vocabulary = new.make_tokenizer(captions)
        language = new_decoder(vocabulary, new.layers, new.width, new.heads, new.dropout)
    else:
        with clear_errors(decoder):
            language, vocabulary = load_decoder(decoder), load_tokenizer(decoder)
    model = join_encoder_decoder(vision, language, vocabulary)
    if decoder is None and vocabulary.unk_token_id != vocabulary.eos_token_id:
        model.generation_config.suppress_tokens = [vocabulary.unk_token_id]  # no caption says "unknown"
    return EncoderDecoderCaptioner(model, vocabulary, spec)


@dataclass(frozen=True, slots=True)
class Mapper:
    """A mapper from scratch. ClipCap's are an MLP, and a transformer of 8 layers and 8 heads, with a prefix of 10 vectors.

    Attributes:
        positions: whether `all` vectors of an encoder get learned positions; `projection_length` is then their number.
        normalize: whether vectors are scaled to length 1 first.
    """

    kind: MapperKind = "mlp"
    prefix_length: int = 10
    projection_length: int = 10
    layers: int = 8
    heads: int = 8
    positions: bool = False
    normalize: bool = False


def build_prefix(
    encoder: str,
    language: str | None,
    new: NewDecoder,
    captions: Iterable[str],
    mapper: Mapper,
    vectors: Vectors = "pooled",
    changes: PreparationChanges = UNCHANGED,
    seed: int = 0,
) -> PrefixCaptioner:
    """A new prefix captioner.

    Args:
        encoder: the folder or hub id of an image encoder. language: that of a language model, or None for the `new` one, a GPT-2.
        captions: for the tokenizer of a new language model. mapper: the sizes of the mapper between the two.
        vectors: `all` or `pooled`; CLIP's pooled vector is its projected embedding.
        changes: to the encoder's image preparation. seed: of the new weights.
    """
    torch.manual_seed(seed)
    with clear_errors(encoder):
        spec = changes.read(encoder)
        vision = load_vision(encoder, vectors, spec)
    if language is None:
        vocabulary = new.make_tokenizer(captions)
        model = new_language(vocabulary, new.layers, new.width, new.heads, new.dropout)
    else:
        with clear_errors(language):
            model, vocabulary = load_language(language), load_tokenizer(language)
    whole = join_prefix(vision, model, vocabulary, mapper, vectors, spec)
    if language is None and vocabulary.unk_token_id != vocabulary.eos_token_id:
        whole.generation_config.suppress_tokens = [vocabulary.unk_token_id]  # no caption says "unknown"
    return PrefixCaptioner(whole, vocabulary, spec)


def load_vision(source: str, vectors: Vectors, spec: ImageSpec) -> PreTrainedModel:
    """An image encoder from a folder or hub id; for CLIP's pooled vector, the image tower with its projection."""
    config = read_config(source)
    tower = getattr(config, "vision_config", config)
    if vectors == "pooled" and tower.model_type in PROJECTED:
        return load_model(PROJECTED[tower.model_type], source, tower)
    encoder = load_encoder(source, vectors, spec.height, spec.width)
    return encoder.encoder if isinstance(encoder, VisionVectors) else encoder


def join_prefix(
    encoder: PreTrainedModel,
    language: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mapper: Mapper,
    vectors: Vectors,
    spec: ImageSpec,
) -> PrefixModel:
    """One model of an encoder, a new mapper and a language model. Raises `ModelError` if they do not fit together."""
    name = language.config.name_or_path or "language model"
    check_language(language.config, name)
    check_room(language.config, mapper.prefix_length)
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if end is None:
        raise ModelError(f"{name}: its tokenizer has no end token; expected eos_token or sep_token")
    entries = int(language.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > entries:
        raise ModelError(f"{name}: its tokenizer has {len(tokenizer)} entries, the model only {entries}; use its own")
    with evaluating(encoder), torch.no_grad():
        example = vectors_of(encoder, torch.zeros(1, 3, spec.height, spec.width), vectors)
    config = PrefixConfig(
        vision=encoder.config.to_dict(),
        language=language.config.to_dict(),
        feature_size=example.shape[2],
        vectors=vectors,
        projected=type(encoder) in PROJECTED.values(),
        normalize=mapper.normalize,
        mapper=mapper.kind,
        prefix_length=mapper.prefix_length,
        projection_length=mapper.projection_length if vectors == "pooled" else example.shape[1],
        mapper_layers=mapper.layers,
        mapper_heads=mapper.heads,
        mapper_positions=mapper.positions,
    )
    check_mapper(config, language_width(language.config))
    model = PrefixModel(config, encoder, language)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.generation_config.decoder_start_token_id = getattr(language.config, "decoder_start_token_id", None)
    return model
