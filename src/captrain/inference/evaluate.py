"""Caption a data set, in one way or in several, then score the captions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from captrain.data.samples import ChosenSamples
from captrain.disk.folders import check_way, make_folder, remove
from captrain.disk.locks import locked_folder, only_writer
from captrain.disk.writing import check_target, write_text
from captrain.errors import DataError, SettingsError
from captrain.features.stored_images import stored_images
from captrain.features.stream import Batching, Computing
from captrain.features.training_images import MIRRORED, PLAIN
from captrain.inference.captioner import Captioner, features_of
from captrain.inference.evaluation_data import TEST_SPLIT, EvaluationData, choose_samples, tokenizer_of
from captrain.inference.writer import BatchLimit, write_ways
from captrain.metrics.compare import Comparison, compare
from captrain.metrics.judging import Judgement, judge
from captrain.metrics.own import Metric
from captrain.models.decoding import Decoding, Written
from captrain.paths import check_output_folder
from captrain.progress import track
from captrain.records import Caption, Rejects, Sample, append_jsonl, drop_half_line, read_jsonl, write_jsonl
from captrain.settings.schema import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores over `images` pictures, of each way of decoding; `predictions` are the files of captions, if any were written.

    `pictures` says what the captioner's run knows about the pictures, if it has one (see `inference.held_out`). `captions`
    are those of the first way of decoding, each with its references and its own scores (`measured`).
    """

    comparison: Comparison
    images: int
    rejected: int
    rejects_file: Path | None
    predictions: list[Path]
    pictures: dict[str, Any] = field(default_factory=dict)
    captions: list[Caption] = field(default_factory=list, repr=False)

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the first way of decoding."""
        return self.comparison.systems[0].scores


def _folder_of(given: Mapping[str, Any]) -> Path | None:
    """The folder that `evaluate` writes, by its arguments."""
    output: Path | None = given.get("output")
    if output is not None:
        check_output_folder(output, "predictions.jsonl and scores.json")
    return output or _evaluation_of(Path(given["model"]))


@dataclass(frozen=True, slots=True)
class Scoring:
    """How captions are scored.

    tokenizer: as in `captrain.inference.score`; None for what the recipe says, else what the run was measured with, else `auto`.
    java_metrics: METEOR and SPICE, if they are computed besides the other metrics.
    own: metrics of one's own by name (`captrain.metrics.own`).
    """

    tokenizer: str | None = None
    java_metrics: Sequence[str] = ()
    own: Mapping[str, Metric] | None = None


USUAL_SCORING = Scoring()


@only_writer(_folder_of, locked_folder)
def evaluate(
    model: str,
    wanted: EvaluationData = TEST_SPLIT,
    *,
    recipe: Settings | None = None,
    output: Path | None = None,
    computing: Computing | None = None,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    beams: Sequence[int] = (),
    scoring: Scoring = USUAL_SCORING,
) -> Evaluation:
    """Scores of a captioner on the pictures of a data set that have references.

    Args:
        wanted: the pictures to score.
        recipe: whose data section says which splits are for what, and with what words captions begin, if it names a prompt.
        output: folder for captions and scores; default `evaluation/` in the run folder, if `model` is one. An interrupted
            evaluation goes on there.
        decoding: changes to the model's own decoding. beams: several numbers of beams, each scored; pictures are
            encoded once for all of them.
    """
    computing = computing or Computing()
    if wanted.limit is not None and wanted.limit < 1:
        raise SettingsError(f"limit: found {wanted.limit}, expected at least 1")
    folder = output or _evaluation_of(Path(model))
    samples, rejects, told = choose_samples(model, wanted, recipe)
    captioner = Captioner.load(model, computing.device, computing.precision)
    prompt = None if recipe is None else recipe.data.prompt
    if prompt is not None:
        captioner.model.prompt = prompt
    how = captioner.decoding(dict(decoding))
    ways = {f"beams {count}": replace(how, beams=count) for count in beams} if len(beams) > 1 else {"captions": how}
    asked = (str(wanted.data), str(wanted.split), *([] if prompt is None else [prompt]))
    stated = Stated(Path(model), asked, {} if told is None else told.to_dict())
    scoring = replace(scoring, tokenizer=scoring.tokenizer or tokenizer_of(model, recipe))
    return evaluate_samples(captioner, samples, rejects, ways, folder, stated, computing, scoring)


@dataclass(frozen=True, slots=True)
class Stated:
    """What captions depend on besides the decoding: the files of the model, and words that say which data it was.

    `pictures` is what the model's run knows of the pictures; it goes into `scores.json`.
    """

    model: Path
    words: tuple[str, ...]
    pictures: Mapping[str, Any] = field(default_factory=dict)


@only_writer("folder", locked_folder)
def evaluate_samples(
    captioner: Captioner,
    samples: Sequence[Sample],
    rejects: Rejects,
    ways: Mapping[str, Decoding],
    folder: Path | None,
    stated: Stated,
    batching: Batching,
    scoring: Scoring,
) -> Evaluation:
    """Caption samples in each of the ways, score the captions, and write both to `folder`.

    An interrupted call with the same `stated` is continued. Raises `DataError` if no picture can be used.
    """
    _refuse_links(folder)
    notes = Progress(folder, [*stated.words, *map(str, ways.values())], stated.model, len(ways))
    _caption_rest(captioner, samples, list(ways.values()), notes, rejects, batching)
    if not notes.lines:
        raise DataError(f"none of {len(samples)} pictures could be captioned: {rejects.summary()}")
    judged = {
        name: judge(
            notes.captions(samples, place), name, scoring.tokenizer or "auto", scoring.java_metrics, scoring.own
        )
        for place, name in enumerate(ways)
    }
    comparison = compare([judgement.system for judgement in judged.values()])
    pictures = {"pictures": dict(stated.pictures)} if stated.pictures else {}
    files = (None, []) if folder is None else _write(
        folder, judged, ways, {**comparison.to_dict(), **pictures}, rejects
    )  # fmt: skip
    notes.close()
    captions = next(iter(judged.values())).captions
    return Evaluation(comparison, comparison.systems[0].images, len(rejects), *files, dict(stated.pictures), captions)


def _is_caption(value: Any) -> bool:
    """Whether this is a caption's text and its score."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], float | int | None)
    )


