"""What writes captions, as it is remembered beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from captrain.data.machine import LINE_KEY, Maker, stated
from captrain.features.encoder import weights_digest
from captrain.inference.captioning import Writer
from captrain.models.decoding import Decoding
from captrain.records import Caption


def maker_of(model: str, writer: Writer, decoding: Decoding) -> Maker:
    """A model that begins to write now, in this way."""
    captioner = writer.captioner
    return Maker.now(model, maker_id(weights_of(writer), captioner.prompt, captioner.image_spec.to_dict(), decoding))


def maker_id(weights: str, prompt: str, preparation: Mapping[str, Any], decoding: Decoding) -> str:
    """An id that two writers share if they write the same: of weights, prompt, pixels and decoding, 12 letters."""
    facts = json.dumps([weights, prompt, preparation, decoding.to_dict()], sort_keys=True, default=str)
    return hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()


def weights_of(writer: Writer) -> str:
    """The digest of all weights."""
    return weights_digest(chain(writer.captioner.named_parameters(), writer.captioner.named_buffers()))


def machine_line(caption: Caption, maker: str) -> dict[str, Any]:
    """A line of a file of captions, which says what wrote it."""
    return {**caption.to_dict(), LINE_KEY: stated([maker])[0]}
