"""From settings, a captioner and what is kept of its pictures to a trainer with everything that happens around its steps.

Around the steps of a trainer: where it goes on after a stop, and where it stops when it is asked to.
"""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.data.mix import Mixture
from captrain.disk.writing import write_text
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import Images
from captrain.models.captioner import CaptionerModel
from captrain.records import write_jsonl
from captrain.settings.schema import Settings
from captrain.training.captions import BlockMixture, caption_text, source_ratios
from captrain.training.distributed.group import here
from captrain.training.distributed.strategy import strategy_of
from captrain.training.loop.batch_size import images_a_batch, images_a_step
from captrain.training.loop.callbacks import Discernment, Patience, Rhythm
from captrain.training.loop.live_view import LiveView
from captrain.training.loop.stopping import SIGNALS, Stopped
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.loop.validation import Validation, Validator, advice, blind_spot_of, spread
from captrain.training.optimization.schedules import warmup_steps
from captrain.training.rows import (
    Collator,
    LengthMixture,
    TokenizedCaptions,
    TrainingRows,
    VariedCaptions,
    word_dropout,
)
from captrain.training.run_folder.checkpoints import Checkpoints
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.logbook import Logbook
from captrain.training.trackers import chosen
from captrain.training.trackers.follow import Following

if TYPE_CHECKING:
    from captrain.training.loop.trainer import CaptionTrainer


logger = logging.getLogger(__name__)


def make_trainer(
    run: RunFolder, settings: Settings, captioner: CaptionerModel,
    images: dict[str, Images], captions: dict[str, TokenizedCaptions], checkpoints: Checkpoints, labels: np.ndarray,
    goes_back: bool,
) -> tuple[CaptionTrainer, Following]:  # fmt: skip
    """The trainer with its callbacks; and of these the one that outlives it, because the final test is followed too."""
    training, evaluation = settings.training, settings.evaluation
    rows = make_rows(settings, captioner, images["train"], captions["train"])
    mixture = make_mixture(settings, images["train"], captions["train"], labels)
    steps = steps_an_epoch(settings, mixture)
    validator = make_validator(settings, images["validation"], captions["validation"])

    def on_best(validation: Validation) -> None:
        run.save_model(captioner)
        write_jsonl(run.path / "predictions.jsonl", (caption.to_dict() for caption in validation.predictions))
        place = {"epoch": round(float(trainer.state.epoch or 0), 4), "step": trainer.state.global_step}
        judged = {**place, **validation.judgement.to_dict(), "scores": validation.scores}
        write_text(run.path / "scores.json", json.dumps(judged, indent=2) + "\n")

    collator = Collator(captioner, images["train"], word_dropout(captioner, training))
    trainer = CaptionTrainer(
        captioner,
        training_arguments(settings, run, captioner, validator is not None),
        rows,
        mixture,
        collator,
        settings,
        checkpoints,
        validator,
        on_best,
    )
    shown = spread(validator.positions, evaluation.samples) if validator else []
    samples = [images["validation"].samples[position] for position in shown]
    names = chosen(training.trackers) if here().is_first else ()
    following = Following(names, run.path, settings, samples, lambda: trainer.latest, goes_back)
    callbacks: list[TrainerCallback] = [
        Logbook(run, run.seconds_so_far(), evaluation.samples, lambda: trainer.latest),
        Rhythm(
            training.checkpoint_every,
            training.checkpoint_every_epochs,
            evaluation.evaluate_every,
            steps,
            training.epochs,
        ),
        LiveView(len(mixture), training.epochs, images_a_step(settings), collator, lambda: trainer.latest),
        *judging_callbacks(settings, images["validation"]),
        following,
        Watch(trainer, steps),
    ]
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer, following


def make_validator(settings: Settings, images: Images, captions: TokenizedCaptions) -> Validator | None:
    """What measures the captioner on validation images; None where there are none. Without gradients twice as many fit."""
    if not len(images):
        return None
    evaluation = settings.evaluation
    at_once = 2 * images_a_batch(settings) // here().size
    return Validator(images, captions, at_once, evaluation.validation_limit, evaluation.metric, evaluation.tokenize)


