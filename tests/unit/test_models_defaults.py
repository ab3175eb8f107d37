"""What settings come to where the family decides: known without loading anything, and the same as when loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from captrain.models.defaults import default_values, family_of
from captrain.settings.schema import ModelSettings, Settings
from captrain.training.captioner_setup import build_captioner, place
from captrain.training.filled import fill_defaults
from captrain.training.resolve import captioner_start


@pytest.mark.parametrize("family", ["blip", "blip-2", "encoder-decoder", "git", "prefix"])
def test_what_a_folder_tells_is_what_loading_finds(family: str, tiny_folders: dict[str, Path]) -> None:
    model = ModelSettings(model=str(tiny_folders[family]), device="cpu")
    known = family_of(model)
    assert known.name == family
    assert known.known_by == f"the files in {tiny_folders[family]}"
    settings = Settings(model=model)
    start = captioner_start(settings)
    captioner = build_captioner(start, (), Path("-"))
    place(captioner, start.place)
    filled = fill_defaults(settings, captioner)
    told = default_values(family, model)
    for section, names in (
        ("model", ("method", "image_size", "resize", "decode")),
        ("training", ("learning_rate", "label_smoothing")),
    ):
        for name in names:
            assert told[name] == getattr(getattr(filled, section), name), name
    assert told["prompt"] == filled.data.prompt


@pytest.mark.parametrize(
    ("values", "family", "known_by"),
    [
        ({"encoder": "vit"}, "encoder-decoder", "join: cross-attention"),
        ({"encoder": "vit", "join": "prefix"}, "prefix", "join: prefix"),
        ({"model": "blip-large"}, "blip", "the published checkpoint blip-large"),
        ({"model": "ada/cats-git"}, "git", "guessed from the name 'ada/cats-git'; its config.json decides"),
        ({"model": "ada/cats"}, "encoder-decoder", "guessed from the name 'ada/cats'; its config.json decides"),
    ],
)
def test_how_a_family_is_known(values: dict[str, str], family: str, known_by: str) -> None:
    found = family_of(ModelSettings.model_validate(values))
    assert (found.name, found.known_by) == (family, known_by)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"encoder": "vit"}, {"method": "full", "freeze": ["vision"], "learning_rate": 1e-3}),
        ({"encoder": "vit", "decoder": "gpt2"}, {"learning_rate": 5e-5}),
        ({"encoder": "vit", "decoder": "gpt2", "method": "lora"}, {"learning_rate": 5e-4, "freeze": []}),
        ({"encoder": "vit", "join": "prefix", "only_prefix": True}, {"freeze": ["vision", "language"]}),
        ({"method": "full"}, {"learning_rate": 1e-5, "label_smoothing": 0.1, "image_size": 384}),
    ],
)
def test_values(values: dict[str, object], expected: dict[str, object]) -> None:
    model = ModelSettings.model_validate(values)
    told = default_values(family_of(model).name, model)
    assert {name: told.get(name) for name in expected} == expected


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, '{"model_type": ["blip"]}', "\x00"])
def test_a_broken_config_is_no_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert family_of(ModelSettings(model=str(tmp_path))).known_by.startswith("guessed from")
