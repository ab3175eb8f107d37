"""Sources of captions, and the folder that holds finished parts: what is in it, what is refused, how it becomes one file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captrain.data.convert import FormOptions, convert
from captrain.data.dataset import list_images
from captrain.data.samples import key_of
from captrain.errors import DataError
from captrain.features.sources import End
from captrain.inference.caption_files import CaptionLines
from captrain.inference.caption_parts import caption_sources
from captrain.inference.parts_folder import ABOUT, CaptionPart, CaptionPartNote, PartsFolder, check_same_settings
from captrain.records import Rejects, Sample, write_jsonl
from captrain.testing import tiny_photos

ABOUT_IT: dict[str, Any] = {
    "model": "runs/a", "weights": "0123456789abcdef", "decoding": {"beams": 3, "sample": False}, "prompt": "",
    "preparation": {"height": 32}, "precision": "fp32", "part_images": 512,
}  # fmt: skip


def part(name: str, *ids: str, rejects: tuple[str, ...] = (), last: bool = False) -> CaptionPart:
    listed = Rejects()
    for one in rejects:
        listed.add(one, one, "is empty")
    lines = [{"id": one, "text": "schöne\u2028Katze"} for one in ids]
    return CaptionPart(CaptionPartNote(name, "a.tar", "f", int(name[-3:]), last, len(ids), len(listed)), lines, listed)


@pytest.fixture
def parts(tmp_path: Path) -> PartsFolder:
    """A folder that was begun."""
    folder = PartsFolder(tmp_path / "out.jsonl")
    folder.begin(ABOUT_IT, from_scratch=False)
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, the same as shards, and shards whose names say splits, in an order that is not theirs."""
    folder = tmp_path_factory.mktemp("data")
    tiny_photos(folder / "photos", count=7)
    convert(str(folder / "photos"), folder / "tars", "webdataset", form=FormOptions(shard_size=3))
    (folder / "split").mkdir()
    shards = sorted((folder / "tars").glob("*.tar"))
    for name, shard in zip(("a-val.tar", "b-train.tar", "c-val.tar"), shards, strict=True):
        (folder / "split" / name).write_bytes(shard.read_bytes())
    return folder


@pytest.mark.parametrize(
    "names", [["photos"], ["tars"], ["split"], ["tars/00001.tar"], ["tars/00001.tar", "tars/00000.tar"],
              ["split", "tars"], ["tars/00002.tar", "photos", "photos/photo-001.png"], ["tars", "tars"]],
)  # fmt: skip
def test_sources_give_the_pictures_of_the_list_in_its_order(photos: Path, names: list[str]) -> None:
    paths = [str(photos / name) for name in names]
    sources = caption_sources(paths, 2, Rejects())
    found = [event for source in sources for event in source.parts(2) if not isinstance(event, End)]
    wanted = list(list_images(paths))
    assert [(sample.id, sample.captions) for sample in found] == [(sample.id, sample.captions) for sample in wanted]
    assert len({source.name for source in sources}) == len(sources)


def test_parts_become_one_file_in_the_order_asked_for(parts: PartsFolder, tmp_path: Path) -> None:
    parts.write(part("b.000", "b1", rejects=("b2",), last=True))
    parts.write(part("a.000", "a1", "a2"))
    parts.write(part("a.001", rejects=("a3", "a4"), last=True))
    again = PartsFolder(tmp_path / "out.jsonl")
    again.begin(ABOUT_IT, from_scratch=False)
    assert again.done == parts.done and again.done["a.001"].rejected == 2
    listed = Rejects([{"id": "first", "where": "x", "reason": "y"}])
    assert again.join(["a.000", "a.001", "b.000"], listed, tmp_path / "rejected.jsonl") == 4
    assert [line["id"] for line in lines_of(tmp_path / "out.jsonl")] == ["a1", "a2", "b1"]
    assert lines_of(tmp_path / "out.jsonl")[0]["text"] == "schöne\u2028Katze"
    assert [line["id"] for line in lines_of(tmp_path / "rejected.jsonl")] == ["first", "a3", "a4", "b2"]
    assert again.join(["a.000"], Rejects(), tmp_path / "rejected.jsonl") == 0
    assert not (tmp_path / "rejected.jsonl").exists(), "a list of an earlier start does not stay"
    again.clear()
    again.leave()
    assert not Path(again.folder.place).exists()


