"""Small data sets met in the wild, each read through the command line: what they give, what is said, the exit code.

They lie in `cases/` of the folder of real inputs, with `cases.json` that says what each must give; without it all skip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from run_tools import Cli, Result

_CASES = Path(os.environ.get("CAPTRAIN_SHARED", Path(__file__).parents[3] / "shared")) / "cases"
_LISTED: dict[str, dict[str, Any]] = (
    json.loads((_CASES / "cases.json").read_text(encoding="utf-8")) if (_CASES / "cases.json").is_file() else {}
)
_DATA = [name for name, case in _LISTED.items() if case["kind"] == "data"]
_SCORES = [name for name, case in _LISTED.items() if case["kind"] == "score"]

_SAID_BY_CHECK = {  # what a check says of a case beside its `says`, which are about a conversion
    "one-caption-column": "without a caption",
    "short-row": "rows of a table that are broken",
    "vizwiz": "is_rejected",
    "encodings": r"d\.txt",
    "text-that-is-none": "without a caption",
    "missing-pictures": "image-root",
    "pictures-in-a-zip": "zip",
    "foreign-paths": "matched below",
    "conversations": "answers are captions",
}


def _copied(name: str, folder: Path) -> Path:
    """The data of a case, where nothing else lies."""
    shutil.copytree(_CASES / name, folder / "in")
    return folder / "in"


def _said(result: Result, *folders: Path) -> str:
    """All that is printed, and what the lists of rejects in folders say."""
    lists = [file for folder in folders if folder.is_dir() for file in folder.glob("*reject*") if file.is_file()]
    return result.out + result.err + "".join(file.read_text(encoding="utf-8", errors="replace") for file in lists)


def _captions(folder: Path) -> dict[str, list[str]]:
    """A picture's base name → its captions, over all splits of a written data set."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.jsonl")):
        if "reject" in file.name:
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts = row.get("captions") or row.get("text") or []
            name = _normal(PurePosixPath(row["file_name"]).name)
            found.setdefault(name, []).extend([texts] if isinstance(texts, str) else texts)
    return found


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@pytest.mark.skipif(not _DATA, reason="the small data sets are not on this machine: CAPTRAIN_SHARED says where")
@pytest.mark.parametrize("name", _DATA)
def test_a_case_converts(name: str, cli: Cli, tmp_path: Path) -> None:
    case, out = _LISTED[name], tmp_path / "out"
    source = _copied(name, tmp_path) / case["data"]
    done = cli("data", "convert", source, out, "--to metadata-jsonl", *case["flags"])
    said = _said(done, out, tmp_path)
    assert done.code in case["exit"], said
    if case["captions"] is not None:
        assert _captions(out) == {_normal(picture): texts for picture, texts in case["captions"].items()}, said
    for words in case["says"]:
        assert re.search(words, said, re.IGNORECASE), said
    assert "Traceback" not in said and "did not expect" not in said


@pytest.mark.skipif(not _DATA, reason="the small data sets are not on this machine: CAPTRAIN_SHARED says where")
@pytest.mark.parametrize("name", _DATA)
def test_a_check_says_what_is_wrong_with_a_case(name: str, cli: Cli, tmp_path: Path) -> None:
    case = _LISTED[name]
    source = _copied(name, tmp_path) / case["data"]
    done = cli("data", "check", source, *case["flags"])
    said = _said(done, tmp_path)
    assert done.code in (0, 2, 3), said
    assert "Traceback" not in said and "did not expect" not in said
    assert re.search(_SAID_BY_CHECK.get(name, "."), said, re.IGNORECASE), said
    if case["captions"] is not None:
        assert re.search(rf"^images +{len(case['captions'])}\b", done.out, re.MULTILINE), said


@pytest.mark.skipif(not _SCORES, reason="the small data sets are not on this machine: CAPTRAIN_SHARED says where")
@pytest.mark.parametrize("name", _SCORES)
def test_a_case_scores_as_perfect(name: str, cli: Cli, tmp_path: Path) -> None:
    folder = _copied(name, tmp_path)
    predictions, references = _LISTED[name]["data"].split()
    done = cli("score", folder / predictions, folder / references, "--json", *_LISTED[name]["flags"])
    assert done.code in _LISTED[name]["exit"], done.err
    assert json.loads(done.out)["scores"]["bleu_4"] == pytest.approx(1)
