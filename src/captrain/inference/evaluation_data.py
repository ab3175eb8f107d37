"""Which pictures an evaluation is about."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.dataset import load_part, pick_split, read_splits
from captrain.data.machine_captions import MACHINE
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.recipe_data import load_recipe_data, read_pool, same_place, take_uncaptioned
from captrain.data.samples import ChosenSamples
from captrain.data.splits import SPLIT_NAMES, KeptSplits, SplitNames, read_kept_splits, run_folder_of
from captrain.errors import DataError, SettingsError
from captrain.inference.held_out import HeldOutFacts, pick, sift
from captrain.records import Rejects, Sample
from captrain.settings.schema import DataSettings, Settings
from captrain.settings.schema.training import allowing_metrics
from captrain.yaml_text import read_yaml_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """How data is read and split: by a run that was trained on it, by a recipe, or by looking at it."""

    data: DataSettings
    seed: int = 0

    @property
    def drawn(self) -> dict[str, Any]:
        """Keyword arguments of `pick_split`."""
        elsewhere = self.data.validation_data is not None
        names = SplitNames(self.data.train_split, () if elsewhere else self.data.validation_split, self.data.test_split)
        return {"validation_share": self.data.validation_share, "seed": self.seed, "names": names}

    @property
    def read(self) -> dict[str, Any]:
        """Keyword arguments of all that reads."""
        return {"format": self.data.format, "options": ReadOptions.of(self.data)}

    def but(self, format: str | None, options: ReadOptions) -> EvaluationRequest:
        """The same with another form of the data, as far as one is said."""
        said: dict[str, Any] = {} if format is None else {"format": format}
        if replace(options, follow_links=False) != BY_LOOKING:
            said |= asdict(options)
        said["follow_links"] = options.follow_links or self.data.follow_links
        said.pop("machine_captions", None)
        said["learn_from_machine_captions"] = False  # captions by a machine are not references
        return EvaluationRequest(self.data.model_copy(update=said), self.seed)


@dataclass(frozen=True, slots=True)
class EvaluatedRun:
    """What an evaluation knows about the captioner's run. `source` is its data, None if its settings name several.

    `kept` are its splits, None for a run from before they were kept.
    """

    folder: Path
    settings: Settings
    source: str | None
    kept: KeptSplits | None

    @classmethod
    def of(cls, model: str) -> EvaluatedRun | None:
        """The run of a captioner; None if it is of no run, or of one of another version."""
        folder = run_folder_of(model)
        if folder is None:
            return None
        try:
            content = read_yaml_file(folder / "settings.yaml")
            source = content["requested"]["source"]
            with allowing_metrics(None):  # whoever trained it may have chosen by a metric of their own
                settings = Settings.model_validate(content["settings"])
            data = settings.data.model_copy(update={"follow_links": False})  # a run may be a stranger's
        except (OSError, ValueError, KeyError, TypeError):  # of ValueErrors, those of settings too
            return None
        return cls(
            folder,
            settings.model_copy(update={"data": data}),
            None if source is None else str(source),
            read_kept_splits(folder),
        )

    def owns(self, data: str | None) -> bool:
        """Whether data is all that the run was trained on."""
        return data is None or (self.source is not None and same_place(self.source, data))

    def has(self, data: str) -> bool:
        """Whether data is one of several sources that the run was trained on."""
        sources = self.settings.data.sources if self.source is None else ()
        return any(same_place(source.path, data) for source in sources)

    def held_out(self) -> str:
        """The split that is evaluated where none is named: the one for testing, else for validation; "" if there is none."""
        return next((name for name in ("test", "validation") if self.kept and len(self.kept.part(name))), "")


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """The pictures that a person wants scored.

    data: default what a recipe names, else the data of the run that the model is.
    split: which one; default test, else validation, else everything; of a run's own data what it held out as such.
    limit: only the first so many pictures.
    format, options: how the data is read, if it is not recognised.
    """

    data: str | None = None
    split: str | None = None
    limit: int | None = None
    format: str | None = None
    options: ReadOptions = BY_LOOKING


TEST_SPLIT = EvaluationData()


def choose_samples(
    model: str, wanted: EvaluationData, recipe: Settings | None = None
) -> tuple[Sequence[Sample], Rejects, HeldOutFacts | None]:
    """The pictures to score a model on, those without references rejected, and what its run knows of them.

    Without `data`, those that the recipe names, or else those of the run that the model is. Of the data that a run was trained
    on, those are taken that it held out, by the list in its folder.

    Raises `SettingsError` if no data is given, `DataError` if it can't be used.
    """
    data, split, format, options = wanted.data, wanted.split, wanted.format, wanted.options
    run = EvaluatedRun.of(model)
    rejects, told, whole = Rejects(), None, False
    if recipe is not None:
        asked = EvaluationRequest(recipe.data, recipe.training.seed).but(format, options)
        samples, rejects, whole = _of_recipe(asked, split) if data is None else _of_data(data, asked, split)
    elif run is None and data is None:
        raise SettingsError(
            f"no data to evaluate {model} on: it is no run folder; give DATA, or a recipe that names data"
        )
    elif run is not None and (role := _role(run, data, split)):
        samples, told = _kept(run, role, data, format, options, rejects)
    else:
        samples, rejects, whole = _of_run(run, data, split, format, options)
    if made := rejects.remarked(MACHINE):
        logger.warning("captions that captrain wrote, of %d pictures, do not count as references", made)
    if run is not None and told is None:
        samples, told = _aware(run, samples, run.owns(data) and recipe is None, whole)
    if told is not None:
        if told.held_out:
            take_uncaptioned(rejects)
        _tell(told, data or "the data", model)
    return _with_references(samples, wanted.limit, data or "the data", rejects), rejects, told


def _tell(told: HeldOutFacts, data: str, model: str) -> None:
    """Log what is known of the pictures. Raises `DataError` if none is left to score."""
    if told.held_out:
        logger.info(
            "scoring %d of the %d %s pictures of %s, by the list in its folder",
            told.scored, told.held_out, told.split, model,
        )  # fmt: skip
    for remark in told.remarks():
        logger.info(remark)
    for warning in told.warnings():
        logger.warning(warning)
    if not told.scored:
        raise DataError(
            f"{data}: has none of the {told.held_out} {told.split} pictures of {model} any more; "
            "give other data, or --split all to score what is there"
        )


def _role(run: EvaluatedRun, data: str | None, split: str | None) -> str:
    """Which of its own splits a run is to be evaluated on; "" if it has no list of them, or the data is not its own."""
    if run.kept is None or not (run.owns(data) or run.has(str(data))):
        return ""
    role = run.held_out() if split is None else SPLIT_NAMES.get(split.lower(), split)
    return role if len(run.kept.part(role)) and role in ("train", "validation", "test") else ""


def _kept(
    run: EvaluatedRun, role: str, data: str | None, format: str | None, options: ReadOptions, rejects: Rejects
) -> tuple[Sequence[Sample], HeldOutFacts]:
    """The pictures of one of a run's splits, as it kept them."""
    assert run.kept is not None
    asked = EvaluationRequest(run.settings.data).but(format, options).data
    elsewhere = {"validation": asked.validation_data, "test": asked.test_data}.get(role)
    if elsewhere is not None:
        names = asked.validation_split if role == "validation" else asked.test_split
        pool = load_part(elsewhere, role, rejects, names, options=ReadOptions.of(asked))
    else:
        pool = read_pool(asked, role, rejects, run.source, None if run.owns(data) else data)
    samples, told = pick(run.kept, role, pool, comparable=elsewhere is None)
    if not run.owns(data):  # one of several sources: pictures of the others are not gone
        told = replace(told, gone=0, held_out=told.scored)
    return samples, told