def _evaluation_of(run: Path) -> Path | None:
    """Where the scores of a run's model go; None if it is no run. Raises `UserError` for a link: a run may be a stranger's."""
    if not (run / "settings.yaml").is_file():
        return None
    check_way(run / "evaluation", run)
    return run / "evaluation"


class Progress:
    """What was captioned so far, kept in the output folder until the evaluation is complete.

    The file's name holds what the captions depend on, so that another evaluation does not go on with it.
    """

    def __init__(self, folder: Path | None, stated: list[str], model: Path, ways: int) -> None:
        self.ways = ways
        weights = sorted(model.rglob("*.safetensors")) if model.is_dir() else []
        stated = [str(model), *stated, *(f"{path} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in weights)]
        digest = hashlib.blake2b("\n".join(stated).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
        self.path = None if folder is None else folder / f"captions-{digest}.partial"
        self.lines: dict[str, list[list[Any]]] = {}
        if self.path is not None and check_target(self.path) is not None:
            drop_half_line(self.path)
            self.lines = dict(self._captioned(line) for line in read_jsonl(self.path))
            logger.info("%d pictures were captioned before: going on with the rest", len(self.lines))

    def _captioned(self, line: dict[str, Any]) -> tuple[str, list[list[Any]]]:
        """A picture and its captions as `add` noted them. Raises `DataError` for a line that it did not write."""
        id, captions = line.get("id"), line.get("captions")
        found = captions if isinstance(captions, list) else []
        if isinstance(id, str) and len(found) == self.ways and all(map(_is_caption, found)):
            return id, found
        raise DataError(
            f"{self.path}: has a line that captrain did not write; remove the file, and all is captioned again"
        )

    def add(self, sample: Sample, written: list[list[Any]]) -> None:
        """Note a sample's captions: text and score, one for each way of decoding."""
        self.lines[sample.id] = written
        if self.path is not None:
            make_folder(self.path.parent)
            append_jsonl(self.path, [{"id": sample.id, "captions": written}])

    def captions(self, samples: Sequence[Sample], way: int) -> list[Caption]:
        """The captions of one way of decoding, in the order of the samples."""
        done = (sample for sample in samples if sample.id in self.lines)
        return [Caption.of(sample, *self.lines[sample.id][way]) for sample in done]

    def close(self) -> None:
        """Everything is in its place."""
        if self.path is not None:
            remove(self.path)


def _caption_rest(
    captioner: Captioner,
    samples: Sequence[Sample],
    ways: list[Decoding],
    notes: Progress,
    rejects: Rejects,
    batching: Batching,
) -> None:
    rest = [index for index in range(len(samples)) if samples[index].id not in notes.lines]
    todo = ChosenSamples(samples, np.array(rest, dtype=np.int64))
    with track("caption", len(todo)) as advance:
        for index, lines in _stored_ways(captioner, todo, ways, batching.batch_size) or captioner.stream_ways(
            todo, ways, rejects, batching.batch_size, batching.workers, batching.max_pixels
        ):
            notes.add(todo[index], [[line.text, line.score] for line in lines])
            advance(1)


def _stored_ways(
    captioner: Captioner, samples: Sequence[Sample], ways: list[Decoding], batch_size: int
) -> Iterator[tuple[int, list[Written]]] | None:
    """As `Captioner.stream_ways`, of samples in feature stores; None if they are pictures."""
    model = captioner.model
    views = MIRRORED if any(way.mirror for way in ways) else PLAIN
    stored = stored_images(model, {"samples": samples}, {"samples": views})
    if stored is None:
        return None

    def groups() -> Iterator[tuple[range, dict[bool, Tensor]]]:
        for start in range(0, len(samples), batch_size):
            batch = range(len(samples))[start : start + batch_size]
            features = features_of(model, stored["samples"], batch).to(model.precision)
            yield batch, {False: features, True: features}

    return write_ways(model, ways, groups(), BatchLimit(batch_size), apart=True)


def _refuse_links(folder: Path | None) -> None:
    """Raise `UserError` if a file that may be written is a link, before any work."""
    if folder is not None and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".jsonl", ".partial"):
                check_target(path)


def _write(
    folder: Path,
    judged: dict[str, Judgement],
    ways: Mapping[str, Decoding],
    scores: Mapping[str, Any],
    rejects: Rejects,
) -> tuple[Path | None, list[Path]]:
    """Captions, scores and a results file of COCO's form; returns the files of rejects and of captions."""
    make_folder(folder)
    files = []
    for name, judgement in judged.items():
        mark = "" if len(judged) == 1 else f"-{name.replace(' ', '-')}"
        files.append(folder / f"predictions{mark}.jsonl")
        write_jsonl(files[-1], (caption.to_dict() for caption in judgement.captions))
        results = [{"image_id": _image_id(caption.id), "caption": caption.text} for caption in judgement.captions]
        write_text(folder / f"coco-results{mark}.json", json.dumps(results, ensure_ascii=False) + "\n")
    decodings = {name: way.to_dict() for name, way in ways.items()}
    content = {**scores, "decoding": decodings if len(ways) > 1 else next(iter(decodings.values()))}
    write_text(folder / "scores.json", json.dumps(content, indent=2) + "\n")
    listed = folder / "rejected.jsonl" if rejects else None
    if listed is not None:
        logger.warning("%s (listed in %s)", rejects.summary(), listed)
        write_jsonl(listed, rejects.lines)
    return listed, files


def _image_id(id: str) -> int | str:
    """COCO's number of an image, where the name ends in one; the server knows nothing else.

    >>> _image_id("val2014/COCO_val2014_000000391895.jpg"), _image_id("dog.jpg")
    (391895, 'dog.jpg')
    """
    digits = Path(id).stem.rpartition("_")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else id
