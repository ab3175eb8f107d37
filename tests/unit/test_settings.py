"""Settings: flag before recipe before default, and one clear line for whatever is wrong with a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from captrain.errors import SettingsError
from captrain.settings.load import leaves, load_recipe, resolve, sections
from captrain.settings.schema import Settings
from captrain.training.run_folder.place import harmful_changes


@pytest.fixture
def recipe(tmp_path: Path):
    """Writes a recipe and returns its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "photos.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def complaint(path: Path) -> str:
    """The line that a wrong recipe gives."""
    with pytest.raises(SettingsError) as caught:
        resolve(load_recipe(path), None, f"recipe {path}")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_no_leaf_name_occurs_twice() -> None:
    assert len(leaves()) == sum(len(section.model_fields) for section in sections().values())


def test_every_leaf_has_a_docstring() -> None:
    bare = [
        leaf for section in sections().values() for leaf, field in section.model_fields.items() if not field.description
    ]
    assert bare == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().model.rank = 3  # type: ignore[misc]


def test_flag_wins_over_recipe_and_recipe_over_default(recipe) -> None:
    path = recipe("model:\n  rank: 8\n  alpha: 4\n")
    settings = resolve(load_recipe(path), {"model": {"rank": 2}})
    assert (settings.model.rank, settings.model.alpha, settings.training.epochs) == (2, 4, 5)


def test_an_empty_recipe_and_an_empty_section_are_the_defaults(recipe) -> None:
    assert resolve(load_recipe(recipe(""))) == Settings()
    assert resolve(load_recipe(recipe("model:\ntraining: {}\n"))) == Settings()


def test_scientific_notation_is_a_number(recipe) -> None:
    assert resolve(load_recipe(recipe("training: {learning_rate: 1e-3}"))).training.learning_rate == 0.001


def test_captions_per_image_takes_words_and_numbers(recipe) -> None:
    assert resolve(load_recipe(recipe("data: {captions_per_image: one}"))).data.captions_per_image == "one"
    assert resolve(load_recipe(recipe("data: {captions_per_image: 3}"))).data.captions_per_image == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {rank: 3}", "unknown section 'modle'. Did you mean 'model'?"),
        ("rank: 3", "'rank' belongs into the section 'model'"),
        ("training: {bacth_size: 3}", "unknown key 'bacth_size' in section 'training'. Did you mean 'batch_size'?"),
        ("model: {epochs: 3}", "'epochs' belongs into the section 'training'"),
        ("model: {5: 3}", "unknown key '5' in section 'model'"),
        ("model: 3", "section 'model' holds a int, expected key: value lines"),
        ("- model", "found a list, expected sections: model, data"),
        ("model: {rank: x}", "model.rank: found 'x', expected a whole number"),
        ("model: {rank: 1.5}", "model.rank: found 1.5, expected a whole number"),
        ("model: {rank: 0}", "model.rank: found 0, expected at least 1"),
        ("model: {alpha: [1]}", "model.alpha: found [1], expected a number"),
        ("model: {freeze: vision}", "model.freeze: found 'vision', expected a list such as [a, b]"),
        (
            "model: {freeze: [vison]}",
            "model.freeze: found 'vison', expected 'vision', 'bridge' or 'language'. Did you mean",
        ),
        ("data: {prompt: false}", "data.prompt: found False, expected text"),
        ("data: {captions_per_image: some}", "found 'some', expected 'all' or 'one' or a whole number"),
        ("generation: {sample: perhaps}", "generation.sample: found 'perhaps', expected true or false"),
        ("generation: {top_p: 2}", "generation.top_p: found 2, expected at most 1"),
        ("evaluation: {metric: cidr}", "Did you mean 'cider'?"),
        (
            "data: {sources: [{path: a}, {path: b, rato: 3}]}",
            "source 2 in section 'data': unknown key 'rato'. Did you mean 'ratio'?",
        ),
        (
            "data: [{path: a}, {ratio: 3}]",
            "source 2 in section 'data': has no path; expected keys such as path: photos",
        ),
        ("model: {rank: 3", "not valid YAML"),
        ("model: {rank: 3, rank: 4}", "'rank' is given 2 times"),
        ("model: {rank: !!int ''}", "not valid YAML"),
        ("model: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("[" * 50_000, "not valid YAML"),
        (b"model: {model: '\xff'}", "not UTF-8 (byte 16)"),
        (b"#" * 2_000_000, "larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(recipe, text: str | bytes, expected: str) -> None:
    assert expected in complaint(recipe(text))


def test_a_missing_recipe_names_its_neighbour(recipe) -> None:
    path = recipe("")
    assert f"no such file. Did you mean '{path}'?" in complaint(path.with_name("fotos.yaml"))


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert "can't be read" in complaint(tmp_path)


def test_yaml_that_would_expand_without_end_stays_small(recipe) -> None:
    levels = "\n".join(
        f"  {key}: &{key} [{', '.join([f'*{before}'] * 9)}]" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
    )
    text = f"model:\n  a: &a [x]\n{levels}\n  rank: *i\n"
    assert len(complaint(recipe(text))) < 500
    assert len(complaint(recipe("model:\n  rank: &a [*a, *a]\n"))) < 500


def test_unknown_names_are_refused_in_python_too() -> None:
    with pytest.raises(SettingsError, match="unknown section 'modle'"):
        resolve({"modle": {}})
    with pytest.raises(SettingsError, match="Did you mean 'rank'"):
        resolve(None, {"model": {"rnk": 3}})


def test_the_old_name_of_the_feature_cache_still_works(tmp_path: Path) -> None:
    """In recipes, in those they build on, in saved settings, as a flag; what has the present name wins."""
    (tmp_path / "base.yaml").write_text("data: {keep: disk}")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\ndata: {flip: 0.5}")
    assert load_recipe(tmp_path / "top.yaml") == {"data": {"cache_features": "disk", "flip": 0.5}}
    assert resolve(load_recipe(tmp_path / "top.yaml")).data.cache_features == "disk"
    assert resolve({"data": {"keep": "disk"}}, {"data": {"cache_features": "off"}}).data.cache_features == "off"
    assert resolve({"data": {"cache_features": "disk"}}, {"data": {"keep": "off"}}).data.cache_features == "off"
    saved = {"data": {"keep": "memory", "flip": 0.5}}
    assert Settings.model_validate(saved).model_dump(exclude_defaults=True) == {
        "data": {"cache_features": "memory", "flip": 0.5}
    }
    now = {"data": {"cache_features": "off", "flip": 0.5}}
    assert harmful_changes(saved, now) == [], "a run of an earlier version goes on"


def test_a_wrong_value_under_the_old_name_is_told_by_the_present_one() -> None:
    with pytest.raises(
        SettingsError, match=r"data.cache_features: found 'of', expected 'auto', 'memory', 'disk' or 'off'"
    ):
        resolve({"data": {"keep": "of"}})
