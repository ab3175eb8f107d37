"""`captrain train`, `captrain demo` and `captrain report`: make a run, and look at it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captrain.api.checks import check_training
from captrain.api.demo import run_demo
from captrain.api.options import settings_from
from captrain.api.runs import Run
from captrain.api.training import Order, carry_out, rehearse
from captrain.cli.arguments import Switch
from captrain.cli.flags import (
    DataFlags,
    DistributedFlags,
    EvaluationFlags,
    GenerationFlags,
    ModelFlags,
    TrainingFlags,
    TrustFlags,
    given,
    trust,
)
from captrain.cli.logs import printable, quiet_libraries, set_up_logging, verbosity
from captrain.cli.show import exit_code, rejected_rows, score_rows, show_table
from captrain.errors import UserError
from captrain.settings.schema import Settings
from captrain.training.distributed.processes import is_silent

if TYPE_CHECKING:
    from captrain.training.run import Outcome


def train(
    data: str,
    out: Path | None = None,
    /,
    *,
    recipe: Path | None = None,
    resume: Switch = False,
    resume_from: str | None = None,
    force: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    model: ModelFlags = None,
    data_: DataFlags = None,
    training: TrainingFlags = None,
    generation: GenerationFlags = None,
    evaluation: EvaluationFlags = None,
    distributed: DistributedFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Train a captioner on pictures with captions.

    Args:
        data: Folder, table, tar shards or hub name (see `captrain data formats`). Leave it out if the recipe names the data.
        out: Run folder to write. Run the same command again to continue after an interruption.
        recipe: YAML file of settings. Flags override it.
        resume: Continue the run in the folder; an error if there is none.
        resume_from: Go back to a checkpoint (step or folder) and continue from there; what came later is lost.
        force: Continue even if settings, data or model have changed in ways that change the result.
        overwrite: Start again in a folder that holds a run; the old run is lost.
        dry_run: Print what would learn, the pictures, the first targets and the settings, and stop.
    """
    trust(model_files)
    source, folder = (None, Path(data)) if out is None else (data, out)
    flags = given(
        model=model, data=data_, training=training, generation=generation, evaluation=evaluation,
        distributed=distributed,
    )  # fmt: skip
    settings = settings_from(recipe, flags)
    if out is None and not settings.data.sources:
        raise UserError(
            f"captrain train: OUT is missing. Found only {data!r}; without DATA a recipe has to name its sources"
        )
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "resume_from": resume_from, "force": force}
    check_training(settings, source, folder, **how, writes=not dry_run)
    quiet_libraries()
    order = Order(settings, source, folder, how)
    if dry_run:
        print(rehearse(order))
        return 0
    outcome = carry_out(order, prepare=partial(_prepare, **verbosity()), restores=False)
    if not is_silent():
        _show(outcome, settings)
    return exit_code(outcome.rejected)


def _show(outcome: Outcome, settings: Settings) -> None:
    """Print the scores, which epoch they are of, and where the run and its report are."""
    tested = [(f"test {name}", score) for name, score in score_rows(outcome.test_scores)]
    where = [("run", str(outcome.run)), ("report", str(outcome.run / "report.html"))]
    counted = (
        [("without a caption", f"{outcome.uncaptioned}, left for `captrain caption`")] if outcome.uncaptioned else []
    )
    rows = [*score_rows(outcome.scores), *_chosen(outcome, settings), *tested, *where, *counted]
    show_table([*rows, *rejected_rows(outcome.rejected, outcome.rejects_file)])
    for note in outcome.best.get("notes", ()):
        print(f"note: {printable(note)}")


def _chosen(outcome: Outcome, settings: Settings) -> Iterator[tuple[str, str]]:
    """Which epoch the saved model is of, and what it was chosen by: the loss, where the score was the same at all evaluations."""
    from captrain.metrics.best import LOSS, is_constant
    from captrain.report.logs import Problems, read_metrics

    best, metric = outcome.best, settings.evaluation.metric
    if "epoch" not in best:
        return
    evaluations = read_metrics(outcome.run / "metrics.jsonl", Problems()).validation
    name, loss = (score_rows({asked: 0.0})[0][0] for asked in (metric, LOSS))
    by = f"{loss} (all had the same {name})" if is_constant(evaluations, metric) else name
    pictures = f"{best['images']:,} held-out picture{'' if best['images'] == 1 else 's'}"
    yield "best epoch", f"{best['epoch']:.4g} of {settings.training.epochs}, by {by} on {pictures}"


def _prepare(verbose: bool, quiet: bool) -> None:
    """Set up logging in each of several processes, as in this one."""
    set_up_logging(verbose=verbose, quiet=quiet)
    quiet_libraries()


def demo(out: Path = Path("runs/demo"), /, *, seed: int = 0, overwrite: Switch = False) -> int:
    """Draw pictures, train on them, score and report. Needs no data and no network.

    Args:
        out: Run folder to write.
        seed: Seed of the pictures and the training.
        overwrite: Start again in a folder that holds a run; the old run is lost.
    """
    run_demo(out, seed=seed, overwrite=overwrite)
    return 0


def report(run: Path, /, *, output: Path | None = None) -> int:
    """Write the report of a run as one HTML file, and print where it is.

    Args:
        run: Run folder.
        output: File to write. Default: report.html in the run folder.
    """
    print(Run(run).report(output))
    return 0
