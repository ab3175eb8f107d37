"""The whole run, told in one place: data, captioner, what is kept, training, report."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captrain.data.dataset import Splits
from captrain.data.recipe import load_recipe_data, take_uncaptioned, tell_machine_captions, warn_of_leaks
from captrain.disk.locks import clear_lock, locked_folder
from captrain.errors import BusyError, DataError, SettingsError
from captrain.features.cache import GIB, Keeping
from captrain.features.stored_images import StoredImages, captions_of
from captrain.features.training_images import MIRRORED, PLAIN, Images, Views
from captrain.metrics.java import check_java
from captrain.models.captioner import CaptionerModel
from captrain.models.decoding import Room
from captrain.models.device import choose_device, compile_captioner
from captrain.models.learning_parts import count_parameters
from captrain.paths import cache_folder
from captrain.report.run import write_report
from captrain.settings.schema import DataSettings, Settings, TrainingSettings
from captrain.settings.schema.conflicts import needing_validation
from captrain.training.captioner_setup import adapt, fill_defaults, place
from captrain.training.captions import MOST_AT_ONCE, StoredCaptions, augmentation, caption_text, check_words
from captrain.training.distributed.cache import keep_together
from captrain.training.distributed.group import Group, Onlooker, here, joined
from captrain.training.distributed.strategy import check_spread
from captrain.training.dry_run import preview
from captrain.training.held_out import keep_splits, score_best_model, scores_of_test
from captrain.training.loop.batch_size import fill_batch_size
from captrain.training.loop.stopping import SIGNALS, ends_on_signals
from captrain.training.loop.validation import fill_tokenizer
from captrain.training.optimization.optimizers import fill_optimizer
from captrain.training.rows import TokenizedCaptions
from captrain.training.run_folder.base_weights import begun, check_base, fingerprints
from captrain.training.run_folder.checkpoints import Checkpoints, check_fits
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.place import RunPlace, check_switches
from captrain.training.trackers import chosen
from captrain.training.trainer_setup import check_length, make_rows, make_trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training left: its folder, how many samples were rejected and where they are listed, the best scores.

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
) -> Outcome:  # fmt: skip
    """Train a captioner on `data`, or without it on the settings' sources, and write the run folder `out`.

    The same call on the folder of an interrupted run goes on from its last checkpoint; on a finished one it does nothing.

    Args:
        resume: refuse to begin a run. overwrite: begin anew. resume_from: the step or folder of a checkpoint to go back to;
            what came later is forgotten. force: go on although settings, data or model have changed.

    Raises:
        UserError: for settings, data, models or folders that can't work; nothing was begun.
        TrainingError: when the training itself stopped; the last checkpoint is intact.
        StoppedError: after SIGTERM or SIGINT, when the step was finished and saved.
    """
    resume = resume or resume_from is not None
    check_switches(out, resume, overwrite)
    device = choose_device(settings.model.device).type
    with joined(device) as group, ExitStack() as stack:
        with group.together():
            check_spread(settings, group.size, device)
            if group.is_first and (overwrite or force or resume_from or not RunPlace(out).is_finished()):
                stack.enter_context(locked_folder(out))
            elif group.is_first:
                clear_lock(out)  # of one that was killed when all was done
        return _train(group, settings, data, out, resume, overwrite, resume_from, force)


def _train(
    group: Group, settings: Settings, data: str | None, out: Path,
    resume: bool, overwrite: bool, resume_from: str | None, force: bool,
) -> Outcome:  # fmt: skip
    """The run, in each process of a group; the first one writes."""
    run = RunFolder(out) if group.is_first else Onlooker(out)
    with group.together():
        check_installed(settings)
        changes = run.claim(settings, data, resume, overwrite, force)
        check_base(run, changes)
    if not group.from_first(changes) and resume_from is None and (scores := run.finished()) is not None:
        logger.info("%s: this run is finished; use --overwrite to train again", out)
        return Outcome(out, *run.rejected(), scores, scores_of_test(out), run.uncaptioned(), run.best())

    checkpoints = make_checkpoints(run, settings.training)
    with group.together():
        last = checkpoints.last() if resume_from is None else checkpoints.find(resume_from)
        splits = load(settings, data)
    captioner, filled = group.after_first(lambda: ready(settings, splits, run))
    images = keep(captioner, splits, filled.data, settings.training.seed)
    captions = tokenize(captioner, images, filled.data)
    with group.together():
        if last is not None:
            check_fits(captioner, last)
        counts, marks = count(images, captions), fingerprints(captioner, images, captions)
        if last is not None and not force:
            run.check_same(counts, marks)
    rows = make_rows(filled, captioner, images["train"], captions["train"])
    filled = fill_batch_size(filled, captioner, images["train"], rows, run.filled_before("training", "batch_size"))
    check_length(filled, images["train"], captions["train"], splits.sources())
    filled = fill_tokenizer(filled, images["validation"].samples, run.filled_before("evaluation", "tokenize"))
    with group.together():
        check_spread(filled, group.size, captioner.device.type)
        note_run(run, settings, filled, data, captioner, captions, counts, marks, splits)
        if group.is_first:
            began_with = filled.model.model if filled.model.encoder is None else None
            keep_splits(out, images, splits, began_with, goes_on=last is not None)
            checkpoints.drop_after(last)
            if last is not None:
                logger.info("going on from step %d (%s)", checkpoints.last_step(), last)
        run.rewind(checkpoints.last_step(), last)
    goes_back = resume_from is not None or bool(changes)
    trainer, following = make_trainer(
        run, filled, captioner, images, captions, checkpoints, splits.sources(), goes_back
    )
    with following.until_done():
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        SIGNALS.place = "after the last step"
        if trainer.validator is None:
            with trainer.averaged(), trainer.strategy.whole_in_first(captioner):
                run.save_model(captioner)
        if not group.is_first:
            return Outcome(out, len(splits.rejects), None, {}, {})
        test_scores = score_best_model(run, filled, splits)
        following.tested(trainer.state.global_step, test_scores)
    scores = finish(run)
    listed = run.write_rejects(splits.rejects)
    return Outcome(out, len(splits.rejects), listed, scores, test_scores, splits.uncaptioned, run.best())


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
    splits = load(settings, data)
    captioner, filled = ready(settings, splits, None)
    filled = fill_tokenizer(filled, splits.validation, None)
    return preview(settings, filled, captioner, splits, count_parameters(captioner))


def load(settings: Settings, data: str | None) -> Splits:
    """The splits that the settings ask for, of the data set or else of their sources. Pictures without a caption are counted.

    Raises `SettingsError` where something was asked for that needs validation pictures, and there are none.
    """
    splits = load_recipe_data(settings.data, settings.training.seed, data)
    splits.uncaptioned = take_uncaptioned(splits.rejects)
    if not len(splits.validation) and (names := needing_validation(settings)):
        raise SettingsError(
            f"{', '.join(names)}: there is nothing to validate on, the data names no validation split and "
            f"validation_share is {settings.data.validation_share:g}; leave out what needs it, or give --validation-split"
        )
    warn_of_leaks(splits, settings.data)
    tell_machine_captions(splits, settings.data)
    return splits


def ready(settings: Settings, splits: Splits, run: RunFolder | None) -> tuple[CaptionerModel, Settings]:
    """The captioner on its device with its learning weights chosen, and settings without open ends.

    What lies nowhere else is first written to the run's `base/`: adapters refer to it, and a resumed run begins there.
    """
    captioner = begun(settings, captions_of(splits.train), run, splits.question)
    check_words(captioner, splits.train, settings)
    place(captioner, settings.model)
    filled = fill_optimizer(fill_defaults(settings, captioner), settings.training, captioner.device)
    adapt(captioner, filled)
    if filled.training.compile:
        compile_captioner(captioner)
    return captioner, filled


def keep(captioner: CaptionerModel, splits: Splits, data: DataSettings, seed: int) -> dict[str, Images]:
    """Features or pixels of all training and validation pictures; bad pictures are rejected.

    Where captions are written of mirror images too, the features of these are kept of validation pictures.
    """
    budget = None if data.memory_budget is None else int(data.memory_budget * GIB)
    keeping = Keeping(data.cache_features, cache_folder() / "kept", budget, data.workers, data.max_pixels)
    mirrors = captioner.decoding.mirror and not captioner.vision_learns()
    views = {"train": Views(data.views, augmentation(data), seed), "validation": MIRRORED if mirrors else PLAIN}
    pictures = {"train": splits.train, "validation": splits.validation}
    images = keep_together(here(), captioner, pictures, keeping, splits.rejects, views)
    if not len(images["train"]):
        raise DataError(f"none of {len(splits.train)} training pictures can be used: {splits.rejects.summary()}")
    return images


def tokenize(captioner: CaptionerModel, images: dict[str, Images], data: DataSettings) -> dict[str, TokenizedCaptions]:
    """The captions of all images; what cleans their text cleans all of them, what varies it comes in training alone."""
    text = caption_text(data)

    def of_split(images: Images) -> TokenizedCaptions:
        if isinstance(images, StoredImages) and len(images) > MOST_AT_ONCE:
            return StoredCaptions(captioner, images, data.max_tokens, text)
        return TokenizedCaptions(captioner, images.samples, data.max_tokens, text)

    return {name: of_split(images[name]) for name in images}


def count(images: dict[str, Images], captions: dict[str, TokenizedCaptions]) -> dict[str, int]:
    """How many images and captions each split has."""
    counts = {f"{split}_images": len(images[split]) for split in images}
    return counts | {f"{split}_captions": captions[split].total for split in captions}


def note_run(
    run: RunFolder, requested: Settings, filled: Settings, data: str | None, captioner: CaptionerModel,
    captions: dict[str, TokenizedCaptions], counts: dict[str, int], marks: dict[str, str], splits: Splits,
) -> None:  # fmt: skip
    """Write down what the run is, before its first step."""
    rejects, cut = splits.rejects, sum(part.cut for part in captions.values())
    counts = counts | {"cut_captions": cut, "rejected": len(rejects), "uncaptioned": splits.uncaptioned}
    parameters = count_parameters(captioner)
    run.write_settings(requested, filled, data, counts, parameters, str(captioner.device), marks)
    run.write_rejects(rejects)
    learning = sum(count["trainable"] for count in parameters.values())
    logger.info(
        "%d images with %d captions to train on, %d to validate; %s of %s weights learn",
        counts["train_images"], counts["train_captions"], counts["validation_images"],
        f"{learning:,}", f"{sum(count['total'] for count in parameters.values()):,}",
    )  # fmt: skip
    if splits.uncaptioned:
        logger.info("%d without a caption, left for `captrain caption`", splits.uncaptioned)
    if rejects:
        logger.warning(rejects.summary())
    if counts["cut_captions"]:
        logger.warning("%d captions were cut: %s", counts["cut_captions"], _why_cut(captioner, filled.data.max_tokens))


def _why_cut(captioner: CaptionerModel, max_tokens: int) -> str:
    """The limit that a long caption met: the one that was set, or that of the decoder's positions."""
    room = Room.of(captioner)
    if room.most < max_tokens:
        return f"{room.told}, which is room for captions of at most {room.most} tokens"
    return f"they are longer than --max-tokens (now {max_tokens})"


def finish(run: RunFolder) -> dict[str, float]:
    """Report written, run marked as done; its best scores in validation."""
    scores = run.best_scores()
    try:
        write_report(run.path)
    except BusyError as error:  # somebody looks at the run just now: that is worth no training
        logger.warning("%s; captrain report %s writes one of the whole run", error, run.path)
    run.finish(scores)
    logger.info("done: %s", run.path / "report.html")
    return scores
