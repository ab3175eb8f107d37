"""From a plan to a captioner that is ready to learn."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from captrain.errors import ModelError, SettingsError
from captrain.models.adapters import check_saved_whole
from captrain.models.build import PreparationChanges, build_encoder_decoder, build_prefix, load_pretrained
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import LEAST, Decoding
from captrain.models.device import compile_captioner
from captrain.models.families import family_named
from captrain.models.layers.attention import quicken_dropout
from captrain.models.lora import add_lora
from captrain.models.vocabulary import RoundTrip, spread_captions
from captrain.models.what_learns import checkpoint_activations, freeze, lower_frozen, quantization
from captrain.records import Sample
from captrain.training.captions import check_longest, check_words
from captrain.training.plan import (
    AllWeights,
    CaptionerStart,
    FromCheckpoint,
    FromParts,
    Learning,
    NewAdapters,
    Placement,
)
from captrain.training.run_folder.base_weights import keep_travelling_base
from captrain.training.run_folder.folder import RunFolder

logger = logging.getLogger(__name__)


def build_captioner(
    start: CaptionerStart, captions: Iterable[str], base: Path | None, question: str = ""
) -> CaptionerModel:
    """The captioner before training: from the run's `base` if there is one, from a checkpoint, or newly joined.

    `question` is the data's own question; it becomes the prompt if neither the settings nor the checkpoint have one.
    """
    origin, place = start.origin, start.place
    quantize = quantization(place.quantize, place.device) if place.quantize else None
    kept = str(base) if base is not None and base.is_dir() else None
    if kept is not None and not start.continues:
        captioner = load_captioner(kept, quantize)
    elif isinstance(origin, FromCheckpoint):
        captioner = load_pretrained(origin.source, start.changes, quantize, kept or origin.base, start.continues)
        if start.changes.image_size is not None:
            _check_size(captioner, origin.source)
    else:
        captioner = _joined(origin, captions, start.changes)
    _set_prompt(captioner, start, question)
    captioner.decoding = _decoding(captioner, start)
    return captioner.eval()


def first_captioner(
    start: CaptionerStart, captions: Iterable[str], run: RunFolder | None, question: str = ""
) -> CaptionerModel:
    """The captioner that a run begins with. Whatever its adapter will need is on disk.

    Args:
        run: the run that saves it, and finds it again on resuming; None for a dry run, which saves nothing.
        question: the data's own question, see `build_captioner`.
    """
    captioner = build_captioner(start, captions, run.base if run else None, question)
    origin = start.origin
    if start.continues and isinstance(origin, FromCheckpoint):
        if run is not None:
            keep_travelling_base(captioner, origin.source, origin.base, run)
        return captioner
    merged = isinstance(start.learns, NewAdapters) and captioner.core().name_or_path == ""
    if run is not None and (merged or isinstance(origin, FromParts)):
        if not run.base.is_dir():
            run.save_base(captioner)
        captioner.core().name_or_path = str(run.base)
    if not merged or not start.place.quantize:
        return captioner
    if run is not None:
        return build_captioner(start, captions, run.base, question)
    with TemporaryDirectory(prefix="captrain-") as folder:
        save_captioner(captioner, Path(folder))
        return build_captioner(start, captions, Path(folder), question)


def _joined(origin: FromParts, captions: Iterable[str], changes: PreparationChanges) -> CaptionerModel:
    """A captioner of an encoder and a decoder."""
    parts = (origin.encoder, origin.decoder, origin.new, captions)
    if origin.mapper is None:
        return build_encoder_decoder(*parts, origin.vectors, changes, origin.seed)
    return build_prefix(*parts, origin.mapper, origin.vectors, changes, origin.seed)


def _set_prompt(captioner: CaptionerModel, start: CaptionerStart, question: str) -> None:
    """The prompt: from the settings, else the checkpoint, else the data's question if it fits, else the family."""
    if start.prompt is not None:
        captioner.prompt = start.prompt
        return
    if captioner.prompt == question:
        question = ""  # a run that goes on has it already
    if question and (reason := _no_question(captioner, start.origin, question)):
        logger.info("the data asks '%s', which is not the prompt: %s; --prompt gives one", question, reason)
    elif question:
        captioner.prompt = question
        logger.info("prompt: '%s', which the data asks; --prompt gives another, --prompt \"\" none", question)
    if isinstance(start.origin, FromCheckpoint):
        captioner.prompt = captioner.prompt or family_named(captioner.family).prompt