def test_captions_that_were_there_come_first_and_are_known(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    write_jsonl(output, [{"id": "mine", "text": "mine"}])
    folder = PartsFolder(output)
    folder.begin(ABOUT_IT, from_scratch=False)
    assert folder.known().tolist() == [key_of("mine")] and folder.known().dtype == np.uint64
    folder.write(part("a.000", "a1", last=True))
    folder.join(["a.000"], Rejects(), tmp_path / "rejected.jsonl")
    assert [line["id"] for line in lines_of(output)] == ["mine", "a1"]
    folder.join(["a.000"], Rejects(), tmp_path / "rejected.jsonl")
    assert len(lines_of(output)) == 2, "joined again after a kill, nothing comes twice"
    folder.begin(ABOUT_IT, from_scratch=True)
    assert folder.done == {} and folder.known().size == 0


def test_a_removal_that_was_interrupted_is_not_gone_on_with_as_if_it_were_work(parts: PartsFolder) -> None:
    parts.write(part("a.000", "a1", last=True))
    parts.folder.write(ABOUT, [b'{"joined": true}\n'])
    parts.begin({**ABOUT_IT, "weights": "another"}, from_scratch=False)
    assert parts.done == {} and parts.folder.names("") == [ABOUT]


def test_what_captrain_did_not_write_is_left_alone(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "out.jsonl")
    Path(folder.folder.place).mkdir()
    Path(folder.folder.place, "mine.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="holds other files"):
        folder.begin(ABOUT_IT, from_scratch=True)
    assert Path(folder.folder.place, "mine.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize(
    "line", ["", "{}", "[1]", "nonsense", '{"name": "a.000"}', json.dumps({"name": "b.000", "source": "s", "fingerprint": "f",
             "part": 0, "last": True, "captions": 1, "rejected": 0}), '{"captions": "1"}', "x" * 100_000],
)  # fmt: skip
def test_a_part_that_captrain_did_not_write_is_one_clear_line(parts: PartsFolder, line: str) -> None:
    Path(parts.folder.place, "a.000.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"a\.000\.jsonl:1"):
        parts.begin(ABOUT_IT, from_scratch=False)


def test_other_settings_are_refused_by_name() -> None:
    def refusal(**changes: Any) -> str:
        with pytest.raises(DataError) as caught:
            check_same_settings("out.parts", ABOUT_IT, {**ABOUT_IT, **changes})
        return str(caught.value)

    check_same_settings("out.parts", ABOUT_IT, {**ABOUT_IT, "model": "the same, moved"})
    assert "of runs/a (weights 0123456789ab), not of b (weights f)" in refusal(model="b", weights="f")
    assert "beams 3, not 5 and sample False, not True;" in refusal(decoding={"beams": 5, "sample": True})
    assert "prompt '', not 'a photo of';" in refusal(prompt="a photo of")
    assert "part images 512, not 9;" in refusal(part_images=9)


def test_one_file_without_an_engine_begins_anew_only_when_asked(parts: PartsFolder, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="was begun with --engine"):
        CaptionLines(tmp_path / "out.jsonl", "skip")
    target = CaptionLines(tmp_path / "out.jsonl", "overwrite")
    assert target.wants(Sample("a", b""), Rejects())
    assert not Path(parts.folder.place).exists()


def test_a_worker_gets_no_notes_of_other_parts(parts: PartsFolder) -> None:
    parts.write(part("a.000", "a1", last=True))
    sent = pickle.loads(pickle.dumps(parts.empty()))
    assert sent.done == {} and list(parts.done) == ["a.000"]
    assert sent.find("a.000") == parts.done["a.000"] and sent.find("a.001") is None
