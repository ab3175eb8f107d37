"""From settings to a captioner: load one, or join one from an encoder and a decoder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import BitsAndBytesConfig

from captrain.data.images import Decode
from captrain.errors import ModelError
from captrain.models.adapters import has_adapter, merge_adapter
from captrain.models.bundle import clear_errors, holds_adapter, load_captioner
from captrain.models.captioner import Captioner
from captrain.models.encoder_decoder import EncoderDecoderCaptioner, join, load_decoder, new_decoder
from captrain.models.preparation import Resize, adjust, read_preparation
from captrain.models.vision import load_encoder
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
) -> Captioner:
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
) -> Captioner:
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
