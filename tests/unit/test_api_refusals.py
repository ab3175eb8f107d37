"""What the command line refuses, Python refuses with the same text: a table of wrong calls, made both ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import captrain
from captrain.cli import main
from captrain.errors import DataError, ModelError, RunError, SettingsError, UserError
from captrain.testing import tiny_photos

Call = Callable[[], Any]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with photos, a broken recipe, one that misspells a setting, and captions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_photos(tmp_path / "photos", count=3)
    (tmp_path / "broken.yaml").write_text("training: [")
    (tmp_path / "misspelt.yaml").write_text("training:\n  epohcs: 3\n")
    (tmp_path / "taken.txt").write_text("mine")
    (tmp_path / "captions.json").write_text('{"a": "a dog"}')
    return tmp_path


def in_python(line: str) -> str:
    """A text of the command line as Python says it: names of settings for flags, functions for commands."""

    def name(flag: str) -> str:
        return flag.removeprefix("--").replace("-", "_")

    line = line.strip().removeprefix("error: ")
    line = re.sub(r"^(--[a-z0-9-]+): ", lambda found: f"{name(found[1])}: ", line)
    line = re.sub(r"^unknown flag '(--[a-z-]+)'", lambda found: f"unknown setting '{name(found[1])}'", line)
    line = re.sub(r"Did you mean '(--[a-z-]+)'", lambda found: f"Did you mean '{name(found[1])}'", line)
    line = re.sub(r"See: captrain ((?:data )?\w+) --help", r"See: help(captrain.\1)", line)
    line = re.sub(r" of captrain ((?:data )?\w+)\.", r" of captrain.\1.", line)
    line = re.sub(r"It belongs to: captrain ((?:data )?\w+)\.", r"It belongs to: captrain.\1.", line)
    line = re.sub(r"found '(\d+)'", r"found \1", line)  # on a command line everything is text
    return line.replace("captrain.data ", "captrain.")


T = "photos", "run"
WRONG: list[tuple[str, Call, type[Exception]]] = [
    ("train photos run --rnak 4", lambda: captrain.train(*T, rnak=4), SettingsError),  # type: ignore[call-arg]
    ("train photos run --rank 0", lambda: captrain.train(*T, rank=0), SettingsError),
    ("train photos run --method loar", lambda: captrain.train(*T, method="loar"), SettingsError),  # type: ignore[arg-type]
    ("train photos run --metric cidr", lambda: captrain.train(*T, metric="cidr"), SettingsError),
    ("train photos run --batch-size few", lambda: captrain.train(*T, batch_size="few"), SettingsError),  # type: ignore[arg-type]
    ("train photos run --encoding morse", lambda: captrain.train(*T, encoding="morse"), SettingsError),
    (
        "train photos run --top-p 0.5 --method full --rank 4 --optimizer prodigy --lora-plus 2",
        lambda: captrain.train(*T, top_p=0.5, method="full", rank=4, optimizer="prodigy", lora_plus=2),
        SettingsError,
    ),
    ("train photos run --recipe none.yaml", lambda: captrain.train(*T, "none.yaml"), SettingsError),
    ("train photos run --recipe broken.yaml", lambda: captrain.train(*T, "broken.yaml"), SettingsError),
    ("train photos run --recipe misspelt.yaml", lambda: captrain.train(*T, recipe="misspelt.yaml"), SettingsError),
    ("train phtoos run", lambda: captrain.train("phtoos", "run"), DataError),
    ("train photos run --model ./none", lambda: captrain.train(*T, model="./none"), ModelError),
    ("train photos taken.txt", lambda: captrain.train("photos", "taken.txt"), RunError),
    ("train photos run --resume", lambda: captrain.train(*T, resume=True), RunError),
    ("train photos run --resume --overwrite", lambda: captrain.train(*T, resume=True, overwrite=True), RunError),
    ("train photos run --resume-from 7", lambda: captrain.train(*T, resume_from=7), RunError),
    ("caption ./none photos", lambda: captrain.caption("./none", "photos", beside=True), ModelError),
    (
        "caption ./none photos --output a.csv",
        lambda: captrain.caption("./none", "photos", "a.csv"),
        UserError,
    ),
    (
        "caption ./none photos --output a.jsonl --extension .txt",
        lambda: captrain.caption("./none", "photos", "a.jsonl", extension=".txt"),  # type: ignore[call-overload]
        UserError,
    ),
    (
        "caption ./none photos --devices cuda:0,cuda:1",
        lambda: captrain.caption("./none", "photos", devices=["cuda:0", "cuda:1"]),  # type: ignore[call-overload]
        UserError,
    ),
    (
        "caption ./none photos --min-new-tokens 9 --max-new-tokens 8",
        lambda: captrain.caption("./none", "photos", min_new_tokens=9, max_new_tokens=8),
        SettingsError,
    ),
    ("caption ./none photos --bootstrap 4", lambda: captrain.caption("./none", "photos", bootstrap=4), SettingsError),  # type: ignore[call-overload]
    ("evaluate ./none photos --output s.csv", lambda: captrain.evaluate("./none", "photos", out="s.csv"), UserError),
    ("evaluate ./none photos --beams 0", lambda: captrain.evaluate("./none", "photos", beams=0), SettingsError),
    ("evaluate ./none photos", lambda: captrain.evaluate("./none", "photos"), ModelError),
    ("encode phtoos out --encoder ./none", lambda: captrain.encode("./none", "phtoos", "out"), ModelError),
    ("score none.json captions.json", lambda: captrain.score("none.json", "captions.json"), DataError),
    (
        "score captions.json captions.json --metrics cidr",
        lambda: captrain.score("captions.json", "captions.json", metrics=["cidr"]),
        SettingsError,
    ),
    ("data check phtoos", lambda: captrain.check("phtoos"), DataError),
    ("data check photos --rejects no/list.jsonl", lambda: captrain.check("photos", rejects="no/list.jsonl"), UserError),
    ("data check photos --format tarr", lambda: captrain.check("photos", format="tarr"), DataError),
    ("report phtoos", lambda: captrain.Run("phtoos"), RunError),
    (
        "caption ./none photos --existing skp",
        lambda: captrain.caption("./none", "photos", existing="skp"),
        SettingsError,
    ),  # type: ignore[call-overload]
    (
        "encode photos out --encoder ./none --dtype int4",
        lambda: captrain.encode("./none", *T, dtype="int4"),
        SettingsError,
    ),  # type: ignore[arg-type]
    (
        "encode photos out --encoder ./none --image-size 4",
        lambda: captrain.encode("./none", *T, image_size=4),
        SettingsError,
    ),
    ("evaluate ./none photos --limit 0", lambda: captrain.evaluate("./none", "photos", limit=0), SettingsError),
    ("data check photos --min-edge 0", lambda: captrain.check("photos", min_edge=0), SettingsError),
    ("data convert phtoos new --to coco", lambda: captrain.convert("phtoos", "new", to="coco"), DataError),
    ("data convert photos new --to cooc", lambda: captrain.convert("photos", "new", to="cooc"), SettingsError),  # type: ignore[arg-type]
    (
        "data convert photos new --to coco --quality 101",
        lambda: captrain.convert("photos", "new", to="coco", quality=101),
        SettingsError,
    ),
    (
        "data convert photos new --to coco --images link --max-side 99",
        lambda: captrain.convert("photos", "new", to="coco", images="link", max_side=99),
        SettingsError,
    ),
    (
        "data convert photos new --to coco --qualty 9",
        lambda: captrain.convert("photos", "new", to="coco", qualty=9),  # type: ignore[call-arg]
        SettingsError,
    ),
    ("data compile phtoos", lambda: captrain.compile("phtoos"), DataError),
    ("data compile photos --format coco", lambda: captrain.compile("photos", format="coco"), SettingsError),
    ("data preview photos page.txt", lambda: captrain.preview("photos", "page.txt"), UserError),
    ("data preview photos no/page.html", lambda: captrain.preview("photos", "no/page.html"), UserError),
    ("data preview phtoos page.html", lambda: captrain.preview("phtoos", "page.html"), DataError),
    (
        "data preview photos page.html --limit 0",
        lambda: captrain.preview("photos", "page.html", limit=0),
        SettingsError,
    ),
    ("data get nocaps --from none --yes", lambda: captrain.get("nocaps", local="none"), DataError),
    ("data get nocaps --mirror photos --yes", lambda: captrain.get("nocaps", mirror="photos"), DataError),
    ("data get nocaps --workers 0", lambda: captrain.get("nocaps", workers=0), SettingsError),
    ("estimate photos --encoder ./none", lambda: captrain.estimate("./none", "photos"), ModelError),
    (
        "estimate phtoos --encoder mobilenet-v1-0.75-224",
        lambda: captrain.estimate("mobilenet-v1-0.75-224", "phtoos"),
        DataError,
    ),
    (
        "estimate cc4m --encoder mobilenet-v1-0.75-224",
        lambda: captrain.estimate("mobilenet-v1-0.75-224", "cc4m"),
        UserError,
    ),
    (
        "estimate coco --encoder ./none --device h300",
        lambda: captrain.estimate("./none", "coco", device="h300"),
        SettingsError,
    ),  # type: ignore[arg-type]
    (
        "estimate coco --encoder ./none --network 0",
        lambda: captrain.estimate("./none", "coco", network=0.0),
        SettingsError,
    ),
    ("export ./none new", lambda: captrain.export("./none", "new"), ModelError),
    ("export photos taken.txt", lambda: captrain.export("photos", "taken.txt"), ModelError),
    ("export photos new --dtype fp61", lambda: captrain.export("photos", "new", dtype="fp61"), SettingsError),  # type: ignore[arg-type]
    ("push ./none ada/cats", lambda: captrain.push("./none", "ada/cats"), ModelError),
    ("features info photos", lambda: captrain.Store("photos"), DataError),
    ("features merge new photos", lambda: captrain.merge_stores(["photos"], "new"), DataError),
    ("features convert photos new", lambda: captrain.convert_store("photos", "new"), DataError),
    ("config show --rank 0", lambda: captrain.show_settings(rank=0), SettingsError),
    ("config show --recipe none.yaml", lambda: captrain.show_settings("none.yaml"), SettingsError),
    ("config import broken.yaml", lambda: captrain.import_recipe("broken.yaml"), SettingsError),
    ("config import broken.yaml taken.txt", lambda: captrain.import_recipe("broken.yaml", "taken.txt"), SettingsError),
]


@pytest.mark.parametrize(("words", "call", "kind"), WRONG, ids=[words for words, _, _ in WRONG])
def test_both_say_the_same(words: str, call: Call, kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(kind) as refused:
        call()
    assert str(refused.value) == in_python(told)
    assert not Path("run").exists(), "nothing was begun"


def test_a_setting_of_another_function_is_named_with_its_owner() -> None:
    with pytest.raises(
        SettingsError, match=r"'extension' of captrain.train. It belongs to: captrain.caption. See: help"
    ):
        captrain.train("photos", "run", extension=".txt")  # type: ignore[call-arg]


def test_what_only_python_takes_is_checked_too() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"metrics": {"cider": len}}, "metrics: 'cider' is a name of captrain's own"),
        ({"metrics": {"my metric": len}}, "metrics: found the name 'my metric', expected a word"),
        ({"metrics": {"length": 3}}, "metrics: found 3 for 'length', expected a function"),
        ({"metrics": {"length": len}, "metric": "lenght"}, "metric: found 'lenght', expected 'cider'"),
        ({"callbacks": [3]}, "callbacks: found 3, expected a captrain.Callback"),
    ]
    for given, message in refused:
        with pytest.raises(SettingsError, match=re.escape(message)):
            captrain.train("photos", "run", **given)
    with pytest.raises(UserError, match="data is None; without data a recipe has to name its sources"):
        captrain.train(None, "run")
