"""`captrain.evaluate`, `captrain.score` and `captrain.compare`: captioners and captions measured against references."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from captrain.api.checks import check_data, check_lengths, check_models, check_numbers, check_scores_folder
from captrain.api.options import CAPTIONING, Place, how_to_read, place, place_or_none, settings_from, sort_settings
from captrain.api.process import calling
from captrain.api.settings import ComputingOptions, DecodingOptions, ReadingOptions
from captrain.errors import SettingsError, nearest
from captrain.metrics.own import Metric, check_metrics
from captrain.settings.load import check_settings
from captrain.settings.schema import ComputingSettings, EvaluationSettings, GenerationSettings, Section, Settings

if TYPE_CHECKING:
    from captrain.inference.evaluate import Evaluation
    from captrain.metrics.compare import Comparison, System
    from captrain.records import Rejects

Tokenize = Literal["ptb", "unicode", "characters", "auto"]


class EvaluateSettings(ReadingOptions, ComputingOptions, DecodingOptions, total=False):
    """Settings of an evaluation: how data is read, how the captioner runs, how captions are written."""


class ScoreSettings(TypedDict, total=False):
    """Settings of scores."""

    metrics: Sequence[str]
    """Any of bleu_1 to bleu_4 (one brings all), rouge_l, cider, and meteor and spice, which need Java."""
    tokenize: Tokenize
    """How captions become words to score."""
    allow_missing: bool
    """Score the images that have both captions and references. Otherwise ids must be the same."""
    document_frequencies: str | os.PathLike[str] | None
    """File of CIDEr's document frequencies, instead of those of the references."""
    save_document_frequencies: str | os.PathLike[str] | None
    """Write those of the references to this file."""
    bootstrap: int
    """Resamples for 95 % intervals and comparisons. 0 leaves them out."""
    seed: int
    """Seed of the resamples."""
    clip: str | os.PathLike[str] | None
    """CLIP model (folder or hub id), for CLIPScore and RefCLIPScore of the pictures in `images`."""
    images: str | os.PathLike[str] | None
    """Folder of the pictures, whose names are the ids of the captions."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]
    """Where the CLIP model runs."""
    image_column: str
    """Column that names the images, in the files that have it."""
    caption_column: str
    """Column of captions, in the files that have it."""
    follow_links: bool
    """Read what links in folders of captions and of pictures lead to."""
    trust_remote_code: bool
    """Run Python code that lies beside the CLIP model."""
    safetensors_only: bool
    """Refuse weights that are pickles."""


OLD_NAME = "tokenizer"
"""The former name of `tokenize`, which still works."""
OF_PLACES = ("document_frequencies", "save_document_frequencies", "images")
Predictions = str | os.PathLike[str] | Mapping[str, str]
References = str | os.PathLike[str] | Mapping[str, str | Sequence[str]]


def evaluate(
    model: Place,
    data: Place | None = None,
    *,
    recipe: Place | None = None,
    split: str | None = None,
    limit: int | None = None,
    out: Place | None = None,
    tokenize: Tokenize | None = None,
    metrics: Mapping[str, Metric] | None = None,
    beams: int | Sequence[int] = (),
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[EvaluateSettings],
) -> Evaluation:
    """Caption a data set, then score the captions, as `captrain evaluate` does.

    Args:
        model: Run folder, model folder or hub id.
        data: Data set whose pictures have captions to compare with. Default: the recipe's data, else the run's own data.
        recipe: YAML file of settings; only its data (with the prompt), generation and tokenize are used.
        split: Which split, by the data's name. Default: test, else validation, else everything; of its own data what the run
            held out for it.
        limit: Score only this many pictures, the first ones.
        out: Folder for predictions.jsonl and scores.json. Default: evaluation/ in the run folder, if the model is one.
        tokenize: How captions become words to score. Default: what the recipe or the run says, else auto.
        metrics: Scores of your own by name, as for `captrain.train`.
        beams: Beams of the search; several numbers are each scored, and compared.
        trust_remote_code, safetensors_only: As for `captrain.load`.
        settings: `batch_size`, `device`, `format` and others (`captrain.api.scoring.EvaluateSettings`).

    Returns:
        `.scores` by name, `.captions` (each with its references and its own scores), `.comparison` with intervals, `.rejected`.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_blip, tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> found = evaluate(tiny_blip(folder / "blip"), tiny_photos(folder / "photos"), device="cpu", beams=1)
    >>> found.images, len(found.captions), "cider" in found.scores
    (8, 8, True)
    """
    own = dict(metrics or {})
    check_metrics(own)
    check_numbers(limit=limit)
    sorted_out = sort_settings("captrain.evaluate", settings, CAPTIONING)
    several = _beams(beams)
    if tokenize is not None:
        check_settings(EvaluationSettings, tokenize=tokenize)
    said = None if recipe is None else settings_from(recipe, {})
    decoding = decoding_of(said, sorted_out["generation"])
    if several:
        decoding.pop("beams", None)
    counts = several or tuple(decoding[name] for name in ("beams",) if name in decoding)
    check_lengths(decoding)
    check_scores_folder(place_or_none(out))
    reading = how_to_read(sorted_out["reading"])
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(place(model))
        check_data([None if data is None else place(data)], reading["format"])
        begin()
        from captrain.features.stream import Computing
        from captrain.inference.evaluate import Scoring
        from captrain.inference.evaluate import evaluate as evaluate_captioner
        from captrain.inference.evaluation_data import EvaluationData

        return evaluate_captioner(
            place(model), EvaluationData(None if data is None else place(data), split, limit, **reading),
            recipe=said, output=place_or_none(out), scoring=Scoring(tokenize, own=own), beams=counts,
            computing=Computing(**computing_of(said, sorted_out["computing"])),
            decoding=decoding | ({"beams": counts[0]} if len(counts) == 1 else {}),
        )  # fmt: skip


def score(predictions: Predictions, references: References, **settings: Unpack[ScoreSettings]) -> System:
    """Score existing captions against references: dictionaries by image id, or files that `captrain score` takes.

    Args:
        predictions: Captions by id, or a file (.json, .jsonl, .csv, .tsv) or a folder of .txt.
        references: A list of captions by id (or the only one as text), or such a file or folder.
        settings: `metrics`, `tokenize`, `bootstrap` and others (`captrain.api.scoring.ScoreSettings`).

    Returns:
        `.scores` by name, `.intervals` (95 %), `.images`, `.notes`, and a `.signature` that says how they were computed.

    Raises `SettingsError` and `DataError`, before any metric is computed.

    >>> captions = {"1": "a dog runs on grass", "2": "two cats sleep"}
    >>> references = {"1": ["A dog runs on grass."], "2": ["Two cats sleep on a sofa."]}
    >>> found = score(captions, references, metrics=["bleu_4"])
    >>> round(found.scores["bleu_1"], 3), found.images
    (0.687, 2)
    """
    name = "predictions" if isinstance(predictions, Mapping) else place(predictions)
    found, _ = compare_files("captrain.score", {name: predictions}, references, settings)
    return found.systems[0]


def compare(
    systems: Mapping[str, Predictions], references: References, **settings: Unpack[ScoreSettings]
) -> Comparison:
    """Score several systems on the same images, and say which differences are more than chance.

    Args:
        systems: By name, what `captrain.score` takes as predictions.
        references, settings: As for `captrain.score`.

    >>> references = {str(number): ["a dog runs fast"] for number in range(40)}
    >>> good, bad = ({id: text for id in references} for text in ("a dog runs", "two cats"))
    >>> found = compare({"good": good, "bad": bad}, references, metrics=["bleu_4"], bootstrap=100)
    >>> [system.name for system in found.systems], found.best("bleu_4")
    (['good', 'bad'], ['good'])
    """
    found, _ = compare_files("captrain.compare", systems, references, settings)
    return found


def decoding_of(recipe: Settings | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding: as given, else from the recipe. One that names every setting may say that nothing is sampled, and how."""
    said = _explicit(recipe and recipe.generation)
    if not given.get("sample", said.get("sample", True)):
        said = {name: value for name, value in said.items() if name not in ("top_p", "temperature")}
    return {**said, **given}


