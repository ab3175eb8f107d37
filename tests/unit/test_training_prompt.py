"""Which prompt a training has: the given one, the model's own, what the data asks, the family's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from captrain.data.recipe_data import load_training_splits
from captrain.models.checkpoint.folder import save_captioner
from captrain.settings.schema import Settings
from captrain.testing import tiny_blip, tiny_blip2, tiny_photos, tiny_text_decoder, tiny_vision_encoder
from captrain.training.captioner_setup import build_captioner
from captrain.training.plan import CaptionerStart
from captrain.training.resolve import captioner_start
from captrain.training.run import prepare_captioner

QUESTION = "what is it"
NO_BASE = Path("-")


def settings(prompt: str | None = None, **model: Any) -> Settings:
    return Settings.model_validate({"model": {"device": "cpu", **model}, "data": {"prompt": prompt}})


def start(prompt: str | None = None, **model: Any) -> CaptionerStart:
    return captioner_start(settings(prompt, **model))


@pytest.mark.parametrize(("given", "prompt"), [(None, QUESTION), ("", ""), ("a photo of", "a photo of")])
def test_the_data_asks_where_no_prompt_is_given(
    tmp_path: Path, given: str | None, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = str(tiny_blip(tmp_path / "blip"))
    with caplog.at_level(logging.INFO):
        assert build_captioner(start(given, model=model), [], NO_BASE, QUESTION).prompt == prompt
    assert ("which the data asks" in caplog.text) == (given is None)


def test_the_models_own_prompt_goes_before_the_datas_and_this_before_the_familys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = str(tiny_blip2(tmp_path / "blip2"))
    assert build_captioner(start(model=model), [], NO_BASE).prompt == "a photo of"
    asked = build_captioner(start(model=model), [], NO_BASE, QUESTION)
    assert asked.prompt == QUESTION
    save_captioner(asked, tmp_path / "asked")
    own = start(model=str(tmp_path / "asked"))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert build_captioner(own, [], NO_BASE, QUESTION).prompt == QUESTION
        assert not caplog.text  # what it has already needs no word
        assert build_captioner(own, [], NO_BASE, "what is there").prompt == QUESTION
    assert "the model has its own, 'what is it'" in caplog.text


def test_a_new_decoder_and_a_long_question_take_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = str(tiny_vision_encoder(tmp_path / "encoder"))
    with caplog.at_level(logging.INFO):
        joined = build_captioner(start(encoder=encoder), ["a dog"] * 3, NO_BASE, QUESTION)
        long = build_captioner(start(model=str(tiny_blip(tmp_path / "blip"))), [], NO_BASE, "dog " * 50)
    assert (joined.prompt, long.prompt) == ("", "")
    assert "a new decoder knows the words of captions alone" in caplog.text
    assert "its 50 tokens leave captions" in caplog.text
    decoder = str(tiny_text_decoder(tmp_path / "decoder"))
    assert build_captioner(start(encoder=encoder, decoder=decoder), [], NO_BASE, QUESTION).prompt == QUESTION


def test_a_dry_run_on_conversations_shows_their_question_as_the_prompt(tmp_path: Path) -> None:
    photos = tiny_photos(tmp_path / "photos", count=4, captions=1)
    said = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": "a dog"}]
    rows = [{"image": path.name, "conversations": said} for path in sorted(photos.glob("*.png"))]
    (tmp_path / "chat.json").write_text(json.dumps(rows), encoding="utf-8")
    wanted = settings(model=str(tiny_blip(tmp_path / "blip")))
    wanted = wanted.model_copy(update={"data": wanted.data.model_copy(update={"image_root": photos})})
    splits = load_training_splits(wanted, str(tmp_path / "chat.json"))
    captioner, filled = prepare_captioner(wanted, splits, None)
    assert (captioner.prompt, filled.data.prompt) == (QUESTION, QUESTION)
