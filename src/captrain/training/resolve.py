"""From settings to what a training goes by: `plan`'s types, in which nothing is left open.

What the settings alone decide is known before anything is loaded (`captioner_start`). The rest is made of filled settings, as
`filled` completes them.
"""

from __future__ import annotations

import os

import torch

from captrain.data.augment import Augmentation
from captrain.data.caption_text import CaptionText
from captrain.errors import SettingsError
from captrain.features.cache import GIB, CacheOptions
from captrain.features.stream import default_workers
from captrain.features.training_images import Views
from captrain.models.build import Mapper, NewDecoder, PreparationChanges
from captrain.models.contract import PARTS
from captrain.models.decoding import Decoding
from captrain.models.device import choose_device, choose_precision
from captrain.models.families import joined_family
from captrain.models.lora import LoraOptions
from captrain.paths import cache_folder
from captrain.settings.schema import DataSettings, ModelSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import asked, frozen_of, method_of
from captrain.training.distributed.strategy import Distribution, ZeroSettings, check_batch_size, check_distribution
from captrain.training.filled import decided, learning_rates
from captrain.training.held_out import FinalTest
from captrain.training.loop.batch_size import Batches, MemorySettings
from captrain.training.loop.trainer import LearningPlan
from captrain.training.optimization.optimizers import Optimization
from captrain.training.plan import (
    AllWeights,
    CaptionerStart,
    CaptionRules,
    CheckpointTimes,
    DataPlan,
    EpochOrder,
    FromCheckpoint,
    FromParts,
    Learning,
    NewAdapters,
    Placement,
    SavedAdapter,
    StepPlan,
    TrackingPlan,
    TrainingPlan,
    ValidationPlan,
    WhatLearns,
)
from captrain.training.trackers import chosen

# Before anything is loaded.


def check_processes(settings: Settings, count: int, device: str) -> None:
    """Raise `SettingsError` for what so many processes can't share. A batch size of `auto` is chosen so that they can."""
    if settings.training.batch_size != "auto":
        check_batch_size(settings.training.batch_size, count)
    check_distribution(distribution_of(settings), device)


def captioner_start(settings: Settings) -> CaptionerStart:
    """The captioner that a run begins with.

    Raises `ModelError` for a device or a precision that this machine does not have, `SettingsError` for adapters of a decoder
    that is new.
    """
    model, generation = settings.model, settings.generation
    device = choose_device(model.device)
    return CaptionerStart(
        FromCheckpoint(model.model, model.base) if model.encoder is None else _parts(model, settings.training.seed),
        PreparationChanges(model.image_size, model.resize, model.decode),
        what_learns(model),
        Placement(device, choose_precision(model.precision, device), model.quantize),
        caption_rules(settings.data),
        settings.data.prompt,
        Decoding(**generation.model_dump()),
        tuple(asked(generation, "max_new_tokens", "min_new_tokens")),
    )


def what_learns(model: ModelSettings) -> WhatLearns:
    """The weights that learn. Raises `SettingsError` for adapters of a decoder that is new."""
    if method_of(model) == "full":
        return AllWeights(frozen_of(model))
    if model.continue_adapter:
        return SavedAdapter()
    lora = LoraOptions(
        model.rank, model.alpha, model.dropout, model.lora_parts, model.target_modules, model.lora_layers, model.rslora,
        model.dora, model.lora_init,
    )  # fmt: skip
    if model.encoder is None:
        return NewAdapters(lora)
    if model.decoder is None:
        raise SettingsError(
            "method lora: a new decoder has nothing to adapt; use --method full, or give --decoder a pretrained one"
        )
    return NewAdapters(lora, joined_family(model.join).fresh_modules)


def caption_rules(data: DataSettings) -> CaptionRules:
    """How captions become tokens to learn."""
    text = CaptionText(
        lower_case=data.lower_case,
        strip_punctuation=data.strip_punctuation,
        max_words=data.max_words,
        prefix=data.prefix,
        suffix=data.suffix,
        replace=tuple(_pair(pair) for pair in data.replace),
        remove_words=data.remove_words,
        shuffle_tags=data.shuffle_tags,
        keep_tags=data.keep_tags,
        drop_tags=data.drop_tags,
        drop_captions=data.drop_captions,
    )
    return CaptionRules(text, data.max_tokens, bool(asked(data, "max_tokens")), data.accept_lost_words)


def distribution_of(settings: Settings) -> Distribution:
    """What decides whether several processes can share the training."""
    training, distributed = settings.training, settings.distributed
    return Distribution(
        distributed.strategy,
        ZeroSettings(distributed.zero_stage, distributed.zero_offload),
        optimizer=training.optimizer,
        quantizes=settings.model.quantize is not None,
        compiles=training.compile,
        averages=training.ema > 0,
    )


# With a captioner: of filled settings.


def learning_of(filled: Settings, device: torch.device) -> Learning:
    """How the captioner learns in its forward pass.

    A batch's rows are decoded in groups of similar length on CPUs, where padding costs more than a second pass. Not if weights
    are sharded over processes (all must make equally many passes), nor if the passes are compiled.
    """
    training = filled.training
    is_whole = filled.distributed.strategy == "ddp"
    return Learning(
        what_learns(filled.model),
        training.seed,
        decided(training.label_smoothing),
        training.patch_dropout,
        groups_rows=device.type == "cpu" and is_whole and not training.compile,
        recomputes=filled.model.checkpoint_activations,
        compiles=training.compile,
    )


