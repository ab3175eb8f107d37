"""How long captions can be, for every family: what fits is written and learned, one token more is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captrain.errors import SettingsError
from captrain.inference.captioner import Captioner
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.decoding import Decoding, Room
from captrain.records import Sample
from captrain.settings.load import resolve
from captrain.testing import clear_pictures, tiny_blip2
from captrain.training.captioner_setup import build_captioner, check_captions_fit
from captrain.training.plan import CaptionerStart
from captrain.training.resolve import captioner_start

POSITIONS = {"blip": (64, 0), "blip-2": (64, 4), "encoder-decoder": (64, 0), "git": (64, 0), "prefix": (64, 3)}
"""Of each family's tiny checkpoint, and how many of them the image takes."""
PICTURE = Image.fromarray(clear_pictures(1)[0])


@pytest.fixture(params=POSITIONS)
def writer(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Captioner:
    return Captioner.load(str(tiny_folders[request.param]), device="cpu", precision="fp32")


@pytest.mark.parametrize("prompt", ["", "a small"])
def test_the_longest_caption_is_written_and_one_more_is_refused(writer: Captioner, prompt: str) -> None:
    captioner = writer.model
    captioner.prompt = prompt
    positions, image = POSITIONS[captioner.family]
    most = positions - image - 1 - len(captioner.prompt_ids())
    assert captioner.room().most == most
    lengths: dict[str, Any] = {"beams": 1, "max_new_tokens": most, "min_new_tokens": most}
    [written] = captioner.generate(captioner.encode(torch.from_numpy(clear_pictures(1))), Decoding(**lengths))
    assert len(written.tokens) >= most - 1
    writer(PICTURE, **lengths)
    for changes in ({"max_new_tokens": most + 1}, {"max_new_tokens": 4000}):
        with pytest.raises(SettingsError) as caught:
            writer(PICTURE, **changes)
        assert str(caught.value) == (
            f"max_new_tokens: found {changes['max_new_tokens']}, but the decoder of this {captioner.family} captioner holds "
            f"64 positions, of which {'the image takes ' + str(image) + ', ' if image else ''}start and prompt"
            f"{'' if image else ' take'} {1 + len(captioner.prompt_ids())}; expected at most {most}"
        )


def test_the_longest_caption_is_learned(writer: Captioner) -> None:
    captioner = writer.model
    most = captioner.room().most
    words = " ".join(["dog"] * 100)
    [ids], cut = captioner.tokenize([words], 1000)
    assert (len(ids), cut) == (most - 1, 1)
    rows = captioner.pack([[ids]])
    captioner(pixels=torch.from_numpy(clear_pictures(1)), **rows.to_dict())


def test_a_prompt_that_leaves_no_room(writer: Captioner) -> None:
    writer.model.prompt = " ".join(["dog"] * 80)
    with pytest.raises(
        SettingsError, match=r"^prompt: found \d+ tokens, which leave no room for a caption; the decoder of"
    ):
        writer(PICTURE)


def test_a_length_that_nobody_asked_for_is_lowered(writer: Captioner, caplog: pytest.LogCaptureFixture) -> None:
    """A model that was saved with another length; and the same where families write without asking."""
    room = writer.model.room()
    assert room.fitted(Decoding(max_new_tokens=500)) == Decoding(max_new_tokens=room.most)
    assert f"captions end at {room.most} tokens, not at 500: the decoder of this" in caplog.text
    with pytest.raises(SettingsError, match="min_new_tokens: found 400"):
        room.fitted(Decoding(max_new_tokens=500, min_new_tokens=400))
    assert writer.model.generation_config(Decoding(max_new_tokens=500)).max_new_tokens == room.most


@pytest.mark.parametrize("language", ["t5"])
def test_models_that_know_distances_have_no_limit(language: str, tmp_path: Path) -> None:
    writer = Captioner.load(str(tiny_blip2(tmp_path, language=language)), device="cpu", precision="fp32")
    assert writer.model.room().most > 4096
    how = writer.decoding({"beams": 1, "max_new_tokens": 600, "min_new_tokens": 80})
    features = writer.encode(torch.from_numpy(clear_pictures(1)))
    assert len(writer.model.generate(features, Decoding(beams=1, max_new_tokens=80, min_new_tokens=80))[0].tokens) >= 79
    assert how.max_new_tokens == 600


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"generation": {"max_new_tokens": 70}}, "max_new_tokens: found 70, but the decoder"),
        ({"generation": {"max_new_tokens": 70, "min_new_tokens": 64}}, "max_new_tokens: found 70, but the decoder"),
        ({"data": {"prompt": "dog " * 70}}, "prompt: found "),
        ({"data": {"prefix": "dog " * 70}}, "prefix, suffix: found "),
        ({"data": {"prefix": "dog " * 10, "max_tokens": 6}}, "prefix, suffix: found "),
    ],
)
def test_a_training_that_does_not_fit_is_refused(
    recipe: dict[str, Any], message: str, writer: Captioner, tiny_folders: dict[str, Path]
) -> None:
    settings = resolve(recipe, {"model": {"model": str(tiny_folders[writer.model.family])}})
    with pytest.raises(SettingsError, match=f"^{message}"):
        build_captioner(captioner_start(settings), [], Path("-"))


def test_a_limit_of_learning_that_does_not_fit_is_told(
    writer: Captioner, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Captions that need the room are refused, and cut where that is asked for; short ones mind nothing."""
    model = {"model": {"model": str(tiny_folders[writer.model.family])}}
    room = writer.model.room()

    def limited(tokens: int) -> CaptionerStart:
        return captioner_start(resolve({"data": {"max_tokens": tokens}}, model))

    short, long = (Sample("1", Path("x"), (words,), "") for words in ("a dog", "dog " * 90))
    check_captions_fit(writer.model, [short], limited(65))
    assert f"max_tokens: found 65, but {room.told}: there is room for {room.most}" in caplog.text
    with pytest.raises(
        SettingsError, match=rf"max_tokens: found 65, and captions of up to \d+ tokens, .* most {room.most}, "
    ):
        check_captions_fit(writer.model, [short, long], limited(65))
    check_captions_fit(writer.model, [short, long], limited(room.most))


def test_defaults_are_lowered_where_a_decoder_is_small(tiny_folders: dict[str, Path]) -> None:
    settings = resolve({"data": {"prompt": "dog " * 40}}, {"model": {"model": str(tiny_folders["encoder-decoder"])}})
    captioner = build_captioner(captioner_start(settings), [], Path("-"))
    assert captioner.decoding.max_new_tokens == captioner.room().most < 30
    assert load_captioner(str(tiny_folders["encoder-decoder"])).decoding.max_new_tokens == 30


@given(
    positions=st.integers(1, 3000), image=st.integers(0, 100), before=st.integers(1, 100),
    longest=st.integers(1, 4096), shortest=st.integers(0, 4096), asked=st.booleans(),
)  # fmt: skip
def test_what_is_fitted_always_fits(
    positions: int, image: int, before: int, longest: int, shortest: int, asked: bool
) -> None:
    room, longest = Room("blip", positions, image, before), max(longest, shortest, 1)
    try:
        fitted = room.fitted(
            Decoding(max_new_tokens=longest, min_new_tokens=shortest), ["max_new_tokens"] if asked else []
        )
    except SettingsError as error:
        assert max(shortest, longest if asked else 0) > room.most or room.most < 1, error
    else:
        assert fitted.min_new_tokens <= fitted.max_new_tokens <= room.most
        assert fitted.max_new_tokens == min(longest, room.most)
