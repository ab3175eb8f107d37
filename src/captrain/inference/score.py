"""Score captions that exist, of one system or of several, against references: the work behind `captrain score`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captrain.disk.locks import only_writer
from captrain.errors import CaptrainError, DataError, SettingsError, nearest
from captrain.metrics.compare import Comparison, System, compare, statistics_of, tokenized
from captrain.metrics.diversity import alarms, measure_diversity
from captrain.metrics.document_frequencies import DocumentFrequencies
from captrain.metrics.inputs import CaptionColumns, GivenColumns, predictions_in, references_in
from captrain.metrics.java import JAVA_METRICS, check_java, score_java
from captrain.metrics.matching import choose_columns, given_predictions, given_references, match_ids, some
from captrain.metrics.score import METRICS, Scores, score_captions
from captrain.metrics.significance import RESAMPLES
from captrain.metrics.tokenizer_choice import choose_tokenizer
from captrain.records import Rejects
from captrain.settings.load import check_settings
from captrain.settings.schema.training import ScoringSettings

logger = logging.getLogger(__name__)

DEFAULT_METRICS = ("bleu_4", "rouge_l", "cider")
CLIP_METRICS = ("clip_score", "ref_clip_score")

Captions = Mapping[str, str]
References = Mapping[str, str | Sequence[str]]
Means = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class ClipScoring:
    """What CLIPScore and RefCLIPScore need: a CLIP model (folder or hub id), the folder of the pictures, and a device."""

    model: str | None = None
    images: Path | None = None
    device: str = "auto"


NO_CLIP, USUAL_COLUMNS = ClipScoring(), GivenColumns()


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How captions are scored.

    metrics: of `METRICS`, and meteor and spice, which need Java.
    tokenizer: of `captrain.metrics.tokenizer`, or `auto` for the one that suits the references' script.
    allow_missing: score what is common to all; otherwise an id without its counterpart is an error.
    document_frequencies: file of CIDEr's document frequencies, instead of those of the references.
    save_document_frequencies: file to write those of the references to.
    bootstrap: resamples for intervals and comparisons; 0 for none. seed: of the resamples.
    clip: what CLIPScore needs. given: columns of ids and of captions, and whether links in folders are followed.
    """

    metrics: Sequence[str] = DEFAULT_METRICS
    tokenizer: str = "auto"
    allow_missing: bool = False
    document_frequencies: Path | None = None
    save_document_frequencies: Path | None = None
    bootstrap: int = RESAMPLES
    seed: int = 0
    clip: ClipScoring = NO_CLIP
    given: GivenColumns = USUAL_COLUMNS

    def __post_init__(self) -> None:
        check_settings(ScoringSettings, bootstrap=self.bootstrap, seed=self.seed)


USUAL = ScoreOptions()


def score(
    predictions: str | Path | Captions,
    references: str | Path | References,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    tokenizer: str = "auto",
    allow_missing: bool = False,
    document_frequencies: Path | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    clip: str | None = None,
    images: Path | None = None,
    device: str = "auto",
    image_column: str = "",
    caption_column: str = "",
    follow_links: bool = False,
) -> System:
    """Scores of one system, with intervals. `captrain.score` is this function; `ScoreOptions` says what the options mean.

    >>> captions = {"1": "a dog runs on grass", "2": "two cats sleep"}
    >>> references = {"1": ["A dog runs on grass."], "2": ["Two cats sleep on a sofa."]}
    >>> found = score(captions, references, metrics=["bleu_4"])
    >>> round(found.scores["bleu_1"], 3), found.images
    (0.687, 2)
    """
    name = "predictions" if isinstance(predictions, Mapping) else str(predictions)
    options = ScoreOptions(
        metrics, tokenizer, allow_missing, document_frequencies, None, bootstrap, seed, ClipScoring(clip, images, device),
        GivenColumns(image_column, caption_column, follow_links),
    )  # fmt: skip
    scored, _ = score_systems({name: predictions}, references, options)
    return scored.systems[0]


def _saved_frequencies(given: Mapping[str, Any]) -> Path | None:
    """The file that `score_systems` writes, by its arguments."""
    options: ScoreOptions | None = given.get("options")
    return None if options is None else options.save_document_frequencies


