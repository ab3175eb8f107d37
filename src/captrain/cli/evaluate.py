"""`captrain evaluate`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.comparison import show_comparison
from captrain.cli.early import check_data, check_lengths, check_models, check_scores_folder
from captrain.cli.flags import (
    ComputingFlags,
    ComputingSettings,
    ReadingFlags,
    SeveralDecodingsFlags,
    TrustFlags,
    given,
    how_to_read,
    settings_from,
    trust,
)
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, rejected_rows, show_table
from captrain.cli.switch import Switch
from captrain.settings.schema import Section, Settings
from captrain.settings.schema.training import TokenizeName

if TYPE_CHECKING:
    from captrain.inference.evaluate import Evaluation


def evaluate(
    model: str,
    data: str | None = None,
    /,
    *,
    recipe: Path | None = None,
    split: str | None = None,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    output: Path | None = None,
    tokenize: TokenizeName | None = None,
    json: Switch = False,
    reading: ReadingFlags = None,
    computing: ComputingFlags = None,
    generation: SeveralDecodingsFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Caption a data set, then score the captions.

    Args:
        model: Run folder, model folder or hub id.
        data: Data set whose pictures have captions to compare with. Default: what the recipe names, else the run's own data.
        recipe: YAML file of settings, of which only data (its prompt too), generation and tokenize are used: nothing is trained.
        split: Which split, by the data's name. Default: test, else validation, else everything; of its own data what the run held
            out as such, by the list in its folder.
        limit: Only the first so many pictures.
        output: Folder for predictions.jsonl and scores.json. Default: evaluation/ in the run folder, if the model is one.
        tokenize: How captions become words to score (see `captrain score`). Default: what the recipe or the run says, else auto.
        json: Print one JSON object instead of a table.
    """
    trust(model_files)
    settings = None if recipe is None else settings_from(recipe, {})
    decoding = _decoding(settings, given(generation=generation)["generation"])
    check_lengths(decoding)
    check_scores_folder(output)
    check_models(model)
    check_data([data], how_to_read(reading)["format"])
    quiet_libraries()
    from captrain.inference.evaluate import evaluate as evaluate_captioner

    beams = decoding.pop("beams", ())
    beams = (beams,) if isinstance(beams, int) else beams
    found = evaluate_captioner(
        model,
        data,
        recipe=settings,
        split=split,
        limit=limit,
        output=output,
        tokenizer=tokenize,
        **how_to_read(reading),
        **_computing(settings, computing),
        decoding=decoding | ({"beams": beams[0]} if len(beams) == 1 else {}),
        beams=beams,
    )
    if json:
        print(_as_json(found))
    else:
        show_comparison(found.comparison)
        files = [("predictions", str(path)) for path in found.predictions]
        if rows := [*rejected_rows(found.rejected, found.rejects_file), *files]:
            show_table(rows)
    return exit_code(found.rejected)


def _decoding(recipe: Settings | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """How to write: by flags, else by the recipe. One that names every setting may say that nothing is sampled, and how."""
    said = _explicit(recipe and recipe.generation)
    if not flags.get("sample", said.get("sample", True)):
        said = {name: value for name, value in said.items() if name not in ("top_p", "temperature")}
    return {**said, **flags}


def _explicit(section: Section | None) -> dict[str, Any]:
    """What a section says itself, without defaults."""
    return {} if section is None else section.model_dump(exclude_unset=True)


def _computing(settings: Settings | None, flags: ComputingSettings | None) -> dict[str, Any]:
    """How to compute: by flags, else by the recipe."""
    said: dict[str, Any] = {}
    if settings is not None:
        said = {name: value for part in (settings.model, settings.data) for name, value in _explicit(part).items()}
    known = {name: value for name, value in said.items() if name in ComputingSettings.model_fields}
    return ComputingSettings(**known).model_dump() | _explicit(flags)


def _as_json(found: Evaluation) -> str:
    """One JSON object on one line."""
    files = [str(path) for path in found.predictions]
    one = len(found.comparison.systems) == 1
    predictions = next(iter(files), None) if one else files
    content = {**found.comparison.to_dict(), "images": found.images, "rejected": found.rejected}
    if found.pictures:
        content["pictures"] = found.pictures
    return json_format.dumps({**content, "predictions": predictions})
