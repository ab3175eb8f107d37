"""`config show` tells where each value comes from and is a recipe itself; `config schema` is JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from captrain.api.recipes import DECIDED_BY_FAMILY, recipe_schema
from captrain.cli import main
from captrain.settings.load import leaves, load_recipe, resolve, sections
from captrain.settings.schema import Settings, TrainingSettings
from captrain.training.filled import fill_optimizer

RECIPES = Path(__file__).parents[2] / "recipes"
DECIDERS = "family|checkpoint|joined|for a prefix"


def test_show_names_the_origin_of_each_value(tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "photos.yaml"
    recipe.write_text("model: {rank: 8, alpha: 4}\n")
    assert main(["config", "show", "--recipe", str(recipe), "--rank", "2", "--freeze", "vision", "bridge"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  rank: 2  # flag" in lines
    assert f"  alpha: 4.0  # recipe {recipe}" in lines
    assert "  freeze: [vision, bridge]  # flag" in lines
    assert "  epochs: 5  # default" in lines
    assert len(lines) == 1 + len(leaves()) + len(Settings.model_fields)


def test_show_says_what_the_family_makes_of_what_is_left_to_it(capsys) -> None:
    assert main(["config", "show", "--model", "blip-large"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# family: blip (the published checkpoint blip-large)"
    assert "  learning_rate: null  # family default: 0.0005" in lines
    assert "  method: null  # family default: lora" in lines
    assert "  image_size: null  # family default: 384" in lines
    assert "  resize: null  # family default: the checkpoint's own" in lines
    assert main(["config", "show", "--encoder", "vit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  freeze: null  # family default: [vision]" in lines
    assert "  learning_rate: null  # family default: 0.001" in lines


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("adamw", "family default: 0.0005"),
        ("schedule-free", "family default: 0.0005"),
        ("lion", "default of lion: 0.0001"),
        ("prodigy", "default of prodigy: 1.0"),
    ],
)
def test_show_says_what_the_optimizer_makes_of_what_is_left_to_it(optimizer: str, rate: str, capsys) -> None:
    assert main(["config", "show", "--optimizer", optimizer]) == 0
    text = capsys.readouterr().out
    assert f"\n  learning_rate: null  # {rate}\n" in text
    schedule, beta2 = {"schedule-free": "constant"}.get(optimizer, "cosine"), {"lion": 0.99}.get(optimizer, 0.999)
    assert f"\n  schedule: null  # default of {optimizer}: {schedule}\n" in text
    assert f"\n  beta2: null  # default of {optimizer}: {beta2}\n" in text
    filled = fill_optimizer(
        resolve({"training": {"optimizer": optimizer, "learning_rate": 0.0005}}),
        TrainingSettings(optimizer=optimizer),
        torch.device("cpu"),
    ).training
    assert (str(filled.learning_rate), filled.schedule, filled.beta2) == (rate.split()[-1], schedule, beta2)


def test_show_is_not_steered_by_a_name(capsys) -> None:
    assert main(["config", "show", "--model", "a\n\x1b[2J"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert resolve(yaml.safe_load(text)).model.model == "a\n\x1b[2J"


def test_what_the_family_decides_is_known() -> None:
    """A setting whose help says that the family or the checkpoint decides is shown so."""
    fields = {leaf: field for section in sections().values() for leaf, field in section.model_fields.items()}
    told = {leaf for leaf, field in fields.items() if re.search(f"Default: .*({DECIDERS})", field.description)}
    assert told == DECIDED_BY_FAMILY


def test_what_show_prints_is_a_recipe(tmp_path: Path, capsys) -> None:
    prompt = "a # picture: of\n\"it\" 'é'\t\x00"
    words = ["--prompt", prompt, "--learning-rate", "1e-5", "--captions-per-image", "2", "--target-modules", "a", "b"]
    assert main(["config", "show", *words]) == 0
    recipe = tmp_path / "shown.yaml"
    recipe.write_text(capsys.readouterr().out, encoding="utf-8")
    settings = resolve(load_recipe(recipe))
    assert settings.data.prompt == prompt
    assert settings.training.learning_rate == 1e-5
    assert settings.data.captions_per_image == 2
    assert settings.model.target_modules == ("a", "b")


def test_show_without_anything_is_the_defaults(capsys) -> None:
    assert main(["config", "show"]) == 0
    text = capsys.readouterr().out
    assert Settings.model_validate(yaml.safe_load(text)) == Settings()
    assert "# flag" not in text
    assert "# recipe" not in text


def test_schema_is_one_json_object_with_the_help_texts(capsys) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {"extends", *Settings.model_fields}
    assert schema["$defs"]["ModelSettings"]["properties"]["rank"]["description"] == "Rank of the LoRA matrices."


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda recipe: recipe.stem)
def test_editors_know_the_shipped_recipes(recipe: Path) -> None:
    """The first line names the schema that lies beside; it takes every shipped recipe."""
    text = recipe.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    schema = pytest.importorskip("jsonschema").Draft7Validator(recipe_schema())
    assert [error.message for error in schema.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    ("recipe", "wrong"),
    [
        ({"model": {"rnak": 4}}, "'rnak' was unexpected"),
        ({"modle": {}}, "'modle' was unexpected"),
        ({"training": {"epochs": "many"}}, "'many' is not of type 'integer'"),
        ({"data": [{"path": "photos", "ratio": 2}], "extends": "base.yaml"}, ""),
    ],
)
def test_the_schema_refuses_what_captrain_refuses(recipe: dict[str, object], wrong: str) -> None:
    schema = pytest.importorskip("jsonschema").Draft7Validator(recipe_schema())
    messages = [error.message for error in schema.iter_errors(recipe)]
    assert wrong in "".join(messages) if wrong else not messages