@only_writer(_saved_frequencies)
def score_systems(
    predictions: Mapping[str, str | Path | Captions],
    references: str | Path | References,
    options: ScoreOptions = USUAL,
) -> tuple[Comparison, Rejects]:
    """Scores of systems on the same images, with intervals and comparisons; and the pictures that CLIPScore could not read.

    Args:
        predictions: name of each system to its file or folder (see `captrain.metrics.inputs`) or to captions by id.
        references: file or folder, or captions by id: a list of them, or the only one as text. `captrain.metrics.matching`
            says how ids are matched.

    Raises `SettingsError` and `DataError`, before any metric is computed.
    """
    clip, metrics = options.clip, options.metrics
    plain, java = _chosen((metrics,) if isinstance(metrics, str) else metrics, clip.model, clip.images)
    work = _load(predictions, references, options.allow_missing, options.given)
    wanted = options.document_frequencies
    frequencies = None if wanted is None else DocumentFrequencies.load(wanted)
    words = choose_tokenizer(options.tokenizer, work.references, frequencies).tokenizer
    if options.save_document_frequencies is not None:
        _save_frequencies(work, words, options.save_document_frequencies)
    rejects = Rejects()
    if clip.model and clip.images:
        of_clip = _scored_by_clip(work, clip.model, clip, rejects, options.given.follow_links)
    else:
        of_clip = [{} for _ in work.systems]
    systems = []
    for (name, captions), means in zip(work.systems.items(), of_clip, strict=True):
        found = score_captions(
            captions, work.references, plain, tokenizer=options.tokenizer, document_frequencies=frequencies
        )
        systems.append(_completed(name, captions, work, found, java, means, words))
    return compare(systems, options.bootstrap, options.seed), rejects


@dataclass(frozen=True)
class _Work:
    """Captions of each system and references of the same images, and what to tell about how they were matched."""

    systems: dict[str, dict[str, str]]
    references: dict[str, list[str]]
    notes: tuple[str, ...]
    every_reference: dict[str, list[str]]


def _chosen(metrics: Sequence[str], clip: str | None, images: Path | None) -> tuple[list[str], list[str]]:
    """The metrics asked for: those that are computed here, and those in Java. CLIPScore comes with `clip`."""
    known = (*METRICS, *JAVA_METRICS, *CLIP_METRICS)
    if not metrics and clip is None:
        raise SettingsError(f"metrics: found none, expected one or more of {', '.join(known)}")
    for name in metrics:
        if name not in known:
            raise SettingsError(f"unknown metric '{name}'.{nearest(name, known)} Known: {', '.join(known)}")
        if name in CLIP_METRICS and clip is None:
            raise SettingsError(
                f"{name} needs a CLIP model and the pictures: give --clip CHECKPOINT and --images FOLDER"
            )
    if (clip is None) != (images is None):
        found, lacking = ("--clip", "--images FOLDER") if images is None else ("--images", "--clip CHECKPOINT")
        raise SettingsError(f"found {found} without {lacking}; CLIPScore needs both")
    java = [name for name in JAVA_METRICS if name in metrics]
    check_java(java)
    return [name for name in metrics if name in METRICS], java


def _load(
    predictions: Mapping[str, str | Path | Captions],
    references: str | Path | References,
    allow_missing: bool,
    given: GivenColumns,
) -> _Work:
    """Read what is in files, and match the ids of every system with those of the references."""
    known_by = (
        references_in(Path(references), given)
        if isinstance(references, (str, Path))
        else CaptionColumns({"": given_references(references)})
    )
    captions_by = {
        name: predictions_in(Path(source), given)
        if isinstance(source, (str, Path))
        else CaptionColumns({"": given_predictions(source)})
        for name, source in predictions.items()
    }
    _check_columns(given, [known_by, *captions_by.values()])
    column, own = choose_columns(captions_by, known_by)
    known = known_by.by_column[column]
    notes: list[str] = []
    systems = {}
    for name, source in predictions.items():
        captions = captions_by[name].by_column[own[name]]
        is_file = not isinstance(source, Mapping)
        if is_file and source == references and all(known[id] == [captions[id]] for id in captions):
            raise DataError(f"{source}: holds no references besides its captions; give the file that does")
        usual = next(iter(captions_by[name].by_column)), next(iter(known_by.by_column))
        if (own[name], column) != usual:
            others = "in both files" if own[name] == column else f"and, of the references, '{column}'"
            notes.append(f"{name}: images are matched by '{own[name] or 'name'}' {others}")
        systems[name] = _matched(name, captions, known, allow_missing, notes)
    common = [id for id in known if all(id in captions for captions in systems.values())]
    if not common:
        raise DataError(f"no image has references and a caption of every system ({', '.join(systems)})")
    kept = {name: {id: captions[id] for id in common} for name, captions in systems.items()}
    return _Work(kept, {id: known[id] for id in common}, tuple(notes), known)


