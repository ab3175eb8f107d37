"""What captrain remembers of the captions that it wrote: which stand as they were written, and which are a person's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data.check.check import check_data
from captrain.data.convert import convert
from captrain.data.dataset import read_splits
from captrain.data.machine_captions import CaptionChange, CaptionLedger, CaptionMaker, How
from captrain.data.read_options import ReadOptions
from captrain.data.readers.sidecar import read
from captrain.data.recipe_data import load_recipe_data, tell_machine_captions
from captrain.data.text_encoding import lines_of
from captrain.errors import DataError
from captrain.inference.evaluation_data import EvaluationData, choose_samples
from captrain.records import Rejects
from captrain.settings.schema import DataSettings

ALBUM = CaptionMaker("runs/album", "aaaaaaaaaaaa", "2026-11-30T10:00:00Z")
OTHER = CaptionMaker("runs/other", "bbbbbbbbbbbb", "2026-12-01T10:00:00Z")


def written(folder: Path, caption: str, how: How = "write", maker: CaptionMaker = ALBUM, stop: str = "") -> None:
    """What `caption` does to a.txt; it may be killed before the change, or after it."""
    path = folder / "a.txt"
    before = path.read_bytes() if path.exists() else None
    CaptionLedger(folder).add(CaptionChange.of("a.txt", "a.jpg", how, caption, before, maker))
    if stop != "before":
        old = (before or b"").decode().strip()
        lines = {"write": [caption], "append": [old, caption], "prepend": [caption, old]}[how]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def makers(folder: Path) -> list[tuple[str, str]]:
    content = (folder / "a.txt").read_bytes()
    lines = lines_of(content.decode())
    return [
        (line, maker.partition(" ")[0])
        for line, maker in zip(lines, CaptionLedger(folder).makers("a.txt", content, lines), strict=True)
    ]


def holds(folder: Path, maker: CaptionMaker = ALBUM) -> bool:
    content = (folder / "a.txt").read_bytes()
    return CaptionLedger(folder).holds("a.txt", content, lines_of(content.decode()), maker)


def test_only_the_line_that_a_machine_added_is_a_machines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine\n")
    written(tmp_path, "a dog", "append")
    written(tmp_path, "a hound", "prepend", OTHER)
    assert makers(tmp_path) == [("a hound", "runs/other"), ("mine", ""), ("a dog", "runs/album")]
    assert holds(tmp_path) and holds(tmp_path, OTHER)


def test_an_edited_caption_is_the_persons(tmp_path: Path) -> None:
    written(tmp_path, "a dog")
    assert makers(tmp_path) == [("a dog", "runs/album")]
    (tmp_path / "a.txt").write_text("a brown dog\n")
    assert makers(tmp_path) == [("a brown dog", "")]
    assert not holds(tmp_path)
    (tmp_path / "a.txt").write_text("a brown dog\r\n  a dog  \r\n", newline="")
    assert makers(tmp_path) == [("a brown dog", ""), ("a dog", "runs/album")]


def test_of_two_equal_lines_the_persons_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n")
    written(tmp_path, "a dog", "append")
    assert makers(tmp_path) == [("a dog", ""), ("a dog", "runs/album")]


def test_a_change_that_was_not_made_or_was_undone_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n")
    written(tmp_path, "a dog", "append", stop="before")
    assert makers(tmp_path) == [("a dog", "")]
    assert not holds(tmp_path)
    written(tmp_path, "a dog", "append")
    written(tmp_path, "a cat", "write", OTHER)
    (tmp_path / "a.txt").write_text("a dog\n")  # as it was before all of it
    assert makers(tmp_path) == [("a dog", "")]


def test_a_file_that_was_written_anew_has_the_new_captions_only(tmp_path: Path) -> None:
    written(tmp_path, "a dog")
    written(tmp_path, "a cat", "write", OTHER)
    assert makers(tmp_path) == [("a cat", "runs/other")]
    assert not holds(tmp_path)
    (tmp_path / "a.txt").write_text("a cat\na dog\n")  # the person's words, whatever stood there once
    assert makers(tmp_path) == [("a cat", "runs/other"), ("a dog", "")]


def test_what_was_there_before_can_be_had_again(tmp_path: Path) -> None:
    for content in (None, b"", b"\xef\xbb\xbfmine\r\n", b"caf\xe9\n"):
        change = CaptionChange.of("a.txt", "a.jpg", "write", "a dog", content, ALBUM)
        kept = change.before
        if isinstance(kept, dict):
            import base64

            assert base64.b64decode(kept["base64"]) == content
        else:
            assert (None if kept is None else kept.encode()) == content


def test_half_a_line_and_other_lines_are_passed_over(tmp_path: Path) -> None:
    written(tmp_path, "a dog")
    path = tmp_path / ".captrain" / "captions.jsonl"
    path.write_bytes(
        b'[1]\n{"file": 3}\n' + b"[" * 100_000 + b"\n\xff\n" + path.read_bytes() + b'{"file": "a.txt", "pic'
    )
    written(tmp_path, "a cat", "append")
    assert makers(tmp_path) == [("a dog", "runs/album"), ("a cat", "runs/album")]


def test_it_is_copied_with_the_folder_and_read_by_any_form_of_a_name(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"")
    written(photos, "a dog")
    shutil.copytree(photos, tmp_path / "copy")
    rejects = Rejects()
    (samples,) = read(str(tmp_path / "copy"), rejects).values()
    assert samples[0].machine == ("runs/album aaaaaaaaaaaa 2026-11-30",)
    assert rejects.remarks == [
        {
            "id": "a.jpg",
            "where": str(tmp_path / "copy/a.jpg"),
            "reason": "has a caption that captrain wrote (runs/album aaaaaaaaaaaa 2026-11-30)",
            "problem": "machine-made",
        }
    ]
    content = CaptionLedger(photos).changes["a.txt"][0]
    CaptionLedger(photos).add(CaptionChange.of("e\u0301.txt", "e\u0301.jpg", "write", content.caption, None, ALBUM))
    assert CaptionLedger(photos).makers("é.txt", b"a dog\n", ["a dog"]) == (str(ALBUM),)


def test_a_reader_leaves_them_out_when_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    (tmp_path / "b.txt").write_text("mine\n")
    written(tmp_path, "a dog")
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects, ReadOptions(machine_captions=False)).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("b.jpg", ("mine",))]
    assert (len(rejects), rejects.remarked("machine-made")) == (0, 1)
    (samples,) = read(str(tmp_path), Rejects(), ReadOptions(machine_captions=False), captioned=False).values()
    assert [sample.captions for sample in samples] == [(), ("mine",)]


captions = st.text(st.sampled_from("ab é"), min_size=1, max_size=3).map(str.strip).filter(bool)
changes = st.tuples(st.sampled_from(("write", "append", "prepend")), captions, st.sampled_from((ALBUM, OTHER)))


@settings(max_examples=100, deadline=None)
@given(mine=st.lists(captions, max_size=3), made=st.lists(changes, min_size=1, max_size=4))
def test_as_many_lines_are_a_machines_as_it_added(tmp_path_factory, mine: list[str], made: list) -> None:  # type: ignore[no-untyped-def,type-arg]
    folder = tmp_path_factory.mktemp("photos")
    if mine:
        (folder / "a.txt").write_text("\n".join(mine) + "\n", encoding="utf-8")
    states = [(folder / "a.txt").read_bytes() if mine else b""]
    by_machine, person = 0, len(mine)
    for how, caption, maker in made:
        how = how if (folder / "a.txt").exists() else "write"
        written(folder, caption, how, maker)
        by_machine, person = (1, 0) if how == "write" else (by_machine + 1, person)
        states.append((folder / "a.txt").read_bytes())
    if len(set(states)) == len(states):  # else a change was undone by a later one
        assert sum(bool(maker) for _, maker in makers(folder)) == by_machine
        assert len(makers(folder)) == by_machine + person


def sample_captions(folder: Path, machine_captions: bool = True) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    splits = read_splits(str(folder), Rejects(), options=ReadOptions(machine_captions=machine_captions))
    return {sample.id[-5:]: (sample.captions, sample.machine) for samples in splits.values() for sample in samples}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.jpg with a machine's caption, b.jpg with a person's, c.jpg with both."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (80, 80), (50 * number, 9, 9)).save(folder / f"{name}.jpg")
    (folder / "b.txt").write_text("mine\n")
    (folder / "c.txt").write_text("mine too\na cat\n")
    written(folder, "a dog")
    CaptionLedger(folder).add(CaptionChange.of("c.txt", "c.jpg", "append", "a cat", b"mine too\n", OTHER))
    return folder


BY = {"a.jpg": (str(ALBUM),), "b.jpg": (), "c.jpg": ("", str(OTHER))}
SAID = {"a.jpg": ("a dog",), "b.jpg": ("mine",), "c.jpg": ("mine too", "a cat")}


@pytest.mark.parametrize("form", ["metadata-jsonl", "sidecar", "kohya"])
def test_forms_that_can_carry_who_wrote_a_caption(photos: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    convert(str(photos), photos.parent / "out", form)
    most = 1 if form == "kohya" else 2
    wanted = {name: (SAID[name][:most], BY[name][:most] if any(BY[name][:most]) else ()) for name in SAID}
    assert sample_captions(photos.parent / "out") == wanted
    assert "as a person's" not in caplog.text
    left = {
        name: tuple(text for text, by in zip(SAID[name], BY[name] or [""], strict=False) if not by) for name in SAID
    }
    found = sample_captions(photos.parent / "out", machine_captions=False)
    assert found == {name: (captions, ()) for name, captions in left.items() if captions}


@pytest.mark.parametrize("form", ["coco", "csv", "parquet", "webdataset"])
def test_other_forms_say_that_it_is_lost(photos: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    convert(str(photos), photos.parent / "out", form)
    assert "captrain wrote 2 captions of 2 images: there they count as a person's" in caplog.text


def test_a_set_of_persons_captions_is_written_as_ever(photos: Path) -> None:
    for name in ("a", "c"):
        (photos / f"{name}.txt").unlink()
    convert(str(photos), photos.parent / "out", "metadata-jsonl")
    assert (photos.parent / "out/metadata.jsonl").read_text() == '{"file_name": "b.jpg", "text": "mine"}\n'


def test_a_file_of_captions_is_known_as_a_machines_when_it_is_data(photos: Path) -> None:
    lines = [
        {"id": "a.jpg", "text": "a dog", "image": str(photos / "a.jpg"), "written_by": f"captrain {ALBUM}"},
        {"id": "b.jpg", "text": "mine", "image": str(photos / "b.jpg"), "written_by": "Ada"},
    ]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rejects = Rejects()
    (samples,) = read_splits(str(photos), rejects, options=ReadOptions(machine_captions=False)).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("b.jpg", ("mine",))]
    assert (len(rejects), rejects.remarked("machine-made")) == (0, 1)
    assert sample_captions(photos)["a.jpg"] == (("a dog",), (str(ALBUM),))


def test_training_leaves_them_out_unless_it_is_told_otherwise(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = DataSettings(validation_share=0.0)
    splits = load_recipe_data(data, 0, str(photos))
    tell_machine_captions(splits, data)
    assert [sample.captions for sample in splits.train] == [("mine",), ("mine too",)]
    assert not splits.rejects.lines
    assert "captions that captrain wrote, of 2 pictures, are left out; --learn-from-machine-captions" in caplog.text
    told = DataSettings(validation_share=0.0, learn_from_machine_captions=True)
    splits = load_recipe_data(told, 0, str(photos))
    assert [sample.captions for sample in splits.train] == list(SAID.values())


def test_an_evaluation_has_no_machine_for_a_reference(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples, rejects, _ = choose_samples(
        "no-run", EvaluationData(str(photos), options=ReadOptions(caption_lines="whole"))
    )
    assert [sample.captions for sample in samples] == [("mine",), ("mine too",)]
    assert "captions that captrain wrote, of 2 pictures, do not count as references" in caplog.text
    assert not rejects.lines


def test_the_check_counts_them(photos: Path) -> None:
    checked = check_data(str(photos))
    assert checked.to_dict()["problems"]["machine-made"]["count"] == 2
    assert checked.wrong == 0


def test_nothing_but_a_machines_captions_is_said_so(photos: Path) -> None:
    for name in ("b", "c"):
        (photos / f"{name}.jpg").unlink()
        (photos / f"{name}.txt").unlink()
    with pytest.raises(DataError, match="1 images have captions that captrain wrote, which do not count here"):
        load_recipe_data(DataSettings(), 0, str(photos))


def test_a_table_of_nothing_but_a_machines_captions_is_said_so(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"file_name": "a.jpg", "text": "a dog", "written_by": f"captrain {ALBUM}"}
    (photos / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="nothing to use"):
        load_recipe_data(DataSettings(), 0, str(photos))
    assert "captrain wrote all its captions, which count with --learn-from-machine-captions" in caplog.text


def test_a_change_that_was_noted_and_not_made_is_noted_once(tmp_path: Path) -> None:
    """A command that is killed between the two, and half way through the next note, leaves nothing more when it is repeated."""
    ledger = tmp_path / ".captrain" / "captions.jsonl"
    written(tmp_path, "a dog", stop="before")
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"file": "b.txt", "pic')
    written(tmp_path, "a dog", maker=replace(ALBUM, date="2026-12-02T10:00:00Z"))
    assert ledger.read_bytes().startswith(whole)
    assert makers(tmp_path) == [("a dog", "runs/album")]
    written(tmp_path, "a cat", "append")
    assert [json.loads(line)["caption"] for line in ledger.read_bytes().splitlines()] == ["a dog", "a cat"]