def judging_callbacks(settings: Settings, images: Images) -> list[TrainerCallback]:
    """What looks after the score that chooses. One that can tell nothing is named before the first step, or when it shows."""
    if not len(images):
        return []
    metric, patience = settings.evaluation.metric, settings.training.patience
    stops: list[TrainerCallback] = [Patience(metric, patience)] if patience else []
    if (reason := blind_spot_of(settings, images.samples)) is None:
        return [Discernment(metric, patience), *stops]
    logger.warning(advice(reason, patience))
    return stops


def make_mixture(settings: Settings, images: Images, captions: TokenizedCaptions, labels: np.ndarray) -> Mixture:
    """Which rows each epoch has."""
    mixture = Mixture(labels[images.taken], source_ratios(settings.data), captions.repeats, settings.training.seed)
    if isinstance(images, StoredImages) and images.blocks is not None:
        mixture = BlockMixture(mixture, images.blocks)
    window, lengths = settings.training.length_window, captions.lengths
    if window == 1 or lengths is None or settings.data.captions_per_image != "all":
        return mixture
    return LengthMixture(mixture, lengths, images_a_step(settings), window)


def steps_an_epoch(settings: Settings, mixture: Mixture) -> int:
    """Steps of the optimizer in an epoch."""
    return math.ceil(math.ceil(len(mixture) / images_a_batch(settings)) / settings.training.accumulate)


def check_length(settings: Settings, images: Images, captions: TokenizedCaptions, labels: np.ndarray) -> None:
    """Raise `SettingsError` for a warm-up longer than the run."""
    if settings.training.warmup_steps:
        mixture = make_mixture(settings, images, captions, labels)
        warmup_steps(settings.training, steps_an_epoch(settings, mixture) * settings.training.epochs)


def make_rows(
    settings: Settings, captioner: CaptionerModel, images: Images, captions: TokenizedCaptions
) -> TrainingRows:
    """Rows of captions that are tokenised once, or anew in each epoch where their words vary."""
    data, seed, text = settings.data, settings.training.seed, caption_text(settings.data)
    varied = VariedCaptions(captioner, images.samples, data.max_tokens, text, seed) if text.is_random else None
    return TrainingRows(varied or captions, data.captions_per_image, seed)


def training_arguments(
    settings: Settings, run: RunFolder, captioner: CaptionerModel, validates: bool
) -> TrainingArguments:
    """The settings in Trainer's words. Arithmetic is the captioner's own affair, logs and trackers are our callbacks'."""
    training, metric = settings.training, settings.evaluation.metric
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=images_a_batch(settings) // here().size,
        gradient_accumulation_steps=training.accumulate,
        num_train_epochs=training.epochs,
        learning_rate=float(training.learning_rate or 0),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_gradient_norm,
        seed=training.seed,
        eval_strategy="epoch" if validates else "no",
        save_strategy="epoch",
        metric_for_best_model=f"eval_{metric}" if validates else None,
        greater_is_better=metric != "validation_loss",
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        fp16=captioner.precision == torch.float16,  # for its scaling of the loss; gradients would vanish without
        use_cpu=captioner.device.type == "cpu",
        dataloader_pin_memory=captioner.device.type == "cuda",
        dataloader_num_workers=0,
        disable_tqdm=True,
        report_to="none",
        **strategy_of(settings.distributed, here()).arguments(captioner.precision),
    )


class Watch(TrainerCallback):
    """The last of a trainer's callbacks: what the others do at the beginning is done then."""

    def __init__(self, trainer: CaptionTrainer, steps_per_epoch: int) -> None:
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.stops = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up what the checkpoint left open."""
        self.trainer.take_up()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the loss so far, for a step that has to be left out."""
        self.trainer.guard.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save when a signal has come; at the last step of an epoch, before its evaluation, which then comes first next time."""
        self.stops = self._asked_anywhere(args)
        if self.stops:
            control.should_save = True
            control.should_log = control.should_log or args.world_size > 1  # each process has a running loss of its own
            self.trainer.running.epoch_is_open = state.global_step % self.steps_per_epoch == 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop once it is saved; at a signal that came while it was being saved, too."""
        if stops := self.stops or (SIGNALS.asked if args.world_size <= 1 else 0):
            raise Stopped(stops, SIGNALS.place)

    def _asked_anywhere(self, args: TrainingArguments) -> int:
        """The signal that any of the processes got: all of them stop at the same step."""
        if args.world_size <= 1:
            return SIGNALS.asked
        asked = torch.tensor(SIGNALS.asked, device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return int(asked)