def _check_columns(given: GivenColumns, files: Sequence[CaptionColumns[Any]]) -> None:
    """Raise `DataError` for a column that no file has."""
    for column, flag in ((given.image, "--image-column"), (given.caption, "--caption-column")):
        if column and not any(file.has(column) for file in files):
            known = list(dict.fromkeys(name for file in files for name in file.columns))
            found = ", ".join(known[:12]) or "none"
            raise DataError(
                f"no file has a column '{column}', which {flag} names; found {found}.{nearest(column, known)}"
            )


def _matched(
    name: str, captions: Captions, references: Mapping[str, Sequence[str]], allow_missing: bool, notes: list[str]
) -> dict[str, str]:
    """Captions under the ids of the references; what is left over is an error, or else a note."""
    found = match_ids(captions.keys(), references.keys())
    if found.respelt:
        example = next(pair for pair in found.pairs.items() if pair[0] != pair[1])
        notes.append(f"{name}: {found.respelt} ids are spelt differently in the references ({some(example)})")
    left = []
    if found.missing:
        left.append(
            f"{len(found.missing)} of {len(references)} images with references have no caption ({some(found.missing)})"
        )
    if found.extra:
        left.append(f"{len(found.extra)} of {len(captions)} captions have no references ({some(found.extra)})")
    if left and not allow_missing:
        raise DataError(f"{name}: {'; '.join(left)}; --allow-missing scores the {len(found.pairs)} that have both")
    notes += [f"{name}: {line}; left out" for line in left]
    return {reference: captions[id] for id, reference in found.pairs.items()}


def _save_frequencies(work: _Work, tokenizer: str, wanted: Path) -> None:
    """CIDEr's document frequencies of all references, under the file's name."""
    name = re.sub(r"[^\w.-]+", "-", wanted.name.split(".")[0])[:64] or "corpus"
    DocumentFrequencies.of(work.every_reference, tokenizer, name=name).save(wanted)


def _completed(
    name: str,
    captions: dict[str, str],
    work: _Work,
    found: Scores,
    java: Sequence[str],
    means: Means,
    tokenizer: str,
) -> System:
    """A system's scores together with those from Java and CLIP, and what its captions show by themselves."""
    diversity = measure_diversity(list(captions.values()), tokenizer=tokenizer)
    scores, notes = dict(found.scores), [*work.notes, *found.notes, *alarms(diversity)]
    means = dict(means)
    for metric in java:
        try:
            of_set, of_images = score_java(metric, *tokenized(captions, work.references, "ptb"))
        except CaptrainError as error:
            if len(java) == 1 and not scores and not means:
                raise  # nothing else was asked for
            logger.warning("%s: %s", name, error)
            notes.append(f"{metric} is missing: {error}")
            continue
        scores |= of_set
        if metric == "spice":  # METEOR of a set is no mean of its images, so it has no interval
            means[metric] = {id: values[metric] for id, values in of_images.items()}
    for metric, values in means.items():
        scores[metric] = sum(values.values()) / len(values)
    complete = {metric: values for metric, values in means.items() if len(values) == len(captions)}
    if means and len(complete) < len(means):
        seen = len(means[CLIP_METRICS[0]])
        notes.append(f"{seen} of {len(captions)} pictures could be read: CLIPScore is over these, without intervals")
    statistics = statistics_of(found, captions, work.references, tokenizer, complete)
    return System(
        name, scores, found.images, found.signature, statistics, diversity=diversity.to_dict(), notes=tuple(notes)
    )


def _scored_by_clip(work: _Work, model: str, asked: ClipScoring, rejects: Rejects, follow_links: bool) -> list[Means]:
    """CLIPScore and RefCLIPScore of each system. Torch is loaded here."""
    from captrain.inference.clip_score import Clip, find_pictures, score_clip

    assert asked.images is not None
    pictures = find_pictures(asked.images, list(work.references), follow_links=follow_links)
    clip = Clip.load(model, asked.device)
    return score_clip(clip, pictures, list(work.systems.values()), work.references, rejects)
