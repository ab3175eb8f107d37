"""`captrain.load` prints nothing, and what it gives shows itself on one line."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contexts import quietly
from captrain.models.lora import LoraOptions, add_lora
from captrain.testing import TINY_CAPTIONERS, tiny_photos

CODE = """
import sys, captrain
lines = []
for name in sys.argv[2:]:
    captioner = captrain.load(name)
    captioner(sys.argv[1])
    lines.append(repr(captioner))
print("shown:", *lines, sep="\\n")
"""


def test_nothing_is_printed_for_any_family(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """In a fresh process, with all warnings on, while loading and while the first caption is written."""
    captioner = load_captioner(str(tiny_folders["blip"]))
    add_lora(captioner, LoraOptions(4, 8, 0.0, ("language",)))
    save_captioner(captioner, tmp_path / "adapter")
    picture = next(tiny_photos(tmp_path / "photos", count=1).glob("*.png"))
    words = [str(picture), *map(str, tiny_folders.values()), str(tmp_path / "adapter")]
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", CODE, *words], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    first, *shown = result.stdout.splitlines()
    assert first == "shown:"
    line = r"<captioner: ([a-z0-9-]+), [\d.]+ M weights, \w+(:\d+)?, (bf16|fp32)(, adapter of rank 4)?>"
    found = [re.fullmatch(line, words) for words in shown]
    assert all(found), shown
    assert [match and match[1] for match in found] == [*TINY_CAPTIONERS, "blip"]
    assert [bool(match and match[4]) for match in found] == [False] * len(TINY_CAPTIONERS) + [True]


def test_the_libraries_speak_again_afterwards() -> None:
    logger = logging.getLogger("transformers")
    before = logger.level
    with pytest.warns(FutureWarning, match="later"):
        with quietly():
            warnings.warn("now", FutureWarning, stacklevel=1)
            assert not logger.isEnabledFor(logging.WARNING)
        warnings.warn("later", FutureWarning, stacklevel=1)
    assert logger.level == before
