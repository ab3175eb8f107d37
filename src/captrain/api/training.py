"""`captrain.train`: what the command `captrain train` does, as a function, with callbacks and metrics of one's own."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from captrain.api.checks import check_training
from captrain.api.options import TRAINING, Place, place, settings_from, sort_settings
from captrain.api.process import calling, undisturbed
from captrain.api.runs import Run
from captrain.api.settings import TrainSettings
from captrain.errors import SettingsError, UserError
from captrain.metrics.own import Metric, check_metrics
from captrain.records import Caption
from captrain.settings.schema import Settings
from captrain.settings.schema.training import allowing_metrics

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from captrain.models.families import Family
    from captrain.training.extensions import Extensions
    from captrain.training.run import Outcome


EVENTS = ("on_start", "on_log", "on_epoch", "on_end", "on_train_begin")


class Callback:
    """What a program does at certain moments of a training: subclass it, and override what you need.

    In a training on several devices it is called in the first process alone.

    >>> class Print(Callback):
    ...     def on_epoch(self, epoch, scores, captions):
    ...         print(f"epoch {epoch:g}: {scores['cider']:.2f}, {captions[0].text}")
    >>> Print().on_epoch(1.0, {"cider": 0.5}, [Caption("dog.jpg", "a dog runs")])
    epoch 1: 0.50, a dog runs
    """

    def on_start(self, run: Path) -> None:
        """Before the first step, also of a resumed run. `run` is its folder."""

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """At every line of training in metrics.jsonl: loss, learning_rate, gradient_norm."""

    def on_epoch(self, epoch: float, scores: Mapping[str, float], captions: Sequence[Caption]) -> bool | None:
        """After each evaluation: the scores by name, and the captions of the validation pictures. True stops the training.

        Without validation pictures it is called at the end of each epoch, with nothing.
        """
        return None

    def on_end(self, scores: Mapping[str, float]) -> None:
        """At the end, for whatever reason: the scores of the last evaluation."""


class OnEpoch(Protocol):
    """A function in place of a `Callback`: its `on_epoch`."""

    def __call__(self, epoch: float, scores: Mapping[str, float], captions: Sequence[Caption], /) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A training that was asked for, checked as far as it can be before anything is loaded.

    `source` is the data set, None if the recipe names several. `how`: `resume`, `overwrite`, `resume_from` and `force`.
    """

    settings: Settings
    source: str | None
    out: Path
    how: Mapping[str, Any]


def train(
    data: Place | None,
    out: Place,
    recipe: Place | None = None,
    *,
    callbacks: Sequence[Callback | OnEpoch | TrainerCallback] = (),
    metrics: Mapping[str, Metric] | None = None,
    resume: bool = False,
    resume_from: int | Place | None = None,
    force: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[TrainSettings],
) -> Run:
    """Train a captioner on pictures with captions, as `captrain train` does, and return the run.

    The same call again continues an interrupted run (also after Ctrl-C), and returns a finished one.

    Args:
        data: Folder, table, tar shards or hub name; None if the recipe names sources.
        out: Run folder to write.
        recipe: YAML file of settings; a keyword argument wins over it.
        callbacks: `captrain.Callback`s, functions of epoch, scores and captions, or transformers' `TrainerCallback`s.
        metrics: Scores of your own by name: functions of captions (one per image) and references (a list per image) that give
            a number; higher is better. `metric="that name"` keeps the model that is best by it.
        resume: Continue the run that is in the folder; without one it is an error.
        resume_from: Go back to one of its checkpoints, by step or folder, and continue from there; what came later is lost.
        force: Continue although settings, data or model have changed in ways that change the result.
        overwrite: Begin again from scratch in a folder that holds a run; the old one is lost.
        trust_remote_code: Run the Python code that comes with a model, for kinds of models that transformers does not know.
        safetensors_only: Refuse weights that are pickles.
        settings: Any setting of a recipe, by its name (`captrain config schema`, `captrain.api.settings.TrainSettings`).

    Raises:
        UserError: for settings, data, models or folders that can't work, with the command line's texts; nothing was begun.
        TrainingError: when the training itself stopped; the last checkpoint is intact.
        StoppedError: after Ctrl-C or SIGTERM, when the step was finished and saved.

    Progress is shown as on the command line, in a notebook as part of the cell's output; `logging.getLogger("captrain")` with
    a level of its own says how much. The process is left as it was: random generators, signals, logging, environment.
    With `devices` a script needs `if __name__ == "__main__":` around its call, as each process imports the script.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_blip, tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> photos, model = tiny_photos(folder / "photos"), tiny_blip(folder / "blip")
    >>> logging.getLogger("captrain").setLevel("WARNING")                          # quiet
    >>> run = train(photos, folder / "run", model=model, epochs=1, validation_share=0.5, device="cpu", beams=1)
    >>> sorted(run.scores)
    ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'rouge_l', 'validation_loss']
    >>> (run.path / "report.html").is_file(), run.history[-1]["kind"]
    (True, 'validation')
    >>> logging.getLogger("captrain").setLevel("NOTSET")
    """
    own = dict(metrics or {})
    check_metrics(own)
    _check_callbacks(callbacks)
    switches = {"trust_remote_code": trust_remote_code, "safetensors_only": safetensors_only}
    with calling(**switches) as begin, allowing_metrics(own):
        how = {"resume": resume, "overwrite": overwrite, "resume_from": _step(resume_from), "force": force}
        order = order_training("captrain.train", data, out, recipe, settings, how)
        begin()
        carry_out(order, callbacks, own)
    return Run(order.out)


