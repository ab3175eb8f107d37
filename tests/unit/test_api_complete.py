"""Python does all that the command line does: every command has its function, and the two give the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import captrain
from captrain.api.captioning import CaptionSettings
from captrain.api.settings import GenerationOptions
from captrain.cli import main
from captrain.cli.app import COMMANDS, GROUPS
from captrain.errors import SettingsError, UserError
from captrain.models.decoding import DecodingChanges
from captrain.testing import tiny_photos, tiny_vision_encoder

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "python-api.md"
ROW = re.compile(r"^\| `captrain ([^`]+)` \| `captrain\.([\w.]+)` \|$", re.MULTILINE)


def test_every_command_has_a_function() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    grouped = [f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands]
    assert {command for command, _ in rows} >= {*COMMANDS, *grouped}
    for _, function in rows:
        owner, _, method = function.partition(".")
        assert owner in captrain.__all__
        assert callable(getattr(getattr(captrain, owner), method) if method else getattr(captrain, owner))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photos; the working folder is the one that they are in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tiny_photos(tmp_path / "photos", count=3)


def printed(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints."""
    assert main(["-q", *words.split()]) == 0
    return capsys.readouterr().out


def test_converting_gives_the_same_files(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = captrain.convert(photos, "mine", to="coco", max_side=32, quality=80)
    printed("data convert photos theirs --to coco --max-side 32 --quality 80", capsys)
    assert done.written == {"all": 3} and done.rejects_file is None
    mine, theirs = (
        {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in ("mine", "theirs")
    )
    assert mine == theirs and len(mine) == 4


def test_estimates_and_formats_and_models_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = "openai/clip-vit-large-patch14"
    words = f"estimate coco --encoder {encoder} --device a100 --devices 8 --cores 96 --no-measure --json"
    found = captrain.estimate(encoder, "coco", device="a100", devices=8, cores=96, measure=False)
    assert json.loads(printed(words, capsys)) == found.to_dict()
    assert repr(found).startswith("<EncodingEstimate 'coco': ") and found.binds in repr(found)
    listed = json.loads(printed("models --json", capsys))["models"]
    assert [checkpoint.to_dict() for checkpoint in captrain.zoo()] == listed
    assert all(form.name in printed("data formats", capsys) for form in captrain.formats())


def test_a_check_up_reads_as_the_command(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = captrain.doctor()
    told = json.loads(printed("doctor --json", capsys))
    assert [check["name"] for check in told["checks"]] == [finding.name for finding in found.findings]
    assert found.is_healthy and found["torch"].status == "ok"
    assert f"captrain: {captrain.__version__}" in repr(found)


def test_recipes_are_those_of_the_command(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text("training: {epochs: 7}", encoding="utf-8")
    text = captrain.show_settings("recipe.yaml", rank=4)
    shown = printed("config show --recipe recipe.yaml --rank 4", capsys)
    assert text.replace("# argument", "# flag") + "\n" == shown
    assert "  epochs: 7  # recipe recipe.yaml" in text.splitlines()
    assert json.loads(printed("config schema", capsys)) == captrain.recipe_schema()
    Path("lavis.yaml").write_text("model: {arch: blip_caption, model_type: base_coco}\nrun: {max_epoch: 5, x: 1}")
    done = captrain.import_recipe("lavis.yaml")
    assert str(done) == printed("config import lavis.yaml", capsys) and done.path is None
    written = captrain.import_recipe("lavis.yaml", "new.yaml")
    assert written.path is not None and written.path.read_text() == written.text
    assert "x" in [key.removeprefix("run.") for key, _ in written.notes]


def test_stores_say_what_the_commands_say(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = tiny_vision_encoder(Path("vit"))
    store = captrain.Store(captrain.encode(encoder, photos, "store", vectors="pooled", device="cpu"))
    assert store.info() == json.loads(printed("features info store --json", capsys))
    assert captrain.convert_store(store, "embeddings") == 3
    with pytest.raises(UserError, match="embeddings: does not say which encoder made it; name it: --encoder"):
        captrain.convert_store("embeddings", "back")
    assert captrain.convert_store("embeddings", "back", encoder=encoder) == 3
    assert captrain.merge_stores(["back"], "joined").info()["images"] == 3
    next(Path("store").rglob("*.arrow")).write_bytes(b"")
    assert [problem.file.endswith(".arrow") for problem in store.verify()] == [True]


def test_nothing_is_fetched_without_a_yes(photos: Path) -> None:
    asked: list[Any] = []
    with pytest.raises(UserError, match="nothing was fetched, as the answer was not y"):
        captrain.get("nocaps", annotations_only=True, ask=lambda plan: bool(asked.append(plan)))
    assert asked[0].data_set.licence and asked[0].to_fetch > 0
    assert not Path("nocaps").exists()


def test_ways_of_writing_are_typed_as_the_settings() -> None:
    assert DecodingChanges.__annotations__.keys() == GenerationOptions.__annotations__.keys()
    assert set(DecodingChanges.__annotations__) <= set(CaptionSettings.__annotations__)


def test_a_captioner_refuses_ways_of_writing_that_it_does_not_know(tiny_folders: dict[str, Path]) -> None:
    captioner = captrain.load(tiny_folders["blip"], device="cpu")
    for call in (captioner, captioner.caption, captioner.map):
        given: Any = {"image": ["a.jpg"]} if call == captioner.map else "a.jpg"
        with pytest.raises(SettingsError, match=r"generation setting 'baems' is unknown\. Did you mean 'beams'\?"):
            call(given, baems=5)  # type: ignore[operator]
