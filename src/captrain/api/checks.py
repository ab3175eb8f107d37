"""Checks of names, numbers and choices before anything heavy is loaded, so that a wrong one is reported at once.

The work itself checks them again. Nothing is loaded, read or changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from captrain.errors import SettingsError, UserError, nearest
from captrain.paths import JSON_LINES, check_output_file, check_output_folder
from captrain.settings.schema import GenerationSettings, Settings
from captrain.settings.schema.conflicts import conflict_of_lengths


def check_numbers(
    *, least: float | None = 1, above: float | None = None, most: float | None = None, **given: float | None
) -> None:
    """Raise `SettingsError` for the first of the numbers that is out of range. None stands for a default.

    >>> check_numbers(limit=3, workers=None)
    >>> try:
    ...     check_numbers(limit=0)
    ... except SettingsError as error:
    ...     print(error)
    limit: found 0, which must be >= 1
    """
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise SettingsError(f"{name}: found {value!r}, expected a number")
        if above is not None and not value > above:
            raise SettingsError(f"{name}: found {value!r}, which must be > {above}")
        if above is None and least is not None and not value >= least:
            raise SettingsError(f"{name}: found {value!r}, which must be >= {least}")
        if most is not None and not value <= most:
            raise SettingsError(f"{name}: found {value!r}, which must be <= {most}")


def check_choices(choices: Iterable[str], **given: str | None) -> None:
    """Raise `SettingsError` for the first of the values that is none of the choices, with the nearest. None stands for a default.

    >>> try:
    ...     check_choices(("fp32", "fp16", "bf16"), dtype="fp61")
    ... except SettingsError as error:
    ...     print(error)
    dtype: found 'fp61', expected one of fp32, fp16, bf16. Did you mean 'fp16'?
    """
    known = tuple(choices)
    for name, value in given.items():
        if value is not None and value not in known:
            hint = nearest(str(value), known)
            raise SettingsError(
                f"{name}: found {value!r}, expected one of {', '.join(known)}{'.' if hint else ''}{hint}"
            )


def check_models(*sources: str | None) -> None:
    """Raise `ModelError` for the first name that no checkpoint has, in a folder or on the hub."""
    from captrain.models.checkpoint.located import check_model

    for source in sources:
        if source is not None:
            check_model(source)


def check_data(paths: Iterable[str | None], format: str | None = None) -> None:
    """Raise `DataError` for the first name that leads to no data."""
    from captrain.data.readers import recognises
    from captrain.data.readers.detection import detect

    for path in paths:
        if path is None or Path(path).exists() or (format is not None and recognises(format, path)):
            continue
        detect(path)


def check_stores(*stores: str) -> None:
    """Raise `DataError` for the first that is no feature store; each may name several with commas between them."""
    from captrain.data.feature_store.store import FeatureStore
    from captrain.data.readers.features import is_store
    from captrain.data.shards.sources import split_list

    for place in (place for store in stores for place in split_list(store)):
        if not is_store(place):
            FeatureStore(place)


def check_lengths(decoding: Mapping[str, Any]) -> None:
    """Raise `SettingsError` if captions are asked for whose shortest is longer than the longest.

    If only one length is asked for, it is compared with the model's own once that is loaded.
    """
    lengths = {name: decoding[name] for name in ("min_new_tokens", "max_new_tokens") if name in decoding}
    if len(lengths) == 2 and (conflict := conflict_of_lengths(GenerationSettings(**lengths))):
        raise SettingsError(f"generation: {conflict}")


def check_captions_file(output: Path | None) -> None:
    """Raise `UserError` if captions can't be written: by the name, a folder of it, or a file above it."""
    if output is not None:
        check_output_file(output, JSON_LINES, "JSON lines are")
    _check_above(output)


def check_scores_folder(output: Path | None) -> None:
    """Raise `UserError` if an evaluation can't be written: by the name, a file of it, or a file above it."""
    if output is not None:
        check_output_folder(output, "predictions.jsonl and scores.json")
    _check_above(output)


def check_folder(output: Path | None) -> None:
    """Raise `UserError` if a folder can't be written, because a file has its name or that of a folder above it."""
    if output is not None and output.is_file():
        raise UserError(f"{output}: is a file, expected a folder to write into; choose another name")
    _check_above(output)


def check_free(output: Path) -> None:
    """Raise `ModelError` where writing a model, as a folder or an archive, would overwrite something."""
    from captrain.models.checkpoint.archive import check_out_free

    _check_above(output)
    check_out_free(output)


def check_training(
    settings: Settings, data: str | None, out: Path, *,
    resume: bool, overwrite: bool, resume_from: str | None, force: bool, writes: bool,
) -> None:  # fmt: skip
    """Raise `UserError` for a training whose data, checkpoint, run folder or checkpoint to go back to does not exist.

    `writes`: whether it will write into `out`; a dry run does not.
    """
    from captrain.training.run_folder.place import CHECKPOINTS, RunPlace, RunRequest, check_switches, find_checkpoint

    place = RunPlace(out)
    if writes:
        resumes = resume or resume_from is not None
        check_switches(out, resumes, overwrite)
        _check_above(out)
        place.look(RunRequest(data, settings.requested(), resumes, overwrite, force))
        if resume_from is not None:
            find_checkpoint(out / CHECKPOINTS, resume_from)
        elif place.is_finished() and not overwrite:
            return
    part = settings.data
    for source in part.sources if data is None else ():
        check_data([source.path], source.format or part.format)
    check_data([data], part.format)
    check_data([part.validation_data, part.test_data])
    if not (writes and place.base.is_dir() and not overwrite):
        model = settings.model
        check_models(*((model.encoder, model.decoder) if model.encoder is not None else (model.model,)))


def _check_above(output: Path | None) -> None:
    for folder in output.parents if output is not None else ():
        if folder.is_file():
            raise UserError(f"{output}: {folder} is a file, expected a folder there; choose another place")
