"""A recipe that builds on another: values by the nearest file, and one line for chains that can't work."""

from __future__ import annotations

from pathlib import Path

import pytest

from captrain.cli import main
from captrain.errors import SettingsError
from captrain.settings.load import LONGEST_CHAIN, load_recipe, recipe_layers, resolve


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe below the test's folder and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def complaint(path: Path) -> str:
    """The line that a wrong recipe gives."""
    with pytest.raises(SettingsError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_nearest_file_wins_key_by_key(write) -> None:
    write("base.yaml", "model: {rank: 1, alpha: 1, dropout: 0.1}\ntraining: {epochs: 7}\n")
    write("shared/middle.yaml", "extends: ../base.yaml\nmodel: {rank: 2, alpha: 2}\n")
    top = write("top.yaml", "extends: shared/middle.yaml\nmodel: {rank: 3}\n")
    settings = resolve(load_recipe(top), {"training": {"batch_size": 4}})
    assert (settings.model.rank, settings.model.alpha, settings.model.dropout) == (3, 2, 0.1)
    assert (settings.training.epochs, settings.training.batch_size) == (7, 4)
    assert [layer.path.name for layer in recipe_layers(top)] == ["top.yaml", "middle.yaml", "base.yaml"]


def test_a_list_of_data_sets_replaces_the_one_below(write) -> None:
    write("base.yaml", "data: {sources: [{path: a}, {path: b}], flip: 0.5}\n")
    top = write("top.yaml", "extends: base.yaml\ndata: [{path: c}]\n")
    data = resolve(load_recipe(top)).data
    assert [source.path for source in data.sources] == ["c"]
    assert data.flip == 0.5


def test_what_contradicts_itself_below_can_be_put_right_above(write) -> None:
    write("base.yaml", "data: {views: 3}\n")
    top = write("top.yaml", "extends: base.yaml\ndata: {flip: 0.5}\n")
    assert resolve(load_recipe(top)).data.views == 3


def test_show_names_the_file_of_each_value(write, capsys) -> None:
    base = write("base.yaml", "model: {rank: 1, alpha: 1}\n")
    top = write("top.yaml", "extends: base.yaml\nmodel: {rank: 3}\n")
    assert main(["config", "show", "--recipe", str(top), "--dropout", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"  rank: 3  # recipe {top}" in lines
    assert f"  alpha: 1.0  # recipe {base}" in lines
    assert "  dropout: 0.5  # flag" in lines


def test_circles_and_long_chains_are_refused(write) -> None:
    assert "a.yaml builds on this recipe itself" in complaint(write("a.yaml", "extends: a.yaml\n"))
    write("b.yaml", "extends: ./x/../c.yaml\n")
    write("x/keep.yaml", "")
    assert "c.yaml builds on this recipe itself" in complaint(write("c.yaml", "extends: b.yaml\n"))
    for number in range(LONGEST_CHAIN + 1):
        write(f"{number}.yaml", f"extends: {number + 1}.yaml\n")
    write(f"{LONGEST_CHAIN + 1}.yaml", "")
    assert f"one recipe more than the {LONGEST_CHAIN}" in complaint(write("0.yaml", "extends: 1.yaml\n"))
    write(f"{LONGEST_CHAIN - 1}.yaml", "")
    assert len(recipe_layers(write("0.yaml", "extends: 1.yaml\n"))) == LONGEST_CHAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: bose.yaml", "no such file. Did you mean"),
        ("extends: 3", "extends: found 3, expected the path of one recipe"),
        ("extends: [base.yaml]", "expected the path of one recipe"),
        ("extends: ''", "expected the path of one recipe"),
        ("extends: .", "is no file"),
        ("extend: base.yaml", "unknown section 'extend'. Did you mean 'extends'?"),
        ("extends: wrong.yaml", "model.rank: found 'x', expected a whole number"),
        ("extends: unknown.yaml", "unknown key 'rnk' in section 'model'"),
        ("model: {extends: base.yaml}", "unknown key 'extends' in section 'model'"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(write, text: str, expected: str) -> None:
    write("base.yaml", "model: {rank: 1}")
    write("wrong.yaml", "model: {rank: x}")
    write("unknown.yaml", "model: {rnk: 1}")
    assert expected in complaint(write("top.yaml", text))


def test_an_error_below_names_its_file_and_who_extends_it(write) -> None:
    wrong = write("wrong.yaml", "model: {rank: x}")
    top = write("top.yaml", "extends: wrong.yaml")
    assert complaint(top).startswith(f"recipe {wrong} (which {top} extends): model.rank")