def _aware(
    run: EvaluatedRun, samples: Sequence[Sample], own: bool, whole: bool
) -> tuple[Sequence[Sample], HeldOutFacts | None]:
    """Pictures of any data, and what a run knows of them."""
    if run.kept is not None:
        return sift(run.kept, run.held_out(), samples, own, whole)
    if own:
        logger.warning(
            "%s has no list of the pictures that it held out (it was made by an earlier version): they are drawn from the data "
            "as it is now; if pictures were added, renamed or removed since, it was trained on some of them", run.folder,
        )  # fmt: skip
    else:
        logger.warning(
            "%s has no list of the pictures that it was trained on (it was made by an earlier version): "
            "whether these are among them is not known", run.folder,
        )  # fmt: skip
    return samples, None


Found = tuple[Sequence[Sample], Rejects, bool]
"""Pictures, what was rejected, and whether these are all of a data set that names none to evaluate on."""


def _of_data(data: str, asked: EvaluationRequest, split: str | None) -> Found:
    """A data set by itself: the named split; else what is named for testing; else the best there is."""
    rejects = Rejects()
    if split is None and asked.data.test_split:
        return load_part(data, "test", rejects, asked.data.test_split, **asked.read), rejects, False
    named = read_splits(data, rejects, **asked.read)
    whole = split is None and not {"test", "validation"}.intersection(named)
    return pick_split(data, named, split, **asked.drawn), rejects, whole


