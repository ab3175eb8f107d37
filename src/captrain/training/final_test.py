"""The test at the end of a training: the best model captions the test split once, and is scored as `captrain evaluate` does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from captrain.data.dataset import Splits
from captrain.inference.captioning import Writer
from captrain.inference.evaluate import Stated, evaluate_samples
from captrain.metrics.own import Metric
from captrain.records import Rejects, read_jsonl, write_jsonl
from captrain.settings.schema import Settings
from captrain.training.batch_size import images_a_batch
from captrain.training.run_folder import RunFolder
from captrain.training.run_place import scores_in

logger = logging.getLogger(__name__)

FOLDER = "test"
METRICS = "metrics.jsonl"


def score_best_model(
    run: RunFolder, settings: Settings, splits: Splits, own: Mapping[str, Metric] | None = None
) -> dict[str, float]:
    """Scores of the run's best model on the test split; none where there is no such split.

    Writes captions and scores to `test/` in the run folder and a line of kind "test" to its metrics. An interrupted test goes on
    where it was. Bad pictures are listed in `test/`, and in the rejected ones of the splits.
    """
    if not len(splits.test):
        return {}
    logger.info("testing the best model on %d pictures", len(splits.test))
    writer = Writer.load(str(run.model), settings.model.device, settings.model.precision)
    rejects = Rejects()
    stated = Stated(run.model, ("test", str(len(splits.test))))
    found = evaluate_samples(
        writer, splits.test, rejects, {"captions": writer.captioner.decoding}, run.path / FOLDER, stated,
        2 * images_a_batch(settings), settings.data.workers, settings.data.max_pixels,
        (settings.evaluation.metric,), settings.evaluation.tokenize, own,
    )  # fmt: skip
    splits.rejects.lines.extend(rejects.lines)
    _note(run, found.scores)
    return found.scores


def scores_of_test(run: Path) -> dict[str, float]:
    """Scores of the last test of a run, if there was one."""
    path = run / FOLDER / "scores.json"
    return scores_in(path) if path.is_file() else {}


def _note(run: RunFolder, scores: dict[str, float]) -> None:
    """The test as one line of the metrics, after the run's last step; a line of an interrupted end is replaced."""
    path = run.path / METRICS
    lines = list(read_jsonl(path)) if path.is_file() else []
    last = {name: lines[-1].get(name, 0) for name in ("step", "epoch", "seconds")} if lines else {"step": 0}
    kept = [line for line in lines if (line.get("kind"), line.get("step")) != ("test", last["step"])]
    write_jsonl(path, [*kept, {"kind": "test", **last, **scores}])
