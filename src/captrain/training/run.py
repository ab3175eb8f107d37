"""The whole run, told in one place: data, captioner, what is kept, training, report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from captrain.data.dataset import Splits, join_splits, load_splits, unique_names
from captrain.data.readers.options import ReadOptions
from captrain.errors import DataError, SettingsError
from captrain.features.images import Images
from captrain.features.keep import GIB, Keeping, keep_images
from captrain.features.stored import StoredImages, captions_of
from captrain.features.views import Views
from captrain.models.adapt import count_parameters
from captrain.models.captioner import Captioner
from captrain.paths import cache_folder
from captrain.records import Rejects
from captrain.report.run import write_report
from captrain.settings.schema import DataSettings, Settings
from captrain.training.assembly import make_trainer
from captrain.training.checkpoints import Checkpoints, check_fits
from captrain.training.prepare import adapt, build_captioner, fill_defaults, place
from captrain.training.preview import preview
from captrain.training.rows import TokenizedCaptions
from captrain.training.run_folder import RunFolder
from captrain.training.stored import MOST_AT_ONCE, StoredCaptions
from captrain.training.trainer import CaptionTrainer
from captrain.training.variation import augmentation, caption_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training left: its folder, how many samples were rejected and where they are listed, the best scores."""

    run: Path
    rejected: int
    rejects_file: Path | None
    scores: dict[str, float]


def train(settings: Settings, data: str | None, out: Path, *, resume: bool = False, overwrite: bool = False) -> Outcome:
    """Train a captioner on `data`, or without it on the settings' sources, and write the run folder `out`.

    The same call on the folder of an interrupted run goes on from its last checkpoint; on a finished one it does nothing.

    Raises:
        UserError: for settings, data, models or folders that can't work; nothing was begun.
        TrainingError: when the training itself stopped; the last checkpoint is intact.
    """
    run = RunFolder(out)
    run.claim(settings, data, resume, overwrite)
    if (scores := run.finished()) is not None:
        logger.info("%s: this run is finished; use --overwrite to train again", out)
        return Outcome(out, *run.rejected(), scores)

    splits = load(settings, data)
    captioner, filled = ready(settings, splits, run)
    images = keep(captioner, splits, filled.data, settings.training.seed)
    captions = tokenize(captioner, images, filled.data)
    checkpoints = Checkpoints(run.checkpoints, filled.training.keep_checkpoints)
    last = checkpoints.last()
    if last is not None:
        check_fits(captioner, last)
    if last is not None and not resume:
        run.check_data(count(images, captions))
    note_run(run, settings, filled, data, captioner, images, captions, splits.rejects)

    run.rewind_logs(checkpoints.last_step())
    trainer = make_trainer(run, filled, captioner, images, captions, checkpoints, splits.sources())
    trainer.train(resume_from_checkpoint=None if last is None else str(last))

    scores = finish(run, captioner, trainer)
    return Outcome(out, len(splits.rejects), run.write_rejects(splits.rejects), scores)


def describe(settings: Settings, data: str | None) -> str:
    """A dry run: everything up to the first step, as text."""
    splits = load(settings, data)
    captioner, filled = ready(settings, splits, None)
    return preview(filled, captioner, splits, count_parameters(captioner))


def load(settings: Settings, data: str | None) -> Splits:
    """The data set's splits; without a data set, those of the settings' sources, joined."""
    chosen = settings.data
    if data is None and not chosen.sources:
        raise SettingsError(
            "found no data to train on; give DATA before OUT, or a recipe whose data section names sources"
        )

    def splits(path: str, format: str | None) -> Splits:
        return load_splits(
            path, validation_share=chosen.validation_share, seed=settings.training.seed, format=format or chosen.format,
            options=ReadOptions.of(chosen),
        )  # fmt: skip

    if data is not None:
        return splits(data, None)
    names = unique_names([source.path for source in chosen.sources])
    return join_splits(
        {name: splits(source.path, source.format) for name, source in zip(names, chosen.sources, strict=True)}
    )


def ready(settings: Settings, splits: Splits, run: RunFolder | None) -> tuple[Captioner, Settings]:
    """The captioner on its device with its learning weights chosen, and settings without open ends.

    A captioner that was joined anew is first written to the run's `base/`: adapters refer to it, and a resumed run begins there.
    """
    captions = captions_of(splits.train)
    captioner = build_captioner(settings, captions, run.base if run else Path("-"))
    if run is not None and settings.model.encoder is not None and not run.base.is_dir():
        run.save_base(captioner)
        captioner.core().name_or_path = str(run.base)
    place(captioner, settings.model)
    filled = fill_defaults(settings, captioner)
    adapt(captioner, filled)
    return captioner, filled


def keep(captioner: Captioner, splits: Splits, data: DataSettings, seed: int) -> dict[str, Images]:
    """Features or pixels of all training and validation pictures; bad pictures are rejected."""
    budget = None if data.memory_budget is None else int(data.memory_budget * GIB)
    keeping = Keeping(data.keep, cache_folder() / "kept", budget, data.workers, data.max_pixels)
    views = {"train": Views(data.views, augmentation(data), seed)}
    pictures = {"train": splits.train, "validation": splits.validation}
    images = keep_images(captioner, pictures, keeping, splits.rejects, views)
    if not len(images["train"]):
        raise DataError(f"none of {len(splits.train)} training pictures can be used: {splits.rejects.summary()}")
    return images


def tokenize(captioner: Captioner, images: dict[str, Images], data: DataSettings) -> dict[str, TokenizedCaptions]:
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
    run: RunFolder, requested: Settings, filled: Settings, data: str | None, captioner: Captioner,
    images: dict[str, Images], captions: dict[str, TokenizedCaptions], rejects: Rejects,
) -> None:  # fmt: skip
    """Write down what the run is, before its first step."""
    counts = count(images, captions)
    counts |= {"cut_captions": sum(part.cut for part in captions.values()), "rejected": len(rejects)}
    parameters = count_parameters(captioner)
    run.write_settings(requested, filled, data, counts, parameters, str(captioner.device))
    run.write_rejects(rejects)
    learning = sum(count["trainable"] for count in parameters.values())
    logger.info(
        "%d images with %d captions to train on, %d to validate; %s of %s weights learn",
        counts["train_images"], counts["train_captions"], counts["validation_images"],
        f"{learning:,}", f"{sum(count['total'] for count in parameters.values()):,}",
    )  # fmt: skip
    if rejects:
        logger.warning(rejects.summary())
    if counts["cut_captions"]:
        logger.warning("%d captions are longer than --max-tokens and were cut", counts["cut_captions"])


def finish(run: RunFolder, captioner: Captioner, trainer: CaptionTrainer) -> dict[str, float]:
    """Best model in place, report written, run marked as done."""
    if trainer.validator is None:
        run.save_model(captioner)
    scores = run.best_scores()
    write_report(run.path)
    run.finish(scores)
    logger.info("done: %s", run.path / "report.html")
    return scores
