"""Caption a data set, in one way or in several, then score the captions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.images import MAX_PIXELS
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.samples import Chosen
from captrain.disk.folders import check_way, make_folder, remove
from captrain.disk.locks import locked_folder, only_writer
from captrain.disk.writing import check_target, write_text
from captrain.errors import DataError, SettingsError
from captrain.features.stored_images import stored_images
from captrain.features.training_images import MIRRORED, PLAIN
from captrain.inference.captioner import Captioner, features_of
from captrain.inference.evaluation_data import choose_samples, tokenizer_of
from captrain.metrics.compare import Comparison, compare
from captrain.metrics.judging import Judgement, judge
from captrain.models.decoding import Decoding, Written
from captrain.paths import check_output_folder
from captrain.progress import track
from captrain.records import Caption, Rejects, Sample, append_jsonl, drop_half_line, read_jsonl, write_jsonl
from captrain.settings.load import check
from captrain.settings.schema import ComputingSettings, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores over `images` pictures, of each way of decoding; `predictions` are the files of captions, if any were written.

    `pictures` says what the captioner's run knows of the pictures, where it is of a run (see `inference.held_out`).
    """

    comparison: Comparison
    images: int
    rejected: int
    rejects_file: Path | None
    predictions: list[Path]
    pictures: dict[str, Any] = field(default_factory=dict)

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


@only_writer(_folder_of, locked_folder)
def evaluate(
    model: str,
    data: str | None = None,
    *,
    recipe: Settings | None = None,
    split: str | None = None,
    limit: int | None = None,
    output: Path | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    batch_size: int = 16,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    max_pixels: int,
    decoding: dict[str, Any],
    beams: Sequence[int] = (),
    tokenizer: str | None = None,
) -> Evaluation:
    """Scores of a captioner on the pictures of a data set that have references.

    Args:
        data: default what the recipe names, else the data of the run that `model` is.
        recipe: whose data section says which splits are for what, and with what words captions begin, if it names a prompt.
        format, options: how the data is read, where looking does not tell.
        split: which one; default test, else validation, else everything; of a run's own data what it held out as such.
        limit: only the first so many pictures.
        output: folder for captions and scores; default `evaluation/` in the run folder, if `model` is one. An interrupted
            evaluation goes on there.
        decoding: changes to the model's own way of writing. beams: several numbers of beams, each scored; pictures are
            encoded once for all of them.
        tokenizer: of scores, as `captrain.inference.score.score` has it; default what the recipe says, else what the run was
            measured with, else `auto`.
    """
    check(ComputingSettings, batch_size=batch_size, workers=workers, max_pixels=max_pixels)
    if limit is not None and limit < 1:
        raise SettingsError(f"limit: found {limit}, expected at least 1")
    folder = output or _evaluation_of(Path(model))
    samples, rejects, told = choose_samples(model, data, split, limit, format, options, recipe)
    captioner = Captioner.load(model, device, precision)
    prompt = None if recipe is None else recipe.data.prompt
    if prompt is not None:
        captioner.model.prompt = prompt
    how = captioner.decoding(decoding)
    ways = {f"beams {count}": replace(how, beams=count) for count in beams} if len(beams) > 1 else {"captions": how}
    asked = (str(data), str(split), *([] if prompt is None else [prompt]))
    stated = Stated(Path(model), asked, {} if told is None else told.to_dict())
    words = tokenizer or tokenizer_of(model, recipe)
    return evaluate_samples(
        captioner, samples, rejects, ways, folder, stated, batch_size, workers, max_pixels, tokenizer=words
    )


@dataclass(frozen=True, slots=True)
class Stated:
    """What captions depend on beside the way of decoding: the files of the model, and words that tell which data it was.

    `pictures` is what the model's run knows of the pictures; it goes into `scores.json`.
    """

    model: Path
    words: tuple[str, ...]
    pictures: Mapping[str, Any] = field(default_factory=dict)


@only_writer("folder", locked_folder)
def evaluate_samples(
    captioner: Captioner, samples: Sequence[Sample], rejects: Rejects, ways: Mapping[str, Decoding], folder: Path | None,
    stated: Stated, batch_size: int = 16, workers: int | None = None, max_pixels: int = MAX_PIXELS,
    asked: Sequence[str] = (), tokenizer: str = "auto",
) -> Evaluation:  # fmt: skip
    """Caption samples in each of the ways, score the captions, and write both to `folder`.

    METEOR and SPICE are among the scores where they are `asked` for, as `captrain.metrics.judging` has it.
    What an interrupted call with the same `stated` left there is gone on with. Raises `DataError` if no picture can be used.
    """
    _refuse_links(folder)
    notes = Progress(folder, [*stated.words, *map(str, ways.values())], stated.model, len(ways))
    _caption_rest(captioner, samples, list(ways.values()), notes, rejects, batch_size, workers, max_pixels)
    if not notes.lines:
        raise DataError(f"none of {len(samples)} pictures could be captioned: {rejects.summary()}")
    judged = {name: judge(notes.captions(samples, place), name, tokenizer, asked) for place, name in enumerate(ways)}
    comparison = compare([judgement.system for judgement in judged.values()])
    pictures = {"pictures": dict(stated.pictures)} if stated.pictures else {}
    files = (None, []) if folder is None else _write(
        folder, judged, ways, {**comparison.to_dict(), **pictures}, rejects
    )  # fmt: skip
    notes.close()
    return Evaluation(comparison, comparison.systems[0].images, len(rejects), *files, dict(stated.pictures))


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
        """All is written in its place."""
        if self.path is not None:
            remove(self.path)


def _caption_rest(
    captioner: Captioner, samples: Sequence[Sample], ways: list[Decoding], notes: Progress, rejects: Rejects,
    batch_size: int, workers: int | None, max_pixels: int,
) -> None:  # fmt: skip
    rest = [index for index in range(len(samples)) if samples[index].id not in notes.lines]
    todo = Chosen(samples, np.array(rest, dtype=np.int64))
    with track("caption", len(todo)) as advance:
        for index, lines in _stored_ways(captioner, todo, ways, batch_size) or captioner.stream_ways(
            todo, ways, rejects, batch_size, workers, max_pixels
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

    def written() -> Iterator[tuple[int, list[Written]]]:
        for start in range(0, len(samples), batch_size):
            batch = range(len(samples))[start : start + batch_size]
            features = features_of(model, stored["samples"], batch).to(model.precision)
            columns = [model.generate(features, way) for way in ways]
            for index, *lines in zip(batch, *columns, strict=True):
                yield index, lines

    return written()


def _refuse_links(folder: Path | None) -> None:
    """Raise `UserError` where a file that may be written is a link, before any work."""
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
