"""From settings to a captioner that is ready to learn."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from captrain.errors import ModelError, SettingsError
from captrain.models.adapters import check_saved_whole
from captrain.models.build import (
    Mapper,
    NewDecoder,
    PreparationChanges,
    build_encoder_decoder,
    build_prefix,
    load_pretrained,
)
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import LEAST, Decoding
from captrain.models.device import choose_device, choose_precision
from captrain.models.families import family_named, joined_family
from captrain.models.layers.attention import quicken_dropout
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.vocabulary import RoundTrip, spread_captions
from captrain.models.what_learns import checkpoint_activations, freeze, lower_frozen, quantization
from captrain.records import Sample
from captrain.settings.schema import ModelSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import asked, frozen_of, method_of
from captrain.training.captions import check_longest, check_words
from captrain.training.resolve import caption_text, decided
from captrain.training.run_folder.base_weights import keep_travelling_base
from captrain.training.run_folder.folder import RunFolder

logger = logging.getLogger(__name__)


def build_captioner(
    settings: Settings, captions: Iterable[str], base: Path | None, question: str = ""
) -> CaptionerModel:
    """The captioner before training: from the run's `base` if there is one, from a checkpoint, or newly joined.

    `question` is the data's own question; it becomes the prompt if neither the settings nor the checkpoint have one.
    """
    model = settings.model
    quantize = quantization(model.quantize, choose_device(model.device)) if model.quantize else None
    kept = str(base) if base is not None and base.is_dir() else None
    if kept is not None and not model.continue_adapter:
        captioner = load_captioner(kept, quantize)
    elif model.encoder is None:
        own_base = kept or model.base
        changes = PreparationChanges(model.image_size, model.resize, model.decode)
        captioner = load_pretrained(model.model, changes, quantize, own_base, model.continue_adapter)
        if model.image_size is not None:
            _check_size(captioner, model.model)
    else:
        captioner = _joined(model, captions, settings.training.seed)
    _set_prompt(captioner, settings, question)
    captioner.decoding = _decoding(captioner, settings)
    return captioner.eval()


def first_captioner(
    settings: Settings, captions: Iterable[str], run: RunFolder | None, question: str = ""
) -> CaptionerModel:
    """The captioner that a run begins with. Whatever its adapter will need is on disk.

    Args:
        run: the run that saves it, and finds it again on resuming; None for a dry run, which saves nothing.
        question: the data's own question, see `build_captioner`.
    """
    captioner = build_captioner(settings, captions, run.base if run else None, question)
    model = settings.model
    if model.continue_adapter:
        if run is not None:
            keep_travelling_base(captioner, model.model, model.base, run)
        return captioner
    merged = method_of(model) == "lora" and captioner.core().name_or_path == ""
    if run is not None and (merged or model.encoder is not None):
        if not run.base.is_dir():
            run.save_base(captioner)
        captioner.core().name_or_path = str(run.base)
    if not merged or not model.quantize:
        return captioner
    if run is not None:
        return build_captioner(settings, captions, run.base, question)
    with TemporaryDirectory(prefix="captrain-") as folder:
        save_captioner(captioner, Path(folder))
        return build_captioner(settings, captions, Path(folder), question)


def _joined(model: ModelSettings, captions: Iterable[str], seed: int) -> CaptionerModel:
    """A captioner of an encoder and a decoder."""
    assert model.encoder is not None
    new = NewDecoder(
        model.decoder_layers, model.decoder_width, model.decoder_heads, model.decoder_dropout, model.vocabulary_size,
        model.tokenizer,
    )  # fmt: skip
    parts = (model.encoder, model.decoder, new, captions)
    changes = PreparationChanges(model.image_size, model.resize, model.decode)
    vectors = model.image_vectors or joined_family(model.join).image_vectors
    if model.join == "prefix":
        return build_prefix(*parts, _mapper(model), vectors, changes, seed)
    return build_encoder_decoder(*parts, vectors, changes, seed)


def _set_prompt(captioner: CaptionerModel, settings: Settings, question: str) -> None:
    """The prompt: from the settings, else the checkpoint, else the data's question if it fits, else the family."""
    prompt, model = settings.data.prompt, settings.model
    if prompt is not None:
        captioner.prompt = prompt
        return
    if captioner.prompt == question:
        question = ""  # a run that goes on has it already
    if question and (reason := _no_question(captioner, settings, question)):
        logger.info("the data asks '%s', which is not the prompt: %s; --prompt gives one", question, reason)
    elif question:
        captioner.prompt = question
        logger.info("prompt: '%s', which the data asks; --prompt gives another, --prompt \"\" none", question)
    if model.encoder is None:
        captioner.prompt = captioner.prompt or family_named(captioner.family).prompt


def _no_question(captioner: CaptionerModel, settings: Settings, question: str) -> str:
    """Why the data's question can't be the prompt; "" if it can."""
    if captioner.prompt:
        return f"the model has its own, '{captioner.prompt}'"
    if settings.model.encoder is not None and settings.model.decoder is None:
        return "a new decoder knows the words of captions alone"
    tokens = len(captioner.tokenizer(question, add_special_tokens=False)["input_ids"])
    room = captioner.max_positions - tokens - 1
    if room < captioner.max_positions // 2:
        return f"its {tokens} tokens leave captions {max(room, 0)} of {captioner.max_positions} positions"
    return ""


