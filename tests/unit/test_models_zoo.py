"""Published captioners by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from captrain.models.checkpoint.folder import FAMILIES
from captrain.models.zoo import CHECKPOINTS, FAMILY_DEFAULTS, HUB_IDS, name_hint, resolve_name


def test_short_names_stand_for_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_name("blip-large") == "Salesforce/blip-image-captioning-large"
    for name in ("ada/cats", "gpt2", "./runs/x", "/abs/olute", "Salesforce/blip-image-captioning-large", "clipcap-mlp"):
        assert resolve_name(name) == name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blip-large").mkdir()
    assert resolve_name("blip-large") == "blip-large", "a folder of that name comes first"


def test_hints_never_stand_in_the_way() -> None:
    assert name_hint("blip-larg") == " Did you mean 'blip-large'?"
    assert name_hint("ada/blip-larg") == name_hint("nothing-of-the-kind") == ""
    assert "pickles" in name_hint("clipcap-mlp")


def test_every_entry_is_whole() -> None:
    assert len({checkpoint.name for checkpoint in CHECKPOINTS}) == len(CHECKPOINTS)
    assert len(set(HUB_IDS.values())) == len(HUB_IDS)
    for checkpoint in CHECKPOINTS:
        assert checkpoint.family in FAMILY_DEFAULTS
        assert (checkpoint.cider is None and checkpoint.bleu_4 is None) == (not checkpoint.source), checkpoint.name
        assert checkpoint.hub_id is None or checkpoint.hub_id.count("/") == 1
        assert checkpoint.hub_id is not None or checkpoint.note


def test_every_family_has_its_defaults() -> None:
    assert set(FAMILIES) <= set(FAMILY_DEFAULTS)


def test_the_list_loads_no_torch() -> None:
    program = "import sys, captrain.models.zoo, captrain.cli.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
