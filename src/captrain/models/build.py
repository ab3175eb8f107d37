"""From settings to a captioner: load one, or join one from an encoder and a decoder.

A new prefix captioner: from an encoder, a language model (pretrained or new) and a mapper of given sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from captrain.data.images import Decode, ImageSpec
from captrain.errors import ModelError
from captrain.models.adapters import has_adapter, merge_adapter
from captrain.models.captioner import CaptionerModel
from captrain.models.checkpoint.folder import clear_errors, holds_adapter, load_captioner
from captrain.models.checkpoint.image_preparation import Resize, adjust, read_preparation
from captrain.models.checkpoint.loading import load_model, read_config
from captrain.models.contexts import evaluating
from captrain.models.families.encoder_decoder import EncoderDecoderCaptioner, join, load_decoder, new_decoder
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
class DecoderSizes:
    """A decoder from scratch."""

    layers: int
    width: int
    heads: int
    dropout: float
    vocabulary_size: int


def pretrained(
    source: str,
    image_size: int | None = None,
    resize: Resize | None = None,
    decode: Decode | None = None,
    quantize: BitsAndBytesConfig | None = None,
    base: str | None = None,
    continues: bool = False,
) -> CaptionerModel:
    """A captioner from a checkpoint, its image preparation changed and its weights quantised where asked.

    An adapter is merged into its base, in full precision: what it learned would be rounded away in few bits. With `continues` it
    stays apart and learns on.

    Args:
        base: of an adapter, the model that it was trained on, in place of the one that it names.

    Raises `ModelError` where there is no such checkpoint, or no adapter that could go on.
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
    captioner.image_spec = adjust(captioner.image_spec, image_size, resize, decode)
    return captioner


def joined(
    encoder: str,
    decoder: str | None,
    tokenizer: str,
    sizes: DecoderSizes,
    captions: Iterable[str],
    vectors: str = "all",
    image_size: int | None = None,
    resize: Resize | None = None,
    decode: Decode | None = None,
    seed: int = 0,
) -> CaptionerModel:
    """A new encoder-decoder captioner.

    Args:
        encoder: a vision encoder, folder or hub id. decoder: a text decoder, or None for a new one of `sizes`.
        tokenizer: of a new decoder; `words` and `word-pieces` are trained on `captions`.
        vectors: `all` or `pooled`. seed: of the new weights.
    """
    torch.manual_seed(seed)
    with clear_errors(encoder):
        spec = adjust(read_preparation(encoder, image_size), image_size, resize, decode)
        vision = load_encoder(encoder, vectors, spec.height, spec.width)
    if decoder is None:
        vocabulary = make_tokenizer(tokenizer, captions, sizes.vocabulary_size)
        language = new_decoder(vocabulary, sizes.layers, sizes.width, sizes.heads, sizes.dropout)
    else:
        with clear_errors(decoder):
            language, vocabulary = load_decoder(decoder), load_tokenizer(decoder)
    model = join(vision, language, vocabulary)
    if decoder is None and vocabulary.unk_token_id != vocabulary.eos_token_id:
        model.generation_config.suppress_tokens = [vocabulary.unk_token_id]  # no caption says "unknown"
    return EncoderDecoderCaptioner(model, vocabulary, spec)


@dataclass(frozen=True, slots=True)
class Mapper:
    """A mapper from scratch; ClipCap's are an MLP and a transformer of 8 layers and 8 heads, prefix and projection of 10.

    `positions` are for all vectors of an encoder, whose number then is the `projection_length`.
    """

    kind: MapperKind = "mlp"
    prefix_length: int = 10
    projection_length: int = 10
    layers: int = 8
    heads: int = 8
    positions: bool = False
    normalize: bool = False


def prefixed(
    encoder: str,
    language: str | None,
    tokenizer: str,
    sizes: DecoderSizes,
    captions: Iterable[str],
    mapper: Mapper,
    vectors: Vectors = "pooled",
    image_size: int | None = None,
    resize: Resize | None = None,
    decode: Decode | None = None,
    seed: int = 0,
) -> PrefixCaptioner:
    """A new prefix captioner.

    Args:
        encoder: a vision encoder, folder or hub id. language: a language model, or None for a new GPT-2 of `sizes`.
        tokenizer: of a new language model; `words` and `word-pieces` are trained on `captions`.
        vectors: `all` or `pooled`; of CLIP the pooled one is its projected embedding. seed: of the new weights.
    """
    torch.manual_seed(seed)
    with clear_errors(encoder):
        spec = adjust(read_preparation(encoder, image_size), image_size, resize, decode)
        vision = load_vision(encoder, vectors, spec)
    if language is None:
        vocabulary = make_tokenizer(tokenizer, captions, sizes.vocabulary_size)
        model = new_language(vocabulary, sizes.layers, sizes.width, sizes.heads, sizes.dropout)
    else:
        with clear_errors(language):
            model, vocabulary = load_language(language), load_tokenizer(language)
    joined = join_prefix(vision, model, vocabulary, mapper, vectors, spec)
    if language is None and vocabulary.unk_token_id != vocabulary.eos_token_id:
        joined.generation_config.suppress_tokens = [vocabulary.unk_token_id]  # no caption says "unknown"
    return PrefixCaptioner(joined, vocabulary, spec)


def load_vision(source: str, vectors: Vectors, spec: ImageSpec) -> PreTrainedModel:
    """A vision encoder from a folder or hub id; of CLIP, for its pooled vector, the image tower with its projection."""
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
    """One model of an encoder and a language model, with a new mapper between. Raises `ModelError` when they do not fit."""
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