def _decoding(captioner: CaptionerModel, settings: Settings) -> Decoding:
    """How captions are generated, by the settings.

    Raises `SettingsError` if they ask for longer captions than the decoder has positions for.
    """
    data, room = settings.data, captioner.room()
    longest = min(data.max_tokens, room.most)
    added = len(captioner.tokenizer(f"{data.prefix} {data.suffix}", add_special_tokens=False)["input_ids"])
    if added > longest - LEAST:
        raise SettingsError(
            f"prefix, suffix: found {added} tokens, which leave no room in captions of at most {longest}; make them "
            "shorter, or give words that are not to be learned as --prompt"
        )
    generation = settings.generation
    return room.fitted(Decoding(**generation.model_dump()), asked(generation, "max_new_tokens", "min_new_tokens"))


def _mapper(model: ModelSettings) -> Mapper:
    """The mapper of a new prefix captioner."""
    return Mapper(
        model.mapper, model.prefix_length, model.projection_length, model.mapper_layers, model.mapper_heads,
        model.mapper_positions, model.normalize_vectors,
    )  # fmt: skip


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


def check_captions_fit(captioner: CaptionerModel, samples: Sequence[Sample], settings: Settings) -> RoundTrip:
    """Check, before anything is computed, that the tokenizer and the decoder can hold some of the training captions.

    Raises `DataError` if the tokenizer loses too many words, unless the settings accept that; `SettingsError` if
    captions are longer than the decoder's positions and the settings ask for their whole length.
    """
    data = settings.data
    captions = caption_text(data).clean(tuple(spread_captions(samples)))
    if asked(data, "max_tokens"):
        check_longest(captioner, captions, data.max_tokens)
    is_joined = settings.model.encoder is not None
    return check_words(captioner, captions, accept_lost=data.accept_lost_words, is_joined=is_joined)


def place(captioner: CaptionerModel, settings: ModelSettings) -> None:
    """Move a captioner to its device and set its precision. Channels-last memory makes convolutions faster."""
    device = choose_device(settings.device)
    if settings.quantize:  # the weights are on the GPU already, and can't be moved
        captioner.mean, captioner.std = captioner.mean.to(device), captioner.std.to(device)
    else:
        captioner.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    captioner.precision = choose_precision(settings.precision, device)
    if captioner.decoding.mirror:
        _check_mirror(captioner)


def adapt(captioner: CaptionerModel, settings: Settings) -> None:
    """Choose the weights that learn. With adapters and bf16 products, frozen weights are stored in bf16."""
    model = settings.model
    captioner.label_smoothing = decided(settings.training.label_smoothing)
    captioner.patch_dropout = _patch_dropout(captioner, settings.training)
    captioner.groups_rows = _groups_rows(captioner, settings)
    if model.method == "full":
        freeze(captioner, frozen_of(model))
    else:
        torch.manual_seed(settings.training.seed)
        if not model.continue_adapter:
            _add_lora(captioner, model)
        if captioner.precision == torch.bfloat16:
            lower_frozen(captioner)
    check_saved_whole(captioner)
    quicken_dropout(captioner)
    if model.checkpoint_activations:
        checkpoint_activations(captioner)


def _groups_rows(captioner: CaptionerModel, settings: Settings) -> bool:
    """Whether a batch's rows are decoded in groups of similar length: on CPUs, where padding costs more than a second pass.

    Not if weights are sharded over processes (all must make equally many passes), nor if the passes are compiled.
    """
    return captioner.device.type == "cpu" and settings.distributed.strategy == "ddp" and not settings.training.compile


def _patch_dropout(captioner: CaptionerModel, training: TrainingSettings) -> float:
    """The share of vectors to drop. Refused if the vectors belong to a sentence and not to a picture."""
    if training.patch_dropout and not family_named(captioner.family).sees_patches:
        raise SettingsError(f"patch_dropout: a {captioner.family} captioner reads no patches; leave it out")
    return training.patch_dropout


def _add_lora(captioner: CaptionerModel, model: ModelSettings) -> None:
    """The adapters that the settings ask for."""
    lora = LoraOptions(
        model.rank, model.alpha, model.dropout, model.lora_parts, model.target_modules, model.lora_layers, model.rslora,
        model.dora, model.lora_init,
    )  # fmt: skip
    add_lora(captioner, lora, _fresh_modules(model))


def _fresh_modules(model: ModelSettings) -> tuple[str, ...]:
    """Modules of a joined captioner that were never trained. Adapters are not enough for them: they learn whole."""
    if model.encoder is None:
        return ()
    if model.decoder is None:
        raise SettingsError(
            "method lora: a new decoder has nothing to adapt; use --method full, or give --decoder a pretrained one"
        )
    return joined_family(model.join).fresh_modules
