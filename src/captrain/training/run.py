"""The whole run in one place: data, captioner, features, training, report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captrain.data.dataset import Splits
from captrain.data.recipe_data import load_training_splits
from captrain.disk.locks import clear_lock, locked_folder
from captrain.errors import BusyError
from captrain.features.stored_images import vocabulary_captions
from captrain.metrics.java import check_java
from captrain.models.contract import CaptionerModel
from captrain.models.device import choose_device
from captrain.models.what_learns import count_parameters
from captrain.records import Sample
from captrain.report.run import write_report
from captrain.settings.schema import Settings, TrainingSettings
from captrain.training.captioner_setup import adapt, check_captions_fit, first_captioner, place
from captrain.training.data_setup import TrainingData, count, left_out, make_mixture, prepare_data
from captrain.training.distributed.group import ProcessGroup, ReadOnlyRunFolder, process_group
from captrain.training.distributed.strategy import check_batch_size
from captrain.training.dry_run import preview
from captrain.training.extensions import NOTHING, Extensions
from captrain.training.filled import decided_of, fill_batch_size, fill_defaults, fill_optimizer, fill_tokenizer
from captrain.training.held_out import keep_splits, score_best_model, scores_of_test
from captrain.training.loop.batch_size import choose_batch_size
from captrain.training.loop.signals import SIGNALS, ends_on_signals
from captrain.training.loop.validation import decide_tokenizer
from captrain.training.resolve import (
    caption_rules,
    captioner_start,
    check_processes,
    data_plan,
    learning_of,
    training_plan,
)
from captrain.training.run_folder.base_weights import check_base, fingerprints_of
from captrain.training.run_folder.checkpoints import Checkpoints, check_checkpoint_fits
from captrain.training.run_folder.folder import RunFacts, RunFolder
from captrain.training.run_folder.place import RunPlace, RunRequest, check_switches
from captrain.training.trackers import chosen
from captrain.training.trainer_setup import make_trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a training: its folder, how many samples were rejected and where they are listed, the best scores.

    `test_scores` are those of the best model on the test split, where there is one. `uncaptioned` pictures were left out because
    they have no caption. `best` is what is known of the best model: its `epoch`, how many `images` it was measured on, `notes`.
    """

    run: Path
    rejected: int
    rejects_file: Path | None
    scores: dict[str, float]
    test_scores: dict[str, float]
    uncaptioned: int = 0
    best: dict[str, Any] = field(default_factory=dict)


@ends_on_signals
def train(
    settings: Settings, data: str | None, out: Path, *,
    resume: bool = False, overwrite: bool = False, resume_from: str | None = None, force: bool = False,
    extensions: Extensions = NOTHING,
) -> Outcome:  # fmt: skip
    """Train a captioner on `data`, or if it is None on the settings' sources, and write the run folder `out`.

    The same call resumes an interrupted run from its last checkpoint; for a finished run it does nothing.

    Args:
        resume: only resume; refuse to begin a new run. overwrite: begin from scratch.
        resume_from: the step or folder of a checkpoint to go back to; everything later is removed.
        force: go on although settings, data or model have changed.
        extensions: callbacks and metrics of one's own.

    Raises:
        UserError: for settings, data, models or folders that can't work; nothing was started.
        TrainingError: when the training itself stopped; the last checkpoint is intact.
        StoppedError: after SIGTERM or SIGINT, when the step was finished and saved.
    """
    check_switches(out, resume or resume_from is not None, overwrite)
    request = RunRequest(data, settings.requested(), resume or resume_from is not None, overwrite, force)
    device = choose_device(settings.model.device).type
    with process_group(device) as group, ExitStack() as stack:
        with group.together():
            check_processes(settings, group.size, device)
            if group.is_first and (overwrite or force or resume_from or not RunPlace(out).is_finished()):
                stack.enter_context(locked_folder(out))
            elif group.is_first:
                clear_lock(out)  # the run was killed when it was done
        return _train(group, settings, out, request, resume_from, extensions)