def describe(
    data: Place | None,
    recipe: Place | None = None,
    *,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[TrainSettings],
) -> str:
    """What `captrain train --dry-run` prints. Nothing is trained or written."""
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        how = {"resume": False, "overwrite": False, "resume_from": None, "force": False}
        order = order_training("captrain.describe", data, ".", recipe, settings, how, writes=False)
        begin()
        with undisturbed():
            return rehearse(order)


def order_training(
    call: str,
    data: Place | None,
    out: Place,
    recipe: Place | None,
    given: Mapping[str, Any],
    how: Mapping[str, Any],
    writes: bool = True,
) -> Order:
    """Check a training before anything heavy is loaded. Raises `UserError` as `captrain train` would."""
    settings = settings_from(recipe, sort_settings(call, given, TRAINING))
    source = None if data is None else place(data)
    if source is None and not settings.data.sources:
        raise UserError(f"{call}: data is None; without data a recipe has to name its sources")
    order = Order(settings, source, Path(out), how)
    check_training(order.settings, order.source, order.out, **how, writes=writes)
    return order


def rehearse(order: Order) -> str:
    """A dry run, as text: what would learn, the pictures, the first targets, the settings."""
    from captrain.training.distributed.launch import worker_environments
    from captrain.training.run import describe as describe_run

    worker_environments(order.settings)
    return describe_run(order.settings, order.source)


def carry_out(
    order: Order,
    callbacks: Sequence[Any] = (),
    metrics: Mapping[str, Metric] | None = None,
    prepare: Callable[[], None] | None = None,
    *,
    restores: bool = True,
) -> Outcome:
    """Train, on one device or on those that the settings name; unless `restores` the process is left as training leaves it.

    `prepare` is called in each process that is started; by default it speaks as this one does.
    """
    with undisturbed() if restores else nullcontext():
        from captrain.models.families import FAMILIES
        from captrain.training.distributed.launch import train_on_devices, worker_environments
        from captrain.training.extensions import Extensions

        extensions = Extensions(tuple(callbacks), dict(metrics or {}))
        if worker_environments(order.settings):
            _check_travels(extensions)
        speaking = prepare or partial(
            _prepare, logging.getLogger("captrain").getEffectiveLevel(), tuple(FAMILIES.values())
        )
        return train_on_devices(
            order.settings, order.source, order.out, prepare=speaking, extensions=extensions, **order.how
        )


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise `SettingsError` for what is no callback; those of transformers have `on_train_begin`."""
    for callback in callbacks:
        if not (callable(callback) or any(hasattr(callback, name) for name in EVENTS)):
            raise SettingsError(
                f"callbacks: found {callback!r}, expected a captrain.Callback, a transformers.TrainerCallback, or a function "
                "of epoch, scores and captions"
            )


def _prepare(level: int, families: Sequence[Family]) -> None:
    """What each of several processes does before it trains. It knows the families that were registered in this one."""
    import transformers.utils.logging as transformers_logging

    from captrain.messages import speak
    from captrain.models.contexts import LIBRARIES
    from captrain.models.families import register_family

    for family in families:
        register_family(family)
    speak(level)
    if level > logging.DEBUG:
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(logging.ERROR)


def _check_travels(extensions: Extensions) -> None:
    """Raise `SettingsError` for callbacks and metrics that can't be sent to the processes of several devices."""
    for what, given in (("callbacks", extensions.callbacks), ("metrics", tuple(extensions.metrics.values()))):
        reason = "they are defined in a notebook or at a prompt" if any(map(_is_typed_in, given)) else ""
        try:
            pickle.dumps(given)
        except Exception as error:  # pickling raises whatever an object raises
            reason = str(error)
        if reason:
            raise SettingsError(
                f"{what}: can't be sent to the processes of several devices ({reason}); define them in a module, and import it"
            )


def _is_typed_in(given: Any) -> bool:
    """Whether something is of a program that is no file, which no other process can import."""
    owner = given if hasattr(given, "__qualname__") else type(given)
    return owner.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")


def _step(wanted: int | Place | None) -> str | None:
    """A checkpoint, by step or folder, as the command line names it."""
    return None if wanted is None else str(wanted) if isinstance(wanted, int) else place(wanted)
