"""Which pictures an evaluation is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from captrain.data.dataset import SplitNames, load_part, load_split
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.recipe import load_recipe_data
from captrain.data.samples import Chosen
from captrain.errors import DataError, SettingsError
from captrain.records import Rejects, Sample
from captrain.settings.schema import DataSettings, Settings


@dataclass(frozen=True, slots=True)
class Asked:
    """How data is read and split: by a run that was trained on it, by a recipe, or by looking at it."""

    data: DataSettings
    seed: int = 0

    @property
    def drawn(self) -> dict[str, Any]:
        """Keyword arguments of `load_split`."""
        names = SplitNames(self.data.train_split, self.data.validation_split, self.data.test_split)
        return {"validation_share": self.data.validation_share, "seed": self.seed, "names": names, **self.read}

    @property
    def read(self) -> dict[str, Any]:
        """Keyword arguments of all that reads."""
        return {"format": self.data.format, "options": ReadOptions.of(self.data)}

    def but(self, format: str | None, options: ReadOptions) -> Asked:
        """The same with another form of the data, as far as one is said."""
        said = ({} if format is None else {"format": format}) | ({} if options == BY_LOOKING else asdict(options))
        return Asked(self.data.model_copy(update=said), self.seed)


def choose_samples(
    model: str, data: str | None, split: str | None, limit: int | None, format: str | None, options: ReadOptions,
    recipe: Settings | None = None,
) -> tuple[Sequence[Sample], Rejects]:  # fmt: skip
    """The pictures to score a model on, those without references rejected.

    Without `data`, those that the recipe names, or else those of the run that the model is. Of the data that a run was trained
    on, splits are drawn as the run drew them.

    Raises `SettingsError` where no data is told, `DataError` where it can't be used.
    """
    if recipe is not None:
        asked = Asked(recipe.data, recipe.training.seed).but(format, options)
        samples, rejects = _of_recipe(asked, split) if data is None else _of_data(data, asked, split)
    else:
        samples, rejects = _of_run(model, data, split, format, options)
    return _with_references(samples, limit, data or "the data", rejects), rejects


def _of_data(data: str, asked: Asked, split: str | None) -> tuple[Sequence[Sample], Rejects]:
    """A data set by itself: the named split; else what is named for testing; else the best there is."""
    if split is None and asked.data.test_split:
        rejects = Rejects()
        return load_part(data, "test", rejects, asked.data.test_split, **asked.read), rejects
    return load_split(data, split, **asked.drawn)


def _of_recipe(asked: Asked, split: str | None, path: str | None = None) -> tuple[Sequence[Sample], Rejects]:
    """What a recipe says: its data to test on, or else the part of that name of what it trains on."""
    data = asked.data
    if data.test_data is not None and split in (None, "test"):
        rejects = Rejects()
        return load_part(data.test_data, "test", rejects, data.test_split, options=ReadOptions.of(data)), rejects
    splits = load_recipe_data(data, asked.seed, path)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    there = [name for name, samples in parts.items() if len(samples)]
    chosen = split or next((name for name in ("test", "validation") if name in there), None)
    if chosen is None or chosen not in there:
        raise DataError(f"no split '{split or 'test'}' of the data; there is {', '.join(map(repr, there))}")
    return parts[chosen], splits.rejects


def _of_run(
    model: str, data: str | None, split: str | None, format: str | None, options: ReadOptions
) -> tuple[Sequence[Sample], Rejects]:
    """What a run was trained with, where it is a run and the data its own; else what the data offers."""
    settings, source = _run_of(model)
    if data is None and settings is None:
        raise SettingsError(
            f"no data to evaluate {model} on: it is no run folder; give DATA, or a recipe that names data"
        )
    own = settings is not None and (data is None or (source is not None and _same(source, data)))
    if settings is None or not own:
        return _of_data(str(data), Asked(DataSettings()).but(format, options), split)
    asked = Asked(settings.data, settings.training.seed).but(format, options)
    if source is not None and split not in (None, "test", "validation", "train"):
        return load_split(source, split, **asked.drawn)
    try:
        return _of_recipe(asked, split, source)
    except DataError:
        if source is None:
            raise
        return load_split(source, split, **asked.drawn)


def tokenizer_of(model: str, recipe: Settings | None) -> str:
    """How captions become words to score: as the recipe says, or else as the run was measured."""
    settings = recipe if recipe is not None else _run_of(model)[0]
    return "auto" if settings is None else settings.evaluation.tokenize


def _same(source: str, data: str) -> bool:
    return Path(source).resolve() == Path(data).resolve()


def _run_of(model: str) -> tuple[Settings | None, str | None]:
    """The settings of a run and its data; nothing where `model` is no run, or one of another version."""
    try:
        content = yaml.safe_load((Path(model) / "settings.yaml").read_text(encoding="utf-8"))
        source = content["requested"]["source"]
        return Settings.model_validate(content["settings"]), None if source is None else str(source)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):  # of ValueErrors, those of settings too
        return None, None


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
    return Chosen(samples, np.array(usable[:limit], dtype=np.int64))
