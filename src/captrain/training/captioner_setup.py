"""From settings to a captioner that is ready to learn, and to settings without open ends."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from captrain.errors import ModelError, SettingsError
from captrain.models.adapters import check_saved_whole, lora_of
from captrain.models.build import DecoderSizes, Mapper, joined, prefixed, pretrained
from captrain.models.captioner import CaptionerModel
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.decoding import LEAST, Decoding, Room
from captrain.models.defaults import learning_rate_of
from captrain.models.device import PRECISIONS, choose_device, choose_precision
from captrain.models.layers.attention import quicken_dropout
from captrain.models.learning_parts import add_lora, checkpoint_activations, freeze, lower_frozen, quantization
from captrain.models.zoo import FAMILY_DEFAULTS
from captrain.settings.schema import ModelSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import asked, frozen_of, method_of

logger = logging.getLogger(__name__)


def build_captioner(
    settings: Settings, captions: Iterable[str], base: Path | None, question: str = ""
) -> CaptionerModel:
    """The captioner before any of its weights learned: from `base` if the run has one, from a checkpoint, or joined anew.

    `question` is what the data asks for its captions: the prompt, where neither settings nor the checkpoint have one.
    """
    model = settings.model
    quantize = quantization(model.quantize, choose_device(model.device)) if model.quantize else None
    kept = str(base) if base is not None and base.is_dir() else None
    if kept is not None and not model.continue_adapter:
        captioner = load_captioner(kept, quantize)
    elif model.encoder is None:
        own_base = kept or model.base
        captioner = pretrained(
            model.model, model.image_size, model.resize, model.decode, quantize, own_base, model.continue_adapter
        )
        if model.image_size is not None:
            _check_size(captioner, model.model)
    else:
        captioner = _joined(model, captions, settings.training.seed)
    _set_prompt(captioner, settings, question)
    captioner.decoding = _decoding(captioner, settings)
    return captioner.eval()


def _joined(model: ModelSettings, captions: Iterable[str], seed: int) -> CaptionerModel:
    """A captioner of an encoder and a decoder."""
    assert model.encoder is not None
    sizes = DecoderSizes(
        model.decoder_layers, model.decoder_width, model.decoder_heads, model.decoder_dropout, model.vocabulary_size
    )
    parts = (model.encoder, model.decoder, model.tokenizer, sizes, captions)
    picture = (model.image_size, model.resize, model.decode, seed)
    if model.join == "prefix":
        return prefixed(*parts, _mapper(model), model.image_vectors or "pooled", *picture)
    return joined(*parts, model.image_vectors or "all", *picture)


def _set_prompt(captioner: CaptionerModel, settings: Settings, question: str) -> None:
    """The prompt: of the settings, else the checkpoint's own, else the data's question if it fits, else the family's."""
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
        captioner.prompt = captioner.prompt or FAMILY_DEFAULTS[captioner.family].prompt


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
    """How captions are written, by the settings.

    Raises `SettingsError` where they ask for longer captions than the decoder has positions for.
    """
    data, room = settings.data, Room.of(captioner)
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
    """Raise `ModelError` unless the image half takes pictures of the size that was asked for: many have fixed positions."""
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
    """Raise `ModelError` unless what the image half makes of a mirrored picture can be turned back."""
    spec = captioner.image_spec
    with torch.no_grad():
        captioner.encode(
            torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8, device=captioner.device), mirror=True
        )


def fill_defaults(settings: Settings, captioner: CaptionerModel) -> Settings:
    """Settings with every `None` that the family decides replaced by what it decides."""
    model, training = settings.model, settings.training
    method = method_of(model)
    own = FAMILY_DEFAULTS[captioner.family]
    spec = captioner.image_spec
    filled: dict[str, Any] = {
        "model": {
            **(_of_adapter(captioner, model) if model.continue_adapter else {}),
            "method": method,
            "freeze": frozen_of(model) if method == "full" else None,
            "image_size": spec.height,
            "resize": spec.resize,
            "decode": spec.decode,
            "image_vectors": model.image_vectors or ("pooled" if model.join == "prefix" else "all"),
            "precision": next(name for name, kind in PRECISIONS.items() if kind == captioner.precision),
        },
        "training": {
            "learning_rate": training.learning_rate or learning_rate_of(captioner.family, model),
            "label_smoothing": own.label_smoothing if training.label_smoothing is None else training.label_smoothing,
        },
        "data": {"prompt": captioner.prompt},
    }
    sections = {name: getattr(settings, name).model_copy(update=values) for name, values in filled.items()}
    return settings.model_copy(update=sections)


def _of_adapter(captioner: CaptionerModel, model: ModelSettings) -> dict[str, Any]:
    """What an adapter that goes on learning is like. Raises `SettingsError` where something else was asked for."""
    own = lora_of(captioner)
    for name in asked(model, *own):
        if getattr(model, name) != own[name]:
            raise SettingsError(
                f"{name}: found {getattr(model, name)}, but the adapter of {model.model} has {own[name]}; leave it out, "
                "or leave --continue-adapter out for a new adapter"
            )
    return own


def place(captioner: CaptionerModel, settings: ModelSettings) -> None:
    """Move a captioner to its device and set its arithmetic. Channels come last: convolutions are faster that way."""
    device = choose_device(settings.device)
    if settings.quantize:  # the weights are on the GPU already, and can't be moved
        captioner.mean, captioner.std = captioner.mean.to(device), captioner.std.to(device)
    else:
        captioner.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    captioner.precision = choose_precision(settings.precision, device)
    if captioner.decoding.mirror:
        _check_mirror(captioner)


def adapt(captioner: CaptionerModel, settings: Settings) -> None:
    """Decide which weights learn, by filled settings. Beside adapters, what is frozen goes to bf16 where products are bf16."""
    model = settings.model
    captioner.label_smoothing = settings.training.label_smoothing or 0.0
    captioner.patch_dropout = _patch_dropout(captioner, settings.training)
    captioner.groups_rows = _groups_rows(captioner, settings)
    if model.method == "full":
        freeze(captioner, model.freeze or ())
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
    """Whether rows of a batch are read in groups of similar length: on CPUs, where padding costs more than a second pass.

    Not where processes share out weights (all must make equally many passes), nor where passes are compiled.
    """
    return captioner.device.type == "cpu" and settings.distributed.strategy == "ddp" and not settings.training.compile


def _patch_dropout(captioner: CaptionerModel, training: TrainingSettings) -> float:
    """The share of vectors to drop; refused where they are places of a sentence and not of a picture."""
    if training.patch_dropout and captioner.family in ("prefix", "blip-2"):
        raise SettingsError(f"patch_dropout: a {captioner.family} captioner reads no patches; leave it out")
    return training.patch_dropout


def _add_lora(captioner: CaptionerModel, model: ModelSettings) -> None:
    """Adapters by settings."""
    add_lora(
        captioner, model.rank, model.alpha, model.dropout, model.lora_parts, model.target_modules, _fresh_modules(model),
        model.lora_layers, model.rslora, model.dora, model.lora_init,
    )  # fmt: skip


def _fresh_modules(model: ModelSettings) -> tuple[str, ...]:
    """Modules of a joined captioner that were never trained: beside adapters they must learn whole."""
    if model.encoder is None:
        return ()
    if model.decoder is None:
        raise SettingsError(
            "method lora: a new decoder has nothing to adapt; use --method full, or give --decoder a pretrained one"
        )
    if model.join == "prefix":
        return ("mapper",)
    return ("crossattention", "ln_cross_attn", "enc_to_dec_proj", "encoder.norm", "encoder.positions")
