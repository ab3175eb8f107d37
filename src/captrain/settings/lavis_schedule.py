"""The learning rate's curve of a LAVIS file (`lavis/common/optims.py`), by LAVIS's own names."""

from __future__ import annotations

from typing import get_args

from captrain.settings.lavis_imported import Imported, hint
from captrain.settings.lavis_section import Section
from captrain.settings.schema.optimisation import CONSTANT, WITH_DECAY_RATE
from captrain.settings.schema.training import ScheduleName


def take_schedule(run: Section, done: Imported) -> None:
    """Take over the schedule, its floor, its falls and its warm-up."""
    name = run.take("lr_sched", "a name", "linear_warmup_cosine_lr")
    known = get_args(ScheduleName)
    if name not in known:
        done.note("run.lr_sched", f"'{name}' is not here{hint(name, known)}; expected {', '.join(known)}")
        return
    done.set("schedule", name)
    floor = run.take("min_lr", "a number", 0.0)
    if name not in CONSTANT:
        done.set("min_learning_rate", floor)
    elif floor:
        done.note("run.min_lr", f"{name} never falls, there as here")
    decay = run.take("lr_decay_rate", "a number")
    if name in WITH_DECAY_RATE:
        done.set("decay_rate", 1.0 if decay is None else decay)
    elif decay is not None:
        done.note("run.lr_decay_rate", f"{name} has no steps, there as here")
    _warmup(run, done)


def _warmup(run: Section, done: Imported) -> None:
    """The warm-up. LAVIS counts its batches, captrain the steps that they are gathered into."""
    start = run.take("warmup_lr", "a number", -1.0)
    if start >= 0:
        done.set("warmup_learning_rate", start)
    batches, gathered = run.take("warmup_steps", "a whole number", 0), done.get("accumulate") or 1
    done.set("warmup_steps", -(-batches // gathered))
    if batches and gathered > 1:
        done.note(
            "run.warmup_steps", f"{batches} batches are {done.get('warmup_steps')} steps here: {gathered} are added up"
        )