def _train(
    group: ProcessGroup,
    settings: Settings,
    out: Path,
    request: RunRequest,
    resume_from: str | None,
    extensions: Extensions,
) -> Outcome:
    """The run, in each process of a group; the first one writes."""
    run = RunFolder(out) if group.is_first else ReadOnlyRunFolder(out)
    with group.together():
        check_installed(settings)
        changes = run.claim(request)
        check_base(run, changes)
    if not group.from_first(changes) and resume_from is None and (scores := run.finished()) is not None:
        return finished_before(run, scores)

    checkpoints = make_checkpoints(run, settings.training)
    with group.together():
        last = checkpoints.last() if resume_from is None else checkpoints.find(resume_from)
        splits = load_training_splits(settings, request.source)
    captioner, filled = group.main_process_first(lambda: prepare_captioner(settings, splits, run))
    data = prepare_data(captioner, splits, data_plan(filled))
    with group.together():
        if last is not None:
            check_checkpoint_fits(captioner, last)
        fingerprints = fingerprints_of(captioner, data.images, data.captions)
        if last is not None and not request.force:
            run.check_same(count(data), fingerprints)
    filled = fill_open_ends(run, filled, captioner, data)
    plan = training_plan(filled, out.resolve().name)
    mixture = make_mixture(plan, data)
    with group.together():
        check_batch_size(plan.steps.batches.images, group.size)
        run.write_settings(facts_of(request, filled, captioner, data, splits, fingerprints))
        run.write_rejects(splits.rejects)
        tell_what_learns(captioner, data, splits, filled.data.max_tokens)
        if group.is_first:
            keep_splits(out, data.images, splits, begun_with(filled), goes_on=last is not None)
            checkpoints.drop_after(last)
            if last is not None:
                logger.info("going on from step %d (%s)", checkpoints.last_step(), last)
        run.rewind(checkpoints.last_step(), last)
    goes_back = bool(resume_from or changes)
    trainer, following = make_trainer(run, plan, captioner, data, mixture, checkpoints, goes_back, extensions)
    with following.until_done():
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        SIGNALS.place = "after the last step"
        if trainer.validator is None:
            with trainer.averaged(), trainer.whole_in_first():
                run.save_model(captioner)
        if not group.is_first:
            return Outcome(out, len(splits.rejects), None, {}, {})
        test_scores = score_best_model(run, splits, plan.test, extensions.metrics)
        following.tested(trainer.state.global_step, test_scores)
    return finish(run, splits, test_scores)


def finished_before(run: RunFolder, scores: dict[str, float]) -> Outcome:
    """The outcome of a run that is already done."""
    logger.info("%s: this run is finished; use --overwrite to train again", run.path)
    return Outcome(run.path, *run.rejected(), scores, scores_of_test(run.path), run.uncaptioned(), run.best())


def begun_with(settings: Settings) -> str | None:
    """The checkpoint that the training began with; None for a newly joined captioner."""
    return settings.model.model if settings.model.encoder is None else None


def make_checkpoints(run: RunFolder, training: TrainingSettings) -> Checkpoints:
    """The run's checkpoints, by its settings."""
    return Checkpoints(
        run.checkpoints, training.keep_checkpoints, training.checkpoint_prefix, run.best_files(), run.log_files()
    )


def check_installed(settings: Settings) -> None:
    """Raise `SettingsError` for trackers and scores that need what this machine does not have."""
    chosen(settings.training.trackers)
    check_java((settings.evaluation.metric,))


def describe(settings: Settings, data: str | None) -> str:
    """A dry run: everything up to the first step, as text."""
    check_installed(settings)
    splits = load_training_splits(settings, data)
    captioner, filled = prepare_captioner(settings, splits, None)
    filled = _fill_tokenizer(filled, splits.validation, None)
    rules, decided = caption_rules(filled.data), decided_of(settings, filled)
    return preview(settings.requested(), decided, rules, captioner, splits, count_parameters(captioner))


