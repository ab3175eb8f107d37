"""The learning rate's curve: LAVIS's formulas, the shapes of our own, the same rates after a resume, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from captrain.errors import SettingsError
from captrain.settings.schema import TrainingSettings
from captrain.training.filled import learning_rates
from captrain.training.optimization.schedules import Schedule, make_curve, make_scheduler

PEAK = 2e-4


def filled(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"learning_rate": PEAK, "schedule": "cosine", **values})


def schedule(**values: object) -> Schedule:
    """The learning rate of a training with some settings."""
    return learning_rates(filled(**values))


def rates(steps: int, **values: object) -> list[float]:
    found = learning_rates(filled(**values))
    curve = make_curve(found, steps)
    return [found.peak * curve(step) for step in range(steps)]


def lavis_rates(name: str, epochs: int, batches: int, run: dict[str, float]) -> list[float]:
    """The rate of each batch as LAVIS computes it (`lavis/common/optims.py`, called before each batch of `base_task.py`)."""
    init, floor, decay = run["init_lr"], run.get("min_lr", 0.0), run.get("lr_decay_rate", 1)
    start = run.get("warmup_lr", -1)
    start = start if start >= 0 else init
    found = []
    for epoch in range(epochs):
        for batch in range(batches):
            if epoch == 0:
                rate = min(init, start + (init - start) * batch / max(run.get("warmup_steps", 0), 1))
            elif name == "linear_warmup_cosine_lr":
                rate = (init - floor) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)) + floor
            elif name == "linear_warmup_step_lr":
                rate = max(floor, init * decay**epoch)
            else:
                rate = init
            found.append(rate)
    return found


@pytest.mark.parametrize("name", ["linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"])
@pytest.mark.parametrize(
    ("warmup", "start"), [(0, None), (0, 1e-6), (3, 1e-6), (7, 0.0), (30, 1e-6), (5, None)], ids=str
)
@pytest.mark.parametrize("floor", [0.0, 1e-5])
def test_lavis_curves_are_lavis_curves(name: str, warmup: int, start: float | None, floor: float) -> None:
    epochs, batches = 5, 7
    run = {"init_lr": PEAK, "min_lr": floor, "warmup_steps": warmup, "lr_decay_rate": 0.4}
    ours: dict[str, object] = {"schedule": name, "epochs": epochs, "warmup_steps": warmup}
    if start is not None:
        run["warmup_lr"] = start
        ours["warmup_learning_rate"] = start
    if name != "constant_lr":
        ours["min_learning_rate"] = floor
    if name == "linear_warmup_step_lr":
        ours["decay_rate"] = 0.4
    expected = lavis_rates(name, epochs, batches, run)
    assert rates(epochs * batches, **ours) == pytest.approx(expected, rel=1e-12, abs=0)


def test_lavis_breaks_a_warmup_off_at_the_end_of_the_first_epoch(caplog: pytest.LogCaptureFixture) -> None:
    found = rates(10, schedule="constant_lr", epochs=5, warmup_steps=8, warmup_learning_rate=0.0)
    assert found == pytest.approx([0, PEAK / 8, *[PEAK] * 8])
    assert "2 of 8 steps" in caplog.text


def test_our_curves_end_at_the_floor_and_peak_after_the_warmup() -> None:
    for name in ("cosine", "linear"):
        curve = make_curve(schedule(schedule=name, warmup_steps=10, min_learning_rate=PEAK / 4), 110)
        assert curve(10) == 1 and curve(110) == pytest.approx(0.25)
        assert curve(60) == pytest.approx(0.625)  # half of the way
        falls = [curve(step) for step in range(10, 111)]
        assert falls == sorted(falls, reverse=True)


def test_a_warmup_rises_from_its_start() -> None:
    for name in ("cosine", "linear", "constant", "step"):
        found = rates(20, schedule=name, warmup_steps=4, warmup_learning_rate=PEAK / 2)
        assert found[:4] == pytest.approx([PEAK * part for part in (0.5, 0.625, 0.75, 0.875)])


def test_steps_fall_every_few_epochs() -> None:
    found = rates(12, schedule="step", epochs=6, decay_epochs=2, decay_rate=0.5, warmup=0, min_learning_rate=PEAK / 3)
    assert found == pytest.approx([*[PEAK] * 4, *[PEAK / 2] * 4, *[PEAK / 3] * 4])


def test_the_default_is_what_transformers_has() -> None:
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    for name, make in (("cosine", get_cosine_schedule_with_warmup), ("linear", get_linear_schedule_with_warmup)):
        theirs = make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 4, 61)
        ours = make_curve(schedule(schedule=name, warmup=0.05), 61)
        assert [ours(step) for step in range(61)] == pytest.approx([theirs.lr_lambdas[0](step) for step in range(61)])


def test_groups_keep_their_proportion() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": PEAK}, {"params": [weights[1]], "lr": PEAK / 10}]
    optimizer = torch.optim.SGD(groups, lr=PEAK)
    scheduler = make_scheduler(schedule(warmup_steps=2, warmup_learning_rate=PEAK / 4), optimizer, 10)
    for _ in range(6):
        first, second = scheduler.get_last_lr()
        assert second == pytest.approx(first / 10)
        optimizer.step()
        scheduler.step()


def test_a_resumed_curve_goes_on_where_it_was() -> None:
    def fresh() -> LambdaLR:
        return make_scheduler(schedule(), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK), 20)

    whole = fresh()
    expected = []
    for _ in range(19):
        whole.optimizer.step()
        whole.step()
        expected.append(whole.get_last_lr())
    first = fresh()
    for _ in range(7):
        first.optimizer.step()
        first.step()
    second = fresh()
    second.load_state_dict(first.state_dict())
    found = []
    for _ in range(12):
        second.optimizer.step()
        second.step()
        found.append(second.get_last_lr())
    assert found == expected[7:]


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(SettingsError, match="warmup_steps 21: longer than the run, which has 20 steps in 5 epochs"):
        schedule(warmup_steps=21).warmup(20)
    assert schedule(warmup_steps=20).warmup(20) == 20
    assert schedule(warmup=0.05).warmup(61) == 4
    assert schedule(warmup=0.05, warmup_steps=0).warmup(61) == 0


@pytest.mark.parametrize("name", ["min_learning_rate", "warmup_learning_rate"])
def test_ends_above_the_peak_are_refused(name: str) -> None:
    training = filled().model_copy(update={name: 0.1})
    with pytest.raises(SettingsError, match=f"{name} 0.1: is above the peak"):
        learning_rates(training)
    learning_rates(filled(**{name: PEAK}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schedule": "step", "decay_epochs": 5}, "decay_epochs 5 is longer than the run of 5 epochs"),
        ({"decay_epochs": 2}, "decay_epochs is for schedule step, but the schedule is cosine"),
        ({"decay_rate": 0.5}, "but the schedule is cosine"),
        ({"schedule": "constant", "min_learning_rate": 1e-6}, "schedule constant never falls"),
        (
            {"learning_rate": 1e-5, "min_learning_rate": 1e-4},
            "min_learning_rate 0.0001 is more than learning_rate 1e-05",
        ),
        ({"optimizer": "schedule-free", "schedule": "cosine"}, "averages weights instead of lowering the rate"),
        ({"optimizer": "adafactor", "beta1": 0.5}, "adafactor has neither"),
        ({"optimizer": "adafactor", "beta2": 0.98}, "adafactor has neither"),
        ({"optimizer": "schedule-free", "beta1": 0}, "needs more"),
        ({"optimizer": "schedule-free", "ema": 0.99}, "averages the weights already"),
        ({"optimizer": "prodigy", "vision_learning_rate": 0.1, "vision_layer_decay": 0.9}, "finds one rate for all"),
        ({"schedule": "polynomial"}, "expected"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'?"),
        ({"vision_layer_decay": 0}, "vision_layer_decay"),
    ],
)
def test_what_contradicts_itself_is_one_line(values: dict[str, object], said: str) -> None:
    from captrain.settings.load import resolve

    with pytest.raises(SettingsError) as caught:
        resolve({"training": values, "model": {"method": "full"}})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
