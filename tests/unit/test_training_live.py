"""What the live view of a training says, and that hostile names can't steer the terminal."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from captrain.records import Caption
from captrain.training.loop import live_view
from captrain.training.loop.live_view import LiveView, Pace, duration

ARGS: Any = TrainingArguments


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that tests set."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live_view.time, "monotonic", lambda: clock.now)
    return clock


def drawn(view: LiveView, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.standing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def train(view: LiveView, collator: Any, clock: Any, steps: int = 5) -> TrainerState:
    """Steps of 4 images with 5 captions each, a second a step; then an evaluation that takes a minute."""
    state, control = TrainerState(global_step=0, max_steps=20, epoch=0.0), TrainerControl()
    view.on_train_begin(ARGS, state, control)
    for step in range(1, steps + 1):
        clock.now += 1
        collator.captions += 20
        state.global_step, state.epoch = step, step / 10
        view.on_step_end(ARGS, state, control)
    view.on_log(ARGS, state, control, logs={"loss": 2.34567, "learning_rate": 5e-5, "grad_norm": 0.5})
    clock.now += 60
    view.on_evaluate(ARGS, state, control)
    return state


def view_of(predictions: list[Caption], collator: Any) -> LiveView:
    scores = {"validation_loss": 2.0, "bleu_1": 0.9, "cider": 0.75}
    return LiveView(40, 2, 4, collator, lambda: SimpleNamespace(scores=scores, predictions=predictions))


@pytest.mark.parametrize("width", [80, 120])
def test_all_that_was_asked_for_is_there_and_fits(width: int, clock: SimpleNamespace) -> None:
    collator: Any = SimpleNamespace(captions=0)
    view = view_of([Caption("a.jpg", "a dog runs")], collator)
    state = train(view, collator, clock)
    shown = drawn(view, width)
    for words in (
        "epoch 1 of 2, step 5 of 20", "loss 2.3457", "learning rate 5e-05", "gradient norm 0.5",
        "img/s 4.0", "captions/s 20.0", "time left 0:00:15", "process", "GiB",
        "validation_loss 2.0000", "cider 0.7500", "epoch 0.5", "a dog runs  a.jpg",
    ):  # fmt: skip
        assert words in shown
    assert "bleu_1" not in shown
    assert max(map(len, shown.splitlines())) <= width
    view.on_train_end(ARGS, state, TrainerControl())


def test_rates_leave_the_evaluation_out_and_time_left_does_not(clock: SimpleNamespace) -> None:
    collator: Any = SimpleNamespace(captions=0)
    view = view_of([], collator)
    state = train(view, collator, clock)
    clock.now += 1
    state.global_step = 6
    collator.captions += 20
    view.on_step_end(ARGS, state, TrainerControl())
    assert view.standing.speed == {"img/s": "4.0", "captions/s": "20.0", "time left": duration(56 / (24 / 66))}


def test_a_hostile_name_cannot_steer_the_terminal(clock: SimpleNamespace) -> None:
    collator: Any = SimpleNamespace(captions=0)
    view = view_of([Caption("\x1b[2Jevil\nname[bold]", "")], collator)
    train(view, collator, clock)
    shown = drawn(view)
    assert "\x1b" not in shown
    assert r"(nothing)  \x1b[2Jevil name[bold]" in shown


def test_the_loss_has_a_line_of_its_own_with_verbose(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    collator: Any = SimpleNamespace(captions=0)
    with caplog.at_level(logging.DEBUG, "captrain"):
        train(view_of([], collator), collator, clock)
    assert "epoch 0.5, step 5: loss 2.3457, learning rate 5e-05, gradient norm 0.5" in caplog.text


def test_pace_forgets_what_was_long_ago() -> None:
    pace = Pace(now=0.0)
    assert pace.a_second() is None
    for second in range(1, 101):
        pace.add(1 if second <= 50 else 3, now=float(second))
    assert pace.a_second() == 3.0
