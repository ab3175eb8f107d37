"""`captrain.Run`: the result of a training, to look at and to use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from captrain.api.options import Place
from captrain.errors import RunError, UserError
from captrain.records import read_jsonl
from captrain.report.run import check_run

if TYPE_CHECKING:
    import pandas

    from captrain.inference.captioner import Captioner

DIGITS = 4


class History(Sequence[dict[str, Any]]):
    """The lines of a run's metrics.jsonl, a dictionary each: `kind` ("train", "validation" or "test"), `step`, `epoch`, values.

    >>> history = History([{"kind": "train", "step": 1, "loss": 2.5}, {"kind": "validation", "step": 1, "cider": 0.4}])
    >>> history.of("validation")[0]["cider"], len(history)
    (0.4, 2)
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | History:
        return History(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        kinds = {kind: len(self.of(kind)) for kind in ("train", "validation", "test")}
        return f"<History: {', '.join(f'{count} {kind}' for kind, count in kinds.items() if count) or 'no'} lines>"

    def of(self, kind: Literal["train", "validation", "test"]) -> History:
        """The lines of one kind."""
        return History([row for row in self._rows if row.get("kind") == kind])

    def to_pandas(self) -> pandas.DataFrame:
        """As a table with one column per value. Raises `UserError` where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("a table needs pandas, which is not installed; pip install pandas") from None
        return pandas.DataFrame(self._rows)


class Run:
    """The folder of a training. `captrain.train` returns one, `captrain.Run("runs/photos")` opens one.

    Everything is read from the folder when it is asked for, so it is also right for a run in progress.

    >>> run = Run("runs/photos")                          # doctest: +SKIP
    >>> run.scores["cider"], run.captioner()("a.jpg")     # doctest: +SKIP
    (0.93, 'two children build a sand castle')
    """

    def __init__(self, path: Place) -> None:
        """Raises `RunError` if there is no run."""
        self.path = Path(path)
        check_run(self.path)

    def __fspath__(self) -> str:
        """A run is taken wherever a path to a model is: `captrain.evaluate(run)`."""
        return str(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.path / "finished.json").is_file()

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the best model on the validation pictures; empty if nothing was validated yet."""
        return self._scores("scores.json")

    @property
    def test_scores(self) -> dict[str, float]:
        """Scores of the best model on the test split; empty if there is none."""
        return self._scores("test/scores.json")

    @property
    def history(self) -> History:
        """What was measured, step by step."""
        return History(list(read_jsonl(self.path / "metrics.jsonl")))

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings by section, with all open ones filled in."""
        from captrain.yaml_text import read_yaml_file

        try:
            return dict(read_yaml_file(self.path / "settings.yaml")["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{self.path}: holds no settings.yaml that can be read; copy it again") from None

    @property
    def rejected(self) -> list[dict[str, str]]:
        """The samples that were left out: `id`, `where`, `reason`."""
        path = self.path / "rejected.jsonl"
        return list(read_jsonl(path)) if path.is_file() else []

    def captioner(self, *, device: str = "auto", precision: str = "auto") -> Captioner:
        """The best model, ready to caption. Raises `ModelError` if there is none yet."""
        from captrain.api.captioning import load

        return load(self.path, device=device, precision=precision)

    def report(self, output: Place | None = None) -> Path:
        """Write the report (to report.html in the run folder, or to `output`), and return its path."""
        from captrain.report.run import write_report

        return write_report(self.path, None if output is None else Path(output))

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.{DIGITS}f}" for name, value in self.scores.items())
        state = "finished" if self.is_finished else "not finished"
        return f"<Run {str(self.path)!r}: {state}{f', {scores}' if scores else ''}>"

    def _repr_html_(self) -> str:
        """Scores, curves and some pictures, for a notebook."""
        from captrain.api.html import run_html

        return run_html(self.path)

    def _scores(self, name: str) -> dict[str, float]:
        from captrain.training.run_folder.place import scores_in

        path = self.path / name
        return scores_in(path) if path.is_file() else {}
