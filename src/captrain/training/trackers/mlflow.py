"""MLflow: the server that MLFLOW_TRACKING_URI names, or a database in the run's `mlflow/`."""

from __future__ import annotations

import html
import io
import logging
import os
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from captrain.disk.folders import check_way, make_folders
from captrain.disk.writing import check_target, open_to_append
from captrain.training.trackers import SampleCaption, TrackedRun

logger = logging.getLogger(__name__)

LONGEST_PARAMETER = 500  # characters that every MLflow server takes
MOST_PARAMETERS = 100  # values that it takes at once

STYLE = "body{font:15px sans-serif}td{padding:8px;vertical-align:top}img{max-width:256px}"


class MLflow:
    """Metrics, settings as parameters, and a page of samples for each evaluation under the artifact `samples/`.

    The client is used rather than MLflow's current run, which belongs to the process.
    """

    rewinds = False

    def __init__(self, run: TrackedRun) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.home = None if uri else make_folders(run.folder / "mlflow" / "artifacts", run.folder)
        self.client = MlflowClient(tracking_uri=uri or _database(run.folder / "mlflow"))
        self.id = self._same(run.id) or self._new(run, None if self.home is None else self.home.resolve().as_uri())
        self.keeps_samples = self._stays_inside()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """All at once."""
        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def samples(self, step: int, captions: Sequence[SampleCaption]) -> None:
        """As `samples/step-00000012.html`, with pictures inside."""
        name = f"samples/step-{step:08}.html"
        if self.home is not None:
            place = self.home / self.id / "artifacts" / name
            check_way(place.parent, self.home)
            check_target(place)
        if self.keeps_samples:
            self.client.log_text(self.id, page(step, captions), name)

    def close(self, *, whole: bool) -> None:
        """Mark the run as finished, or as stopped on its way."""
        self.client.set_terminated(self.id, "FINISHED" if whole else "KILLED")

    def _same(self, run_id: str | None) -> str | None:
        """The run of an earlier session, running again; None if there is none, or if the run's own database no longer has it."""
        if run_id is None:
            return None
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException:
            if self.home is None:
                raise
            return None
        return run_id

    def _stays_inside(self) -> bool:
        """Whether samples go into the run's folder, where there is no server: the database of a run that was moved, or that
        a stranger sent, may name any other place."""
        if self.home is None:
            return True
        place = self.client.get_run(self.id).info.artifact_uri
        if place == f"{self.home.resolve().as_uri()}/{self.id}/artifacts" and self.id.isalnum():
            return True
        logger.warning(
            "mlflow: its database puts samples into %s, not into %s, so they are left out there; remove %s to begin from scratch",
            place, self.home, self.home.parent,
        )  # fmt: skip
        return False

    def _new(self, run: TrackedRun, artifacts: str | None) -> str:
        """A run in the project's experiment."""
        found = self.client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self.client.create_experiment(run.project, artifacts)
        created: str = self.client.create_run(experiment, run_name=run.name).info.run_id
        parameters = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in _leaves(run.settings)]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            self.client.log_batch(created, params=parameters[start : start + MOST_PARAMETERS])
        return created


def _database(folder: Path) -> str:
    """A database of the run's own: MLflow's plain files are no longer kept up."""
    for ending in ("-journal", "-wal", "-shm"):
        check_target(folder / f"mlflow.db{ending}")
    open_to_append(folder / "mlflow.db").close()  # a regular file without another name (hard link)
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`section.name` and value."""
    for section, values in settings.items():
        for name, value in values.items():
            yield f"{section}.{name}", value


def page(step: int, captions: Sequence[SampleCaption]) -> str:
    """A page that needs no other file.

    >>> "<b>a &lt;dog&gt;</b>" in page(3, [SampleCaption("1.jpg", "a <dog>", ["two dogs"], None)])
    True
    """
    rows = "\n".join(_row(caption) for caption in captions)
    return f"<!doctype html><meta charset='utf-8'><style>{STYLE}</style><h2>Step {step}</h2><table>{rows}</table>\n"


def _row(caption: SampleCaption) -> str:
    """Picture, caption, references."""
    picture = ""
    if caption.picture is not None:
        file = io.BytesIO()
        caption.picture.save(file, "PNG")
        picture = f"<img src='data:image/png;base64,{b64encode(file.getvalue()).decode()}'>"
    said = "<br>".join(html.escape(reference) for reference in caption.references)
    return (
        f"<tr><td>{picture}<td><b>{html.escape(caption.text)}</b><br>{said}<br><small>{html.escape(caption.id)}</small>"
    )
