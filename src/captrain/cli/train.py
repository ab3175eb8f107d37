"""`captrain train`."""

from __future__ import annotations

from pathlib import Path

from captrain.cli.flags import (
    DataFlags,
    EvaluationFlags,
    GenerationFlags,
    ModelFlags,
    TrainingFlags,
    given,
    settings_from,
)
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, rejected_rows, score_rows, show_table
from captrain.cli.switch import Switch
from captrain.errors import UserError


def train(
    data: str,
    out: Path | None = None,
    /,
    *,
    recipe: Path | None = None,
    resume: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    model: ModelFlags = None,
    data_: DataFlags = None,
    training: TrainingFlags = None,
    generation: GenerationFlags = None,
    evaluation: EvaluationFlags = None,
) -> int:
    """Train a captioner on pictures with captions.

    Args:
        data: Pictures with captions: a folder, table, tar shards or hub name (`captrain data formats` lists the forms). Leave it
            out where the recipe names its sources.
        out: Run folder to write. The same command again continues an interrupted run.
        recipe: YAML file of settings; a flag wins over it.
        resume: Continue the run that is in the folder.
        overwrite: Begin anew in a folder that holds a run; the old one is lost.
        dry_run: Print settings, parameters and the first targets, and stop.
    """
    source, folder = (None, Path(data)) if out is None else (data, out)
    flags = given(model=model, data=data_, training=training, generation=generation, evaluation=evaluation)
    settings = settings_from(recipe, flags)
    if out is None and not settings.data.sources:
        raise UserError(
            f"captrain train: OUT is missing. Found only {data!r}; without DATA a recipe has to name its sources"
        )
    quiet_libraries()
    from captrain.training.run import describe
    from captrain.training.run import train as train_captioner

    if dry_run:
        print(describe(settings, source))
        return 0
    outcome = train_captioner(settings, source, folder, resume=resume, overwrite=overwrite)
    where = [("run", str(outcome.run)), ("report", str(outcome.run / "report.html"))]
    show_table([*score_rows(outcome.scores), *where, *rejected_rows(outcome.rejected, outcome.rejects_file)])
    return exit_code(outcome.rejected)
