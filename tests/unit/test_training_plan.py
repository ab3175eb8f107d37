"""What settings come to before a training: nothing is left open in it, whatever the settings left open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from captrain.errors import SettingsError
from captrain.features.stream import default_workers
from captrain.settings.load import resolve
from captrain.settings.schema import Settings
from captrain.training.plan import AllWeights, FromCheckpoint, FromParts, NewAdapters, SavedAdapter
from captrain.training.resolve import captioner_start, check_processes, data_plan, learning_of, training_plan

FILLED: dict[str, Any] = {  # what `filled` decides with the captioner, the device and the data
    "model": {"image_size": 384, "resize": "squash", "decode": "exact", "precision": "fp32", "device": "cpu"},
    "training": {"learning_rate": 1e-3, "label_smoothing": 0.1, "beta2": 0.999, "schedule": "cosine", "trackers": []},
    "evaluation": {"tokenize": "ptb"},
    "data": {"prompt": ""},
}
MEANS_SOMETHING = {  # open names, and what they mean
    "start.origin.base": "the base that the adapter names",
    "start.place.quantize": "weights stay as they are",
    "start.captions.text.max_words": "no limit",
    "data.captions.text.max_words": "no limit",
    "data.cache.where": "in memory if the features fit, which their size decides",
    "data.cache.budget": "a quarter of what is free when they are cached",
    "data.views.augmentation": "pictures are not varied",
    "data.captions_an_image": "all",
    "plan.order.ratios": "all images once an epoch",
    "plan.learning.memory.captions_per_image": "all",
    "plan.validation.limit": "all images",
    "plan.validation.patience": "never stops early",
}

JOINS = ("cross-attention", "prefix")


def settings(**sections: dict[str, Any]) -> Settings:
    return resolve(FILLED, sections)


def left_open(name: str, value: Any) -> Iterator[str]:
    """The names in a plan whose value is None or "auto"."""
    if value is None or value == "auto":
        yield name
    elif is_dataclass(value):
        for field in fields(value):
            yield from left_open(f"{name}.{field.name}", getattr(value, field.name))


def test_nothing_is_left_open_but_what_means_something() -> None:
    filled = settings()
    plans = {
        "start": captioner_start(filled),
        "learning": learning_of(filled, torch.device("cpu")),
        "data": data_plan(filled),
        "plan": training_plan(filled, "run"),
    }
    assert {open for name, plan in plans.items() for open in left_open(name, plan)} == MEANS_SOMETHING.keys()


@pytest.mark.parametrize(
    ("model", "origin", "learns"),
    [
        ({"model": "blip"}, FromCheckpoint, NewAdapters),
        ({"model": "blip", "continue_adapter": True}, FromCheckpoint, SavedAdapter),
        ({"model": "blip", "method": "full"}, FromCheckpoint, AllWeights),
        ({"encoder": "vit"}, FromParts, AllWeights),
        ({"encoder": "vit", "decoder": "gpt2", "method": "lora"}, FromParts, NewAdapters),
    ],
)
def test_where_a_captioner_comes_from_and_what_learns(model: dict[str, Any], origin: type, learns: type) -> None:
    start = captioner_start(settings(model=model))
    assert (type(start.origin), type(start.learns)) == (origin, learns)
    assert start.continues == (learns is SavedAdapter)


def test_parts_that_are_joined() -> None:
    crossed, prefix = (captioner_start(settings(model={"encoder": "vit", "join": join})).origin for join in JOINS)
    assert isinstance(crossed, FromParts) and isinstance(prefix, FromParts)
    assert crossed.mapper is None and prefix.mapper is not None
    assert (crossed.vectors, prefix.vectors) == ("all", "pooled")


def test_a_new_decoder_has_nothing_to_adapt() -> None:
    with pytest.raises(SettingsError, match="method lora: a new decoder has nothing to adapt"):
        captioner_start(settings(model={"encoder": "vit", "method": "lora"}))


@pytest.mark.parametrize(("captions", "most"), [("all", None), ("one", 1), (3, 3)])
def test_captions_of_an_image(captions: str | int, most: int | None) -> None:
    filled = settings(data={"captions_per_image": captions}, training={"length_window": 4})
    assert data_plan(filled).captions_an_image == most
    assert training_plan(filled, "run").order.length_window == (4 if most is None else 1)


@pytest.mark.parametrize(("workers", "share"), [(None, default_workers()), (0, 1), (3, 3)])
def test_threads(workers: int | None, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = settings(data={"workers": workers})
    assert data_plan(filled).cache.workers == training_plan(filled, "run").test.workers == share
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * default_workers()))  # more processes than cores
    assert data_plan(filled).cache.workers == (1 if workers is None else share)


def test_a_batch_has_to_be_shared_out_evenly_once_its_size_is_known() -> None:
    check_processes(settings(training={"batch_size": "auto"}), 3, "cpu")
    with pytest.raises(SettingsError, match="batch_size 8: can't be shared out evenly over 3 devices"):
        check_processes(settings(), 3, "cpu")


def test_a_run_has_the_name_of_its_folder_unless_it_is_given_one() -> None:
    assert training_plan(settings(), "cats").tracking.run_name == "cats"
    assert training_plan(settings(training={"run_name": "dogs"}), "cats").tracking.run_name == "dogs"
