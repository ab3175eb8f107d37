"""From a plan, a captioner and its data to a trainer with everything that happens around its steps."""

from __future__ import annotations

import json
import logging
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.data.samples import Mixture
from captrain.disk.writing import write_text
from captrain.features.training_images import Images
from captrain.models.contract import CaptionerModel
from captrain.records import write_jsonl
from captrain.training.captions import TokenizedCaptions
from captrain.training.data_setup import TrainingData, steps_an_epoch
from captrain.training.distributed.group import here
from captrain.training.distributed.strategy import Strategy, make_strategy
from captrain.training.extensions import NOTHING, Extensions
from captrain.training.loop.callbacks import CheckpointSchedule, Discernment, Patience
from captrain.training.loop.live_view import LiveView
from captrain.training.loop.signals import SIGNALS, Stopped
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.loop.trainer_adapter import EpochData
from captrain.training.loop.validation import Validation, Validator, advice, blind_spot_of, spread_evenly
from captrain.training.plan import TrackingPlan, TrainingPlan, ValidationPlan
from captrain.training.rows import Collator, word_dropout
from captrain.training.run_folder.checkpoints import Checkpoints
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.logbook import Logbook
from captrain.training.trackers import TrackedRun
from captrain.training.trackers.follow import Following

logger = logging.getLogger(__name__)


def make_trainer(
    run: RunFolder, plan: TrainingPlan, captioner: CaptionerModel, data: TrainingData, mixture: Mixture,
    checkpoints: Checkpoints, goes_back: bool, extensions: Extensions = NOTHING,
) -> tuple[CaptionTrainer, Following]:  # fmt: skip
    """The trainer with its callbacks, and the tracker callback, which outlives it to follow the final test.

    Args:
        goes_back: whether the steps from here on may differ from those of an earlier session.
    """
    batches, shown = plan.steps.batches, plan.validation.shown
    steps = steps_an_epoch(batches, mixture)
    validator = make_validator(plan, data.images["validation"], data.captions["validation"], extensions)
    strategy = make_strategy(plan.distribution.strategy, plan.distribution.zero, here())

    def on_best(validation: Validation) -> None:
        run.save_model(captioner)
        write_jsonl(run.path / "predictions.jsonl", (caption.to_dict() for caption in validation.predictions))
        place = {"epoch": round(float(trainer.state.epoch or 0), 4), "step": trainer.state.global_step}
        judged = {**place, **validation.judgement.to_dict(), "scores": validation.scores}
        write_text(run.path / "scores.json", json.dumps(judged, indent=2) + "\n")

    hide_words = word_dropout(captioner, plan.steps.word_dropout, plan.steps.seed)
    collator = Collator(captioner, data.images["train"], hide_words)
    trainer = CaptionTrainer(
        captioner,
        training_arguments(plan, run, captioner, strategy, validator is not None),
        EpochData(data.rows, mixture, collator),
        plan.learning,
        strategy,
        checkpoints,
        validator,
        on_best,
    )
    positions = spread_evenly(validator.positions, shown) if validator else []
    samples = [data.images["validation"].samples[position] for position in positions]
    names = plan.tracking.trackers if here().is_first else ()
    following = Following(names, tracked_run(run, plan.tracking), samples, lambda: trainer.latest, goes_back)
    callbacks: list[TrainerCallback] = [
        Logbook(run, run.seconds_so_far(), shown, lambda: trainer.latest),
        checkpoint_schedule(plan, steps),
        LiveView(len(mixture), plan.epochs, batches.step, collator, lambda: trainer.latest),
        *judging_callbacks(plan.validation, data.images["validation"]),
        following,
        *extensions.trainer_callbacks(run.path, lambda: trainer.latest),
        Watch(trainer, steps),
    ]
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer, following


def checkpoint_schedule(plan: TrainingPlan, steps_per_epoch: int) -> CheckpointSchedule:
    """When the run saves and evaluates."""
    times = plan.checkpoints
    return CheckpointSchedule(times.steps, times.epochs, plan.validation.every_epochs, steps_per_epoch, plan.epochs)


def tracked_run(run: RunFolder, tracking: TrackingPlan) -> TrackedRun:
    """What trackers are told of the run."""
    return TrackedRun(run.path, tracking.project, tracking.run_name, tracking.settings)


def make_validator(
    plan: TrainingPlan, images: Images, captions: TokenizedCaptions, extensions: Extensions = NOTHING
) -> Validator | None:
    """What measures the captioner on validation images; None without such images. Without gradients, twice as many fit."""
    if not len(images):
        return None
    validation, at_once = plan.validation, 2 * plan.steps.batches.images // here().size
    return Validator(
        images, captions, at_once, validation.limit, validation.metric, validation.tokenizer, extensions.metrics
    )


def judging_callbacks(validation: ValidationPlan, images: Images) -> list[TrainerCallback]:
    """What watches the deciding score. A score that can tell nothing is reported before the first step, or once it shows."""
    if not len(images):
        return []
    metric, patience = validation.metric, validation.patience
    stops: list[TrainerCallback] = [] if patience is None else [Patience(metric, patience)]
    reason = blind_spot_of(images.samples, metric, validation.tokenizer, validation.limit)
    if reason is None:
        return [Discernment(metric, patience), *stops]
    logger.warning(advice(reason, patience))
    return stops


def training_arguments(
    plan: TrainingPlan, run: RunFolder, captioner: CaptionerModel, strategy: Strategy, validates: bool
) -> TrainingArguments:
    """The plan in Trainer's terms. The captioner handles precision itself; callbacks handle logs and trackers."""
    steps, optimization, metric = plan.steps, plan.learning.optimization, plan.validation.metric
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=steps.batches.images // here().size,
        gradient_accumulation_steps=steps.batches.accumulate,
        num_train_epochs=plan.epochs,
        learning_rate=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        max_grad_norm=steps.max_gradient_norm,
        seed=steps.seed,
        eval_strategy="epoch" if validates else "no",
        save_strategy="epoch",
        metric_for_best_model=f"eval_{metric}" if validates else None,
        greater_is_better=metric != "validation_loss",
        logging_steps=steps.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        fp16=captioner.precision == torch.float16,  # for its loss scaling, without which gradients would vanish
        use_cpu=captioner.device.type == "cpu",
        dataloader_pin_memory=captioner.device.type == "cuda",
        dataloader_num_workers=0,
        disable_tqdm=True,
        report_to="none",
        **strategy.arguments(captioner.precision),
    )


class Watch(TrainerCallback):
    """Goes on after a stop, and stops when asked to. It is the trainer's last callback: the others have begun before it does."""

    def __init__(self, trainer: CaptionTrainer, steps_per_epoch: int) -> None:
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.stops = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do what the checkpoint left undone."""
        self.trainer.take_up()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the loss so far, for a step that has to be left out."""
        self.trainer.guard.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save after a signal. At the end of an epoch this is before the evaluation; the next session begins with that."""
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
