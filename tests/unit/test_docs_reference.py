"""The reference pages are written from the code: nothing that it has is missing, and nothing else is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import captrain
from captrain.cli.app import COMMANDS, CONFIG_COMMANDS, DATA_COMMANDS, FEATURES_COMMANDS
from captrain.settings.schema import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """The Sphinx extension that writes the pages; its functions need no Sphinx."""
    sys.path.insert(0, str(DOCS / "_extension"))
    try:
        import reference_pages
    finally:
        sys.path.pop(0)
    return reference_pages


def test_every_setting_is_described_once(pages: ModuleType) -> None:
    text = pages.settings()
    leaves = [leaf for section in Settings.model_fields for leaf in type(getattr(Settings(), section)).model_fields]
    assert sorted(re.findall(r"^\[`(\w+)`\]", text, re.MULTILINE)) == sorted(leaves)
    assert (
        "[`rank`]{#rank}\n: Rank of the LoRA matrices.<br>\n  [whole number from 1, default `16`, `--rank`]{.facts}"
        in text
    )
    assert "recipes only]" in text.split("[`sources`]")[1].split("[`train_split`]")[0]


def test_every_command_is_described_with_its_arguments(pages: ModuleType) -> None:
    text = pages.commands()
    grouped = {"data": DATA_COMMANDS, "features": FEATURES_COMMANDS, "config": CONFIG_COMMANDS}
    names = [*COMMANDS, *(f"{group} {name}" for group, commands in grouped.items() for name in commands)]
    assert re.findall(r"^## captrain (.+)$", text, re.MULTILINE) == names
    assert "```text\ncaptrain train DATA [OUT] [OPTIONS]\n```" in text
    arguments = text.split("## captrain train\n")[1].split("**Options**")[0].split("**Arguments**")[1]
    assert "* `DATA`: " in arguments and "* `OUT`: " in arguments
    assert "```text\ncaptrain score [FILES...] [OPTIONS]\n```" in text


def test_flags_of_a_training_lead_to_their_settings(pages: ModuleType) -> None:
    linked = re.findall(r"\(settings\.md#(\w+)\)", pages.commands())
    assert {"rank", "epochs", "beams", "devices"} <= set(linked)
    assert set(linked) <= set(re.findall(r"\{#(\w+)\}", pages.settings()))


def test_every_public_name_and_error_has_a_directive(pages: ModuleType) -> None:
    shown = re.findall(r"auto\w+:: captrain\.(\w+)$", pages.python(), re.MULTILINE)
    assert sorted(shown) == sorted(name for name in captrain.__all__ if callable(getattr(captrain, name)))
    assert "autoexception:: captrain.errors.SettingsError" in pages.errors()
    assert "nearest" not in pages.errors()


def test_every_marker_of_a_page_is_known(pages: ModuleType) -> None:
    markers = [name for page in DOCS.rglob("*.md") for name in pages.MARKER.findall(page.read_text(encoding="utf-8"))]
    assert sorted(markers) == sorted(pages.PAGES)


def test_a_kind_is_told_in_words(pages: ModuleType) -> None:
    schema = Settings.model_json_schema()["$defs"]
    assert pages.kind_of(schema["DataSettings"]["properties"]["flip"]).startswith("number from 0")
    assert (
        pages.kind_of(schema["ModelSettings"]["properties"]["freeze"]) == r"list of `vision` \| `bridge` \| `language`"
    )
