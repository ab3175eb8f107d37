"""The rule by which the best evaluation is found: a score, the loss between equals; and scores that can't tell."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState

from captrain.metrics.best import blind_spot, is_better, is_constant, merit, since_best
from captrain.report.logs import Metrics
from captrain.training.loop.callbacks import Discernment, Patience, is_best

NUMBERS = st.floats(-10, 10) | st.just(math.nan) | st.just(math.inf) | st.none()
LINES = st.lists(st.fixed_dictionaries({"cider": NUMBERS, "validation_loss": NUMBERS}), min_size=1, max_size=8)


@given(LINES, st.sampled_from(["cider", "validation_loss"]))
def test_one_rule_for_all_who_choose(lines: list[dict[str, Any]], metric: str) -> None:
    """What is kept while training is what patience counts from: the first of the best, numbers before what is none."""
    kept = 0
    for place, line in enumerate(lines):
        if is_better(line, lines[:place], metric):
            kept = place
    assert len(lines) - 1 - since_best(lines, metric) == kept
    assert merit(lines[kept], metric) == max(merit(line, metric) for line in lines)


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=8))
def test_a_score_that_is_nothing_leaves_the_choice_to_the_loss(losses: list[float]) -> None:
    lines = [{"cider": 9.9e-14 * place, "validation_loss": loss} for place, loss in enumerate(losses)]
    best = min(round(loss, 9) for loss in losses)
    assert round(losses[len(losses) - 1 - since_best(lines, "cider")], 9) == best
    report = Metrics((), tuple({"step": place, **line} for place, line in enumerate(lines)), "cider").best()
    assert report is not None
    assert report["step"] == len(losses) - 1 - since_best(lines, "cider")
    assert is_constant(lines, "cider") == (len(lines) > 1)


@pytest.mark.parametrize(
    ("references", "metric", "tokenizer", "says"),
    [
        ({"1": ["a dog runs on grass"]}, "cider", "ptb", "cider is always 0 with one picture"),
        ({"1": ["a dog runs on grass"]}, "bleu_4", "ptb", None),
        ({"1": ["a dog runs on grass"]}, "cider_and_bleu_4", "ptb", None),
        ({"1": ["a dog runs"], "2": ["a dog runs"]}, "cider", "ptb", "cider of captions copied"),
        ({"1": ["a dog runs"], "2": ["two cats sleep"]}, "cider", "ptb", None),
        ({"1": ["狗在草地上奔跑"], "2": ["两只猫睡在沙发上"]}, "bleu_4", "ptb", "bleu_4 of captions copied"),
        ({"1": ["狗在草地上奔跑"], "2": ["两只猫睡在沙发上"]}, "bleu_4", "characters", None),
        ({"1": ["red shoe"], "2": ["blue bag"]}, "bleu_4", "ptb", "is 0.0010"),
        ({"1": ["red shoe"], "2": ["blue bag"]}, "bleu_1", "ptb", None),
        ({"1": ["red shoe"]}, "validation_loss", "ptb", None),
        ({"1": ["red shoe"]}, "meteor", "ptb", None),
        ({}, "cider", "ptb", None),
    ],
)
def test_scores_that_can_tell_nothing(
    references: dict[str, list[str]], metric: str, tokenizer: str, says: str | None
) -> None:
    found = blind_spot(references, metric, tokenizer)
    assert found is None if says is None else says in str(found)


def _state(*scores: float) -> TrainerState:
    history = [{"loss": 1.0}]
    history += [{"eval_cider": score, "eval_validation_loss": 3.0 - place} for place, score in enumerate(scores)]
    return TrainerState(log_history=history)


def test_patience_does_not_stop_at_a_score_that_cannot_move() -> None:
    control = TrainerControl()
    Patience("cider", 1).on_evaluate(None, _state(0.0, 0.0, 0.0), control)  # type: ignore[arg-type]
    assert not control.should_training_stop
    Patience("cider", 1).on_evaluate(None, _state(0.2, 0.1), control)  # type: ignore[arg-type]
    assert control.should_training_stop


def test_a_constant_score_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    callback, control = Discernment("cider", patience=2), TrainerControl()
    for scores in ((0.5,), (0.5, 0.5), (0.5, 0.5, 0.5)):
        callback.on_evaluate(None, _state(*scores), control)  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "cider was 0.5000 at both evaluations so far: it cannot tell epochs apart, the validation loss does so instead, and "
        "--patience counts by it. To choose by a score hold out more pictures (--validation-share, --validation-data), or try "
        "--tokenize or another --metric; --metric validation_loss leaves this out"
    ]


def test_ties_go_to_the_lower_loss() -> None:
    assert is_best({"eval_cider": 0.0, "eval_validation_loss": 1.0}, _state(0.0, 0.0), "cider")
    assert not is_best({"eval_cider": 0.0, "eval_validation_loss": 2.5}, _state(0.0, 0.0), "cider")
    assert is_best({"eval_cider": 0.1, "eval_validation_loss": 9.0}, _state(0.0, 0.0), "cider")
    assert is_best({"eval_cider": 0.0, "eval_validation_loss": 9.0}, _state(), "cider")
