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
from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.inputs import Given, Read, predictions_in, references_in
from captrain.metrics.java import JAVA_METRICS, check_java, score_java
from captrain.metrics.matching import choose_columns, given_predictions, given_references, match_ids, some
from captrain.metrics.score import METRICS, Scores, score_captions
from captrain.metrics.significance import RESAMPLES
from captrain.metrics.suited import choose_tokenizer
from captrain.records import Rejects
from captrain.settings.load import check
from captrain.settings.schema.training import ScoringSettings

logger = logging.getLogger(__name__)

DEFAULT_METRICS = ("bleu_4", "rouge_l", "cider")
CLIP_METRICS = ("clip_score", "ref_clip_score")

Captions = Mapping[str, str]
References = Mapping[str, str | Sequence[str]]
Means = dict[str, dict[str, float]]


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
    """Scores of one system, with intervals. `captrain.score` is this function; see `score_systems` for the arguments.

    >>> captions = {"1": "a dog runs on grass", "2": "two cats sleep"}
    >>> references = {"1": ["A dog runs on grass."], "2": ["Two cats sleep on a sofa."]}
    >>> found = score(captions, references, metrics=["bleu_4"])
    >>> round(found.scores["bleu_1"], 3), found.images
    (0.687, 2)
    """
    name = "predictions" if isinstance(predictions, Mapping) else str(predictions)
    scored, _ = score_systems(
        {name: predictions},
        references,
        metrics=metrics,
        tokenizer=tokenizer,
        allow_missing=allow_missing,
        document_frequencies=document_frequencies,
        bootstrap=bootstrap,
        seed=seed,
        clip=clip,
        images=images,
        device=device,
        image_column=image_column,
        caption_column=caption_column,
        follow_links=follow_links,
    )
    return scored.systems[0]


@only_writer("save_document_frequencies")
def score_systems(
    predictions: Mapping[str, str | Path | Captions],
    references: str | Path | References,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    tokenizer: str = "auto",
    allow_missing: bool = False,
    document_frequencies: Path | None = None,
    save_document_frequencies: Path | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    clip: str | None = None,
    images: Path | None = None,
    device: str = "auto",
    image_column: str = "",
    caption_column: str = "",
    follow_links: bool = False,
) -> tuple[Comparison, Rejects]:
    """Scores of systems on the same images, with intervals and comparisons; and the pictures that CLIPScore could not read.

    Args:
        predictions: name of each system to its file or folder (see `captrain.metrics.inputs`) or to captions by id.
        references: file or folder, or captions by id: a list of them, or the only one as text. Ids: see `metrics.ids`.
        metrics: of METRICS, and meteor and spice, which need Java.
        tokenizer: of `captrain.metrics.tokenizer`, or `auto` for the one that suits the references' script.
        allow_missing: score what is common to all; otherwise an id without its counterpart is an error.
        document_frequencies: file of CIDEr's document frequencies, instead of those of the references.
        save_document_frequencies: file to write those of the references to.
        bootstrap: resamples for intervals and comparisons; 0 for none.
        clip: folder or hub id of a CLIP model, for CLIPScore and RefCLIPScore of the pictures in `images`.
        image_column, caption_column: columns of ids and of captions, in those of the files that have them.
        follow_links: whether links in folders of captions and of pictures are read that lead out of these.

    Raises `SettingsError` and `DataError`, before any metric is computed.
    """
    check(ScoringSettings, bootstrap=bootstrap, seed=seed)
    plain, java = _chosen((metrics,) if isinstance(metrics, str) else metrics, clip, images)
    work = _load(predictions, references, allow_missing, Given(image_column, caption_column, follow_links))
    frequencies = None if document_frequencies is None else DocumentFrequencies.load(document_frequencies)
    words = choose_tokenizer(tokenizer, work.references, frequencies).tokenizer
    if save_document_frequencies is not None:
        _save_frequencies(work, words, save_document_frequencies)
    rejects = Rejects()
    looked = (
        _scored_by_clip(work, clip, images, device, rejects, follow_links)
        if clip and images
        else [{} for _ in work.systems]
    )
    systems = []
    for (name, captions), means in zip(work.systems.items(), looked, strict=True):
        found = score_captions(captions, work.references, plain, tokenizer=tokenizer, document_frequencies=frequencies)
        systems.append(_completed(name, captions, work, found, java, means, words))
    return compare(systems, bootstrap, seed), rejects


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
    given: Given,
) -> _Work:
    """Read what is in files, and match the ids of every system with those of the references."""
    known_by = (
        references_in(Path(references), given)
        if isinstance(references, (str, Path))
        else Read({"": given_references(references)})
    )
    captions_by = {
        name: predictions_in(Path(source), given)
        if isinstance(source, (str, Path))
        else Read({"": given_predictions(source)})
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
            raise DataError(f"{source}: holds no references beside its captions; give the file that does")
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


def _check_columns(given: Given, files: Sequence[Read[Any]]) -> None:
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


def _scored_by_clip(
    work: _Work, source: str, images: Path, device: str, rejects: Rejects, follow_links: bool
) -> list[Means]:
    """CLIPScore and RefCLIPScore of each system. Torch is loaded here."""
    from captrain.inference.clip_score import Clip, find_pictures, score_clip

    pictures = find_pictures(images, list(work.references), follow_links=follow_links)
    clip = Clip.load(source, device)
    return score_clip(clip, pictures, list(work.systems.values()), work.references, rejects)