def computing_of(recipe: Settings | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The computation: as given, else from the recipe."""
    said: dict[str, Any] = {}
    if recipe is not None:
        said = {name: value for part in (recipe.model, recipe.data) for name, value in _explicit(part).items()}
    known = {name: value for name, value in said.items() if name in ComputingSettings.model_fields}
    return ComputingSettings(**known).model_dump() | dict(given)


def _explicit(section: Section | None) -> dict[str, Any]:
    """The values that a section sets itself, without defaults."""
    return {} if section is None else section.model_dump(exclude_unset=True)


def _beams(beams: int | Sequence[int]) -> tuple[int, ...]:
    """Numbers of beams, each checked."""
    several = tuple(beams) if isinstance(beams, Sequence) else (beams,)
    for count in several:
        sort_settings("captrain.evaluate", {"beams": count}, {"generation": GenerationSettings})
    return several


def compare_files(
    call: str, systems: Mapping[str, Predictions], references: References, settings: ScoreSettings
) -> tuple[Comparison, Rejects]:
    """Systems by name against references, for a call or a command; and the pictures that CLIPScore could not read."""
    known = list(ScoreSettings.__annotations__)
    how: dict[str, Any] = dict(settings)
    for name in how:
        if name not in (*known, OLD_NAME):
            raise SettingsError(f"unknown setting '{name}' of {call}.{nearest(name, known)} See: help({call})")
    how |= {name: place_or_none(how[name]) for name in OF_PLACES if name in how}
    how["clip"] = None if how.get("clip") is None else place(how["clip"])
    if "tokenize" in how:
        how[OLD_NAME] = how.pop("tokenize")
    trust = {name: how.pop(name) for name in ("trust_remote_code", "safetensors_only") if name in how}
    with calling(**trust) as begin:
        check_models(how["clip"] if how.get("images") is not None else None)
        if how["clip"] is not None:
            begin()
        from captrain.inference.score import ClipScoring, ScoreOptions, score_systems
        from captrain.metrics.inputs import GivenColumns

        columns = {"image_column": "image", "caption_column": "caption", "follow_links": "follow_links"}
        given = GivenColumns(**{columns[name]: how.pop(name) for name in columns if name in how})
        clip = ClipScoring(how.pop("clip"), how.pop("images", None), how.pop("device", "auto"))
        captions = {name: _given(found) for name, found in systems.items()}
        return score_systems(captions, _given(references), ScoreOptions(**how, clip=clip, given=given))


def _given(captions: Any) -> Any:
    """Captions by id as they are, a place as a path."""
    return captions if isinstance(captions, Mapping) else Path(captions)
