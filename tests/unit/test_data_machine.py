"""What captrain remembers of the captions that it wrote: which stand as they were written, and which are a person's."""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.machine import Change, How, Ledger, Maker
from captrain.data.readers.options import ReadOptions
from captrain.data.readers.sidecar import read
from captrain.data.text import lines_of
from captrain.records import Rejects

ALBUM = Maker("runs/album", "aaaaaaaaaaaa", "2026-11-30T10:00:00Z")
OTHER = Maker("runs/other", "bbbbbbbbbbbb", "2026-12-01T10:00:00Z")


def written(folder: Path, caption: str, how: How = "write", maker: Maker = ALBUM, stop: str = "") -> None:
    """What `caption` does to a.txt; it may be killed before the change, or after it."""
    path = folder / "a.txt"
    before = path.read_bytes() if path.exists() else None
    Ledger(folder).add(Change.of("a.txt", "a.jpg", how, caption, before, maker))
    if stop != "before":
        old = (before or b"").decode().strip()
        lines = {"write": [caption], "append": [old, caption], "prepend": [caption, old]}[how]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def makers(folder: Path) -> list[tuple[str, str]]:
    content = (folder / "a.txt").read_bytes()
    lines = lines_of(content.decode())
    return [
        (line, maker.partition(" ")[0])
        for line, maker in zip(lines, Ledger(folder).makers("a.txt", content, lines), strict=True)
    ]


def holds(folder: Path, maker: Maker = ALBUM) -> bool:
    content = (folder / "a.txt").read_bytes()
    return Ledger(folder).holds("a.txt", content, lines_of(content.decode()), maker)


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
        change = Change.of("a.txt", "a.jpg", "write", "a dog", content, ALBUM)
        kept = change.before
        if isinstance(kept, dict):
            import base64

            assert base64.b64decode(kept["base64"]) == content
        else:
            assert (None if kept is None else kept.encode()) == content


def test_half_a_line_and_other_lines_are_passed_over(tmp_path: Path) -> None:
    written(tmp_path, "a dog")
    path = tmp_path / ".captrain" / "captions.jsonl"
    path.write_bytes(b'[1]\n{"file": 3}\n' + path.read_bytes() + b'{"file": "a.txt", "pic')
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
    content = Ledger(photos).changes["a.txt"][0]
    Ledger(photos).add(Change.of("e\u0301.txt", "e\u0301.jpg", "write", content.caption, None, ALBUM))
    assert Ledger(photos).makers("é.txt", b"a dog\n", ["a dog"]) == (str(ALBUM),)


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