def prepare_captioner(settings: Settings, splits: Splits, run: RunFolder | None) -> tuple[CaptionerModel, Settings]:
    """The captioner on its device, with its learning weights chosen, and settings with family and optimizer defaults.

    Weights that exist nowhere else are first written to the run's `base/`: adapters refer to it, a resumed run begins there.
    """
    start = captioner_start(settings)
    captioner = first_captioner(start, vocabulary_captions(splits.train), run, splits.question)
    check_captions_fit(captioner, splits.train, start)
    place(captioner, start.place)
    filled = fill_optimizer(fill_defaults(settings, captioner), settings.training, captioner.device)
    adapt(captioner, learning_of(filled, captioner.device))
    return captioner, filled


def fill_open_ends(run: RunFolder, settings: Settings, captioner: CaptionerModel, data: TrainingData) -> Settings:
    """Settings with the batch size and the tokenizer of scores decided; an earlier session's decision holds."""
    if settings.training.batch_size == "auto":
        before = run.filled_before("training", "batch_size")
        settings = fill_batch_size(settings, choose_batch_size(captioner, data.images["train"], data.rows, before))
    validation = data.images["validation"].samples
    return _fill_tokenizer(settings, validation, run.filled_before("evaluation", "tokenize"))


def _fill_tokenizer(settings: Settings, samples: Sequence[Sample], before: str | None) -> Settings:
    """Settings with the tokenizer of scores decided."""
    evaluation = settings.evaluation
    return fill_tokenizer(settings, decide_tokenizer(samples, evaluation.tokenize, evaluation.validation_limit, before))


def facts_of(
    request: RunRequest, filled: Settings, captioner: CaptionerModel, data: TrainingData, splits: Splits,
    fingerprints: dict[str, str],
) -> RunFacts:  # fmt: skip
    """What `settings.yaml` says of the run."""
    counts = count(data) | left_out(data, splits)
    settings, device = filled.model_dump(mode="json"), str(captioner.device)
    return RunFacts(settings, request.to_dict(), counts, fingerprints, count_parameters(captioner), device)


def tell_what_learns(captioner: CaptionerModel, data: TrainingData, splits: Splits, max_tokens: int) -> None:
    """Log how much data and how many weights the training has, and what was left out."""
    counts, parameters = count(data) | left_out(data, splits), count_parameters(captioner)
    learning = sum(count["trainable"] for count in parameters.values())
    logger.info(
        "%d images with %d captions to train on, %d to validate; %s of %s weights learn",
        counts["train_images"], counts["train_captions"], counts["validation_images"],
        f"{learning:,}", f"{sum(count['total'] for count in parameters.values()):,}",
    )  # fmt: skip
    if splits.uncaptioned:
        logger.info("%d without a caption, left for `captrain caption`", splits.uncaptioned)
    if splits.rejects:
        logger.warning(splits.rejects.summary())
    if counts["cut_captions"]:
        logger.warning("%d captions were cut: %s", counts["cut_captions"], _why_cut(captioner, max_tokens))


def _why_cut(captioner: CaptionerModel, max_tokens: int) -> str:
    """Why captions were cut: the limit that was set, or the decoder's positions."""
    room = captioner.room()
    if room.most < max_tokens:
        return f"{room.told}, which is room for captions of at most {room.most} tokens"
    return f"they are longer than --max-tokens (now {max_tokens})"


def finish(run: RunFolder, splits: Splits, test_scores: dict[str, float]) -> Outcome:
    """Write the report and mark the run as done."""
    scores = run.best_scores()
    try:
        write_report(run.path)
    except BusyError as error:  # another command is reading the run, which is no reason to fail
        logger.warning("%s; captrain report %s writes the report of the whole run", error, run.path)
    run.finish(scores)
    logger.info("done: %s", run.path / "report.html")
    listed = run.write_rejects(splits.rejects)
    return Outcome(run.path, len(splits.rejects), listed, scores, test_scores, splits.uncaptioned, run.best())