def data_plan(filled: Settings) -> DataPlan:
    """How pictures are cached and varied, and which captions they have."""
    data, seed = filled.data, filled.training.seed
    budget = None if data.memory_budget is None else int(data.memory_budget * GIB)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # those of one machine share its cores
    return DataPlan(
        CacheOptions(
            data.cache_features, cache_folder() / "kept", budget, _threads(data.workers, processes), data.max_pixels
        ),
        Views(data.views, _augmentation(data), seed),
        caption_rules(data),
        _most_captions(data),
        seed,
    )


# With the data: of filled settings whose batch size is decided.


def training_plan(filled: Settings, run_name: str) -> TrainingPlan:
    """The whole training. `run_name` is its name in trackers, where the settings give none."""
    training, evaluation, all_captions = filled.training, filled.evaluation, _most_captions(filled.data) is None
    return TrainingPlan(
        learning_plan(filled),
        StepPlan(
            batches_of(training), training.seed, training.max_gradient_norm, training.word_dropout, training.log_every
        ),
        EpochOrder(training.seed, _source_ratios(filled.data), training.length_window if all_captions else 1),
        CheckpointTimes(training.checkpoint_every, training.checkpoint_every_epochs),
        ValidationPlan(
            evaluation.evaluate_every, evaluation.validation_limit, evaluation.samples, evaluation.metric,
            evaluation.tokenize, training.patience,
        ),
        TrackingPlan(
            chosen(training.trackers), training.project, training.run_name or run_name, filled.model_dump(mode="json")
        ),
        distribution_of(filled),
        final_test(filled),
    )  # fmt: skip


def learning_plan(filled: Settings) -> LearningPlan:
    """How the trainer learns and when it stops."""
    training = filled.training
    return LearningPlan(
        _optimization(filled),
        learning_rates(training),
        _memory(filled),
        metric=filled.evaluation.metric,
        max_bad_steps=training.max_bad_steps,
        average_decay=training.ema,
        target_modules=filled.model.target_modules,
    )


def batches_of(training: TrainingSettings) -> Batches:
    """The batches of a run whose batch size was decided."""
    if training.batch_size == "auto":
        raise ValueError("batch_size auto: was not filled in")
    return Batches(training.batch_size, training.accumulate)


def final_test(filled: Settings) -> FinalTest:
    """How the best model is tested: without gradients twice as many pictures fit."""
    model, data, evaluation = filled.model, filled.data, filled.evaluation
    size, device = 2 * batches_of(filled.training).images, choose_device(model.device).type
    return FinalTest(
        device, model.precision, size, _threads(data.workers), data.max_pixels, evaluation.metric, evaluation.tokenize
    )


def _parts(model: ModelSettings, seed: int) -> FromParts:
    """An encoder and a decoder to join."""
    new = NewDecoder(
        model.decoder_layers, model.decoder_width, model.decoder_heads, model.decoder_dropout, model.vocabulary_size,
        model.tokenizer,
    )  # fmt: skip
    mapper = Mapper(
        model.mapper, model.prefix_length, model.projection_length, model.mapper_layers, model.mapper_heads,
        model.mapper_positions, model.normalize_vectors,
    )  # fmt: skip
    vectors = model.image_vectors or joined_family(model.join).image_vectors
    return FromParts(
        decided(model.encoder), model.decoder, new, vectors, mapper if model.join == "prefix" else None, seed
    )


def _optimization(filled: Settings) -> Optimization:
    """The optimizer, and the rate and decay of each part."""
    training = filled.training
    return Optimization(
        training.optimizer,
        decided(training.learning_rate),
        (training.beta1, decided(training.beta2)),
        training.weight_decay,
        {part: own for part in PARTS if (own := getattr(training, f"{part}_learning_rate"))},
        filled.model.lora_plus,
        training.vision_layer_decay,
    )


def _memory(filled: Settings) -> MemorySettings:
    """The settings to change when a run is out of memory."""
    model, generation = filled.model, filled.generation
    return MemorySettings(
        batches_of(filled.training), decided(model.image_size), model.precision, model.checkpoint_activations,
        _most_captions(filled.data), filled.data.max_tokens, generation.beams, generation.max_new_tokens,
    )  # fmt: skip


def _augmentation(data: DataSettings) -> Augmentation | None:
    """How training pictures are varied; None if they are not."""
    found = Augmentation(crop_scale=data.crop_scale, flip=data.flip, randaugment=data.randaugment)
    return found if found.is_random else None


def _most_captions(data: DataSettings) -> int | None:
    """The most captions of an image in an epoch; None for all."""
    if data.captions_per_image == "all":
        return None
    return 1 if data.captions_per_image == "one" else data.captions_per_image


def _source_ratios(data: DataSettings) -> list[float] | None:
    """The ratios of several data sets; None where all their images are shown once an epoch."""
    ratios = [source.ratio for source in data.sources if source.ratio is not None]
    return ratios or None


def _threads(workers: int | None, processes: int = 1) -> int:
    """Threads that read and decode pictures in each of so many processes."""
    return max(1, default_workers() // processes if workers is None else workers)


def _pair(text: str) -> tuple[str, str]:
    """`old=new` as a pair.

    >>> _pair("dog=hound")
    ('dog', 'hound')
    """
    old, _, new = text.partition("=")
    return old, new
