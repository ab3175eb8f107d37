"""Held-out pictures: a list of what each split holds, and the test of the best model at the end of a training.

Later evaluations use the list. The test captions the test split once, and scores it as `captrain evaluate` does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from captrain.data.dataset import Splits
from captrain.data.picture_files import content_keys
from captrain.data.samples import contents_of, ids_of
from captrain.data.splits import (
    EARLIER,
    FILE,
    Rows,
    captions_mark,
    known,
    numbers,
    read_trained,
    run_folder_of,
    write_kept_splits,
)
from captrain.features.stream import Batching
from captrain.features.training_images import Images
from captrain.inference.captioner import Captioner
from captrain.inference.evaluate import Scoring, Stated, evaluate_samples
from captrain.metrics.own import Metric
from captrain.records import Rejects, Sample, read_jsonl, write_jsonl
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.place import scores_in

logger = logging.getLogger(__name__)


def keep_splits(run: Path, images: dict[str, Images], splits: Splits, model: str | None, goes_on: bool) -> None:
    """Write ids and content keys of all pictures, by split, into a run folder.

    Args:
        images: the usable images of each split. splits: hold the pictures to test on.
        model: what the training began with. If it is a run, that run's training pictures are listed as trained on earlier.
        goes_on: the run has a checkpoint. Pictures it was trained on before its data changed are listed as trained on earlier.
    """
    contents = {name: _contents(images[name]) for name in images}
    before = run_folder_of(model) if model else None
    earlier = list(
        _without(
            chain(read_trained(run) if goes_on else (), read_trained(before) if before else ()),
            contents["train"] or (),
        )
    )
    held = images["validation"].samples
    rows = {
        "train": Rows(ids_of(images["train"].samples), contents["train"]),
        "validation": Rows(ids_of(held), contents["validation"], _marks(held)),
        "test": Rows(ids_of(splits.test), content_keys(splits.test), _marks(splits.test)),
        EARLIER: Rows([id for id, _ in earlier], [content for _, content in earlier]),
    }
    write_kept_splits(run / FILE, rows)
    _warn(contents["validation"] or (), [content for _, content in earlier], str(before))


def _contents(images: Images) -> list[str] | None:
    """Content keys of the pictures, as far as they are known."""
    if images.contents is not None:
        return list(images.contents)
    found = contents_of(images.samples)
    return None if found is None else list(found)


def _marks(samples: Sequence[Sample]) -> Iterator[int]:
    """Marks of the captions of each picture."""
    return (captions_mark(sample.captions) for sample in samples)


def _without(trained: Iterable[tuple[str, str]], now: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The pictures, each once, that this run does not train on. They are compared by content: ids differ between data sets."""
    seen = set(now)
    for id, content in trained:
        if content and content not in seen:
            seen.add(content)
            yield id, content


def _warn(validation: Iterable[str], earlier: Iterable[str], before: str) -> None:
    """Warn of validation pictures that the model was trained on earlier."""
    held = numbers(validation)
    seen = int(np.isin(held, known(numbers(earlier))).sum())
    if seen:
        logger.warning(
            "%d of %d validation pictures were trained on earlier (by %s): scores on them say little about new pictures",
            seen, len(held), before if before != "None" else "this run, before its data changed",
        )  # fmt: skip


FOLDER = "test"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class FinalTest:
    """How the best model is tested.

    Attributes:
        device, precision: what it computes on, and how.
        batch_size, workers: pictures captioned at a time, and threads that read them.
        max_pixels: larger pictures are rejected. metric: a score to compute beside the usual ones. tokenizer: of the scores.
    """

    device: str
    precision: str
    batch_size: int
    workers: int
    max_pixels: int
    metric: str
    tokenizer: str


def score_best_model(
    run: RunFolder, splits: Splits, how: FinalTest, own: Mapping[str, Metric] | None = None
) -> dict[str, float]:
    """Scores of the run's best model on the test split; empty if there is no such split.

    Writes captions and scores to `test/` in the run folder and a line of kind "test" to its metrics. An interrupted test goes on
    where it was. Bad pictures are listed in `test/`, and among the rejected pictures of the splits.
    """
    if not len(splits.test):
        return {}
    logger.info("testing the best model on %d pictures", len(splits.test))
    captioner = Captioner.load(str(run.model), how.device, how.precision)
    rejects = Rejects()
    stated = Stated(run.model, ("test", str(len(splits.test))))
    found = evaluate_samples(
        captioner, splits.test, rejects, {"captions": captioner.model.decoding}, run.path / FOLDER, stated,
        Batching(how.batch_size, how.workers, how.max_pixels), Scoring(how.tokenizer, (how.metric,), own),
    )  # fmt: skip
    splits.rejects.lines.extend(rejects.lines)
    _note(run, found.scores)
    return found.scores


def scores_of_test(run: Path) -> dict[str, float]:
    """Scores of a run's last test; empty if there was none."""
    path = run / FOLDER / "scores.json"
    return scores_in(path) if path.is_file() else {}


def _note(run: RunFolder, scores: dict[str, float]) -> None:
    """The test as one line of the metrics, after the run's last step; a line of an interrupted end is replaced."""
    path = run.path / METRICS
    lines = list(read_jsonl(path)) if path.is_file() else []
    last = {name: lines[-1].get(name, 0) for name in ("step", "epoch", "seconds")} if lines else {"step": 0}
    kept = [line for line in lines if (line.get("kind"), line.get("step")) != ("test", last["step"])]
    write_jsonl(path, [*kept, {"kind": "test", **last, **scores}])
