"""Help: short by default, whole when it is asked for, always what the commands themselves take, and it fits 80 columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captrain.cli import main
from captrain.cli.app import make_app
from captrain.cli.help import COMMON, EVERYWHERE, flags_by_command, load_pages
from captrain.cli.pages import everywhere, texts
from captrain.settings.load import leaves

ROOT = Path(__file__).parents[2]
MOST_LINES = 75


def shown(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command line prints."""
    assert main(words.split()) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("place", list(texts()))
def test_generated_files_are_what_the_commands_say(place: str) -> None:
    assert (ROOT / place).read_text(encoding="utf-8") == texts()[place], "run: python -m captrain.cli.pages"


def test_the_flags_of_every_command_are_those_of_the_app() -> None:
    """`--install-completion` is a command of cyclopts, hence not among them."""
    found = {name for flag in everywhere(make_app()) for name in flag["names"]}
    assert found == {name for heading, _ in EVERYWHERE[1:] for name in heading.split(", ")}


@pytest.mark.parametrize("command", sorted(load_pages()))
def test_help_is_short_and_fits(command: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(f"{command} --help", capsys)
    assert text.startswith(f"Usage: captrain {command}".rstrip())
    assert "-v, --verbose" in text
    assert len(text.splitlines()) <= MOST_LINES
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, shown(f"{command} --help-all", capsys).splitlines())) <= 80


@pytest.mark.parametrize("command", sorted(flags_by_command()))
def test_no_flag_twice_and_each_has_a_text(command: str) -> None:
    flags = flags_by_command()[command]
    assert len(flags) == len(set(flags))
    assert [flag["names"] for flag in load_pages()[command]["flags"] if not flag["text"]] == []


@pytest.mark.parametrize("command", list(COMMON))
def test_the_common_flags_are_there_and_the_rest_is_pointed_to(command: str, capsys) -> None:
    flags = flags_by_command()[command]
    assert [flag for flag in COMMON[command] if f"--{flag}" not in flags] == []
    assert len(COMMON[command]) <= 20
    text = shown(f"{command} --help", capsys)
    listed = re.findall(r"^  --(?:\[no-\])?([a-z0-9-]+)", text, re.MULTILINE)
    assert tuple(listed[: len(COMMON[command])]) == COMMON[command]
    assert f"captrain {command} --help-all shows all" in text


@pytest.mark.parametrize("command", ["train", "config show"])
def test_all_help_lists_every_setting_with_its_text(command: str, capsys) -> None:
    text = shown(f"{command} --help-all", capsys)
    in_recipes_only = {"sources"}
    names = {name.replace("[no-]", "") for name in re.findall(r"^  (--[^\s,]+)", text, re.MULTILINE)}
    missing = [leaf for leaf in leaves() if f"--{leaf.replace('_', '-')}" not in names and leaf not in in_recipes_only]
    assert missing == []
    for section in ("Model", "Data", "Training", "Generation", "Evaluation", "Everywhere"):
        assert f"\n{section}\n" in text
    assert "Rank of the LoRA matrices. [default: 16]" in text
    assert "[default: None]" not in text


def test_a_section_or_a_word_of_flags_by_itself(capsys) -> None:
    text = shown("train --help-all lora", capsys)
    assert text.startswith("LoRA\n  --rank N")
    assert "--epochs" not in text
    assert "--warmup-steps N" in shown("train --help-all optimisation", capsys)
    words = shown("train --help-all warmup --beams", capsys)
    assert re.findall(r"^  --([a-z-]+)", words, re.MULTILINE) == [
        "warmup",
        "warmup-steps",
        "warmup-learning-rate",
        "beams",
    ]


def test_help_after_other_words_and_for_groups(capsys) -> None:
    assert shown("-v train photos runs/x --rank 4 --help", capsys) == shown("train -h", capsys)
    assert shown("data", capsys) == shown("data --help", capsys)
    assert main([]) == 0
    assert capsys.readouterr().out == shown("--help", capsys)
