"""Which settings of a run may change when it goes on, and what a change of the others would do."""

from __future__ import annotations

from typing import Any

WITHOUT_EFFECT = (
    "distributed", "model.device", "data.cache_features", "data.keep", "data.memory_budget", "data.workers",
    "data.accept_lost_words", "evaluation.samples",
    "training.checkpoint_every", "training.checkpoint_every_epochs", "training.checkpoint_prefix",
    "training.keep_checkpoints", "training.log_every", "training.max_bad_steps",
    "training.trackers", "training.project", "training.run_name",
)  # fmt: skip
"""Settings, and sections of them, that say where and how a run is computed and watched, not what comes out of it."""

CONSEQUENCES = {
    "source": "it would be other data",
    "model": "it would be another model",
    "data": "other pictures or captions would be learned",
    "training": "its steps would be others",
    "generation": "its captions would be others, and so the best model",
    "evaluation": "another model might be the best",
}
"""By section, what a change of its settings does to a run that has begun."""

MOST_NAMED = 3


def harmful_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings that differ and decide what is learned or which model is the best, each with what it does.

    Args:
        before: what was asked for when the run began, by section, without what was left at its default. now: the same, now.

    >>> harmful_changes({"source": "photos", "training": {"epochs": 5}}, {"source": "photos", "training": {"epochs": 9}})
    ['training.epochs was 5 and is 9: its steps would be others']
    >>> harmful_changes({"source": "photos"}, {"source": "photos", "training": {"log_every": 1}})
    []
    """
    old, new = _flat(before), _flat(now)
    names = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
    return [
        f"{name} was {old.get(name, 'the default')} and is {new.get(name, 'the default')}: {_consequence(name)}"
        for name in names
        if not {name, name.split(".")[0]}.intersection(WITHOUT_EFFECT)
    ]


def told(changes: list[str]) -> str:
    """The first few changes, for one line.

    >>> told(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    more = len(changes) - MOST_NAMED
    return "; ".join(changes[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))


def _consequence(name: str) -> str:
    """What a change of a setting does."""
    return CONSEQUENCES.get(name.split(".")[0], "its result would be another")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