def _no_question(captioner: CaptionerModel, origin: FromCheckpoint | FromParts, question: str) -> str:
    """Why the data's question can't be the prompt; "" if it can."""
    if captioner.prompt:
        return f"the model has its own, '{captioner.prompt}'"
    if isinstance(origin, FromParts) and origin.decoder is None:
        return "a new decoder knows the words of captions alone"
    tokens = len(captioner.tokenizer(question, add_special_tokens=False)["input_ids"])
    room = captioner.max_positions - tokens - 1
    if room < captioner.max_positions // 2:
        return f"its {tokens} tokens leave captions {max(room, 0)} of {captioner.max_positions} positions"
    return ""


def _decoding(captioner: CaptionerModel, start: CaptionerStart) -> Decoding:
    """How captions are generated, by the settings.

    Raises `SettingsError` if they ask for longer captions than the decoder has positions for.
    """
    rules, room = start.captions, captioner.room()
    longest = min(rules.max_tokens, room.most)
    around = f"{rules.text.prefix} {rules.text.suffix}"
    added = len(captioner.tokenizer(around, add_special_tokens=False)["input_ids"])
    if added > longest - LEAST:
        raise SettingsError(
            f"prefix, suffix: found {added} tokens, which leave no room in captions of at most {longest}; make them "
            "shorter, or give words that are not to be learned as --prompt"
        )
    return room.fitted(start.decoding, start.asked_lengths)


def _check_size(captioner: CaptionerModel, source: str) -> None:
    """Raise `ModelError` unless the image encoder takes pictures of this size: many encoders have a fixed number of positions."""
    spec = captioner.image_spec
    try:
        with torch.no_grad():
            captioner.encode(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8))
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{source}: does not take pictures of {spec.height} x {spec.width} pixels ({str(error).splitlines()[0]}); "
            "leave out --image-size, or give a size that the checkpoint was made for"
        ) from None


def _check_mirror(captioner: CaptionerModel) -> None:
    """Raise `ModelError` unless the vectors of a mirrored picture can be mirrored back."""
    spec = captioner.image_spec
    with torch.no_grad():
        captioner.encode(
            torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8, device=captioner.device), mirror=True
        )


def check_captions_fit(captioner: CaptionerModel, samples: Sequence[Sample], start: CaptionerStart) -> RoundTrip:
    """Check, before anything is computed, that the tokenizer and the decoder can hold some of the training captions.

    Raises `DataError` if the tokenizer loses too many words, unless the settings accept that; `SettingsError` if
    captions are longer than the decoder's positions and the settings ask for their whole length.
    """
    rules = start.captions
    captions = rules.text.clean(tuple(spread_captions(samples)))
    if rules.needs_room:
        check_longest(captioner, captions, rules.max_tokens)
    is_joined = isinstance(start.origin, FromParts)
    return check_words(captioner, captions, accept_lost=rules.accepts_lost_words, is_joined=is_joined)


def place(captioner: CaptionerModel, where: Placement) -> None:
    """Move a captioner to its device and set its precision. Channels-last memory makes convolutions faster."""
    if where.quantize:  # the weights are on the GPU already, and can't be moved
        captioner.mean, captioner.std = captioner.mean.to(where.device), captioner.std.to(where.device)
    else:
        captioner.to(device=where.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    captioner.precision = where.precision
    if captioner.decoding.mirror:
        _check_mirror(captioner)


def adapt(captioner: CaptionerModel, learning: Learning) -> None:
    """Choose the weights that learn. With adapters and bf16 products, frozen weights are stored in bf16.

    Raises `SettingsError` for patch dropout if the vectors belong to a sentence and not to a picture.
    """
    if learning.patch_dropout and not family_named(captioner.family).sees_patches:
        raise SettingsError(f"patch_dropout: a {captioner.family} captioner reads no patches; leave it out")
    captioner.label_smoothing = learning.label_smoothing
    captioner.patch_dropout = learning.patch_dropout
    captioner.groups_rows = learning.groups_rows
    if isinstance(learning.what, AllWeights):
        freeze(captioner, learning.what.frozen)
    else:
        torch.manual_seed(learning.seed)
        if isinstance(learning.what, NewAdapters):
            add_lora(captioner, learning.what.lora, learning.what.fresh_modules)
        if captioner.precision == torch.bfloat16:
            lower_frozen(captioner)
    check_saved_whole(captioner)
    quicken_dropout(captioner)
    if learning.recomputes:
        checkpoint_activations(captioner)
    if learning.compiles:
        compile_captioner(captioner)
