"""The user's own metrics: a function from captions and references to a number, beside those that captrain computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from captrain.errors import CaptrainError, SettingsError
from captrain.metrics.java import JAVA_METRICS
from captrain.metrics.score import METRICS

TAKEN = frozenset(
    {*METRICS, *JAVA_METRICS, "cider_and_bleu_4", "validation_loss", "kind", "step", "epoch", "seconds", "loss"}
)
"""Names that a score of one's own can't have: of captrain's scores, and of what else a line of metrics.jsonl holds."""


class Metric(Protocol):
    """A user's function. It gets one caption per image, and the references of each; a higher number is better."""

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]], /) -> float: ...


class MetricError(CaptrainError):
    """A user's metric failed, or returned no number."""


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Raise `SettingsError` for a name that is taken or is no word, and for what can't be called.

    >>> check_metrics({"length": lambda captions, references: 3.0})
    >>> try:
    ...     check_metrics({"cider": lambda captions, references: 3.0})
    ... except SettingsError as error:
    ...     print(error)
    metrics: 'cider' is a name of captrain's own; expected another one
    """
    for name, metric in metrics.items():
        if name in TAKEN:
            raise SettingsError(f"metrics: '{name}' is a name of captrain's own; expected another one")
        if not (isinstance(name, str) and name.isidentifier()):
            raise SettingsError(f"metrics: found the name {name!r}, expected a word such as mean_length")
        if not callable(metric):
            raise SettingsError(
                f"metrics: found {metric!r} for '{name}', expected a function of captions and references"
            )


def measure(
    metrics: Mapping[str, Metric], captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The scores of all metrics by name. Raises `MetricError` if one fails, or gives what is no finite number.

    >>> measure({"words": lambda captions, references: len(captions[0].split())}, ["a dog runs"], [["a dog"]])
    {'words': 3.0}
    """
    return {name: _measured(name, metric, captions, references) for name, metric in metrics.items()}


def _measured(name: str, metric: Metric, captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    try:
        value = float(metric(list(captions), [list(known) for known in references]))
    except Exception as error:  # whatever somebody's function raises
        why = f"{type(error).__name__}: {error}"
        raise MetricError(
            f"the metric '{name}' failed ({why}); expected a number from captions and references"
        ) from error
    if not math.isfinite(value):
        raise MetricError(f"the metric '{name}' gave {value}, expected a finite number")
    return value