def _of_recipe(asked: EvaluationRequest, split: str | None, path: str | None = None) -> Found:
    """What a recipe says: its data to test on, or else the part of that name of what it trains on."""
    data = asked.data
    if data.test_data is not None and split in (None, "test"):
        rejects = Rejects()
        options = ReadOptions.of(data)
        return load_part(data.test_data, "test", rejects, data.test_split, options=options), rejects, False
    splits = load_recipe_data(data, asked.seed, path)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    there = [name for name, samples in parts.items() if len(samples)]
    chosen = split or next((name for name in ("test", "validation") if name in there), None)
    if chosen is None or chosen not in there:
        raise DataError(f"no split '{split or 'test'}' of the data; there is {', '.join(map(repr, there))}")
    return parts[chosen], splits.rejects, False


def _of_run(
    run: EvaluatedRun | None, data: str | None, split: str | None, format: str | None, options: ReadOptions
) -> Found:
    """What a run was trained with, where the data is its own, drawn as it drew them; else what the data offers."""
    if run is None or not run.owns(data):
        return _of_data(str(data), EvaluationRequest(DataSettings()).but(format, options), split)
    asked = EvaluationRequest(run.settings.data, run.settings.training.seed).but(format, options)
    if run.source is None or split in (None, "test", "validation", "train"):
        try:
            return _of_recipe(asked, split, run.source)
        except DataError:
            if run.source is None:
                raise
    try:
        return _of_data(run.source, asked, split)
    except DataError as error:
        if run.kept is None or split not in ("test", "validation", "train"):
            raise
        there = ", ".join(f"'{name}'" for name in ("train", "validation", "test") if len(run.kept.part(name)))
        raise DataError(f"no split '{split}' of the data of {run.folder}; it was trained with {there}") from error


def tokenizer_of(model: str, recipe: Settings | None) -> str:
    """How captions become words to score: as the recipe says, or else as the run was measured."""
    if recipe is not None:
        return recipe.evaluation.tokenize
    run = EvaluatedRun.of(model)
    return "auto" if run is None else run.settings.evaluation.tokenize


def _with_references(samples: Sequence[Sample], limit: int | None, data: str, rejects: Rejects) -> Sequence[Sample]:
    """Samples that have something to be compared with; the others are rejected."""
    usable = []
    for index in range(len(samples)):
        if samples[index].captions:
            usable.append(index)
        else:
            rejects.add(samples[index].id, samples[index].source, "has no reference caption")
    if not usable:
        raise DataError(f"{data}: no picture has a reference caption to score against")
    return ChosenSamples(samples, np.array(usable[:limit], dtype=np.int64))
