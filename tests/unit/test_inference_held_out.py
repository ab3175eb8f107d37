"""A run's pictures are known again, whatever was done to its data since: what it was trained on is never scored unsaid."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.picture_files import content_key
from captrain.data.samples import Chosen, Joined, Prefixed, exact_keys_of, ids_of, key_of
from captrain.data.splits import EARLIER, FILE, KeptSplits, Rows, mark_of, read_kept_splits, write_kept_splits
from captrain.errors import DataError
from captrain.inference.held_out import pick, sift
from captrain.records import Sample

TRAINED, HELD = "abcdef", "uvwxyz"
"""One letter is one picture, called as it is."""


def picture(name: str, content: str) -> Sample:
    return Sample(name, content.encode(), (f"the letter {content}",))


def kept_in(folder: Path, **splits: str) -> KeptSplits:
    rows = {
        name: Rows(letters, [content_key(letter.encode()) for letter in letters]) for name, letters in splits.items()
    }
    write_kept_splits(folder / FILE, rows)
    found = read_kept_splits(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptSplits:
    return kept_in(tmp_path_factory.mktemp("run"), train=TRAINED, validation=HELD)


def contents(samples: Sequence[Sample]) -> str:
    return "".join(sample.image.decode() for sample in samples if isinstance(sample.image, bytes))


def test_unchanged_data_gives_the_split_and_nothing_to_say(kept: KeptSplits) -> None:
    pool = [picture(letter, letter) for letter in "zaybxcwdveuf"]
    for split, letters in (("validation", HELD), ("train", TRAINED)):
        found, told = pick(kept, split, pool)
        assert contents(found) == letters, "in the order of the split"
        assert told.to_dict() | {"trained_on": 0} == {"split": split, "scored": 6, "held_out": 6, "trained_on": 0}
    assert list(told.warnings()) == [
        "6 of 6 pictures scored were trained on: scores on them say little about new pictures"
    ]


changes = st.lists(
    st.tuples(
        st.sampled_from(["add", "copy", "rename", "remove"]), st.sampled_from(TRAINED + HELD), st.integers(0, 99)
    ),
    max_size=12,
)


@given(changes)
def test_whatever_is_added_copied_renamed_and_removed(kept: KeptSplits, changes: list[tuple[str, str, int]]) -> None:
    """A split is never more than it was, and never has a picture that was trained on."""
    data = {letter: letter for letter in TRAINED + HELD}
    for what, letter, number in changes:
        if what == "add":
            data[f"new-{number}"] = f"another {number}"
        elif letter in data:
            if what in ("copy", "rename"):
                data[f"{letter}-{number}"] = letter
            if what in ("remove", "rename"):
                del data[letter]
    pool = [picture(name, content) for name, content in sorted(data.items())]
    found, told = pick(kept, "validation", pool)
    there = set(data.values()).intersection(HELD)
    assert sorted(contents(found)) == sorted(there)
    assert (told.scored, told.gone) == (len(there), len(HELD) - len(there))
    assert told.renamed == sum(letter not in data for letter in there)
    assert told.trained_on == told.changed == told.left_out == 0
    unknown = sum(len(name) > 1 for name in data)
    assert told.new + told.copies + told.renamed == unknown


def test_a_copy_is_not_scored_when_a_picture_is_gone(kept: KeptSplits) -> None:
    pool = [picture(name, content) for name, content in {"u": "u", "a2": "a", "v2": "v", "n": "new"}.items()]
    found, told = pick(kept, "validation", pool)
    assert contents(found) == "uv"
    assert (told.renamed, told.copies, told.new, told.gone, told.first_gone) == (1, 1, 1, 4, "w")
    assert [remark.split(":")[0] for remark in told.warnings()] == [
        "4 of 6 validation pictures of the run are not there any more, or have no caption (first",
        "1 have another name than in training; their content tells them",
    ]


def test_a_held_out_name_with_a_trained_picture_behind_it(kept: KeptSplits) -> None:
    found, told = pick(kept, "validation", [picture("u", "a"), picture("v", "other"), picture("w", "w")])
    assert [sample.id for sample in found] == ["v", "w"]
    assert (told.left_out, told.changed, told.trained_on) == (1, 1, 0)


def test_a_picture_in_both_splits_is_scored_and_told(tmp_path: Path) -> None:
    kept = kept_in(tmp_path, train="ab", validation="bc")
    found, told = pick(kept, "validation", [picture(letter, letter) for letter in "abc"])
    assert contents(found) == "bc"
    assert told.trained_on == 1


def test_other_captions_are_told(tmp_path: Path) -> None:
    marks = [mark_of(("the letter u",)), mark_of(("another",))]
    write_kept_splits(tmp_path / FILE, {"train": Rows("ab"), "validation": Rows("uv", None, marks)})
    kept = read_kept_splits(tmp_path)
    assert kept is not None
    _, told = pick(kept, "validation", [picture(letter, letter) for letter in "abvu"])
    assert told.recaptioned == 1
    assert list(told.warnings()) == ["1 have other captions than in training, by which they are scored now"]


def test_equal_names_in_another_data_set_are_other_pictures(kept: KeptSplits) -> None:
    found, told = pick(kept, "validation", [picture("a", "u"), picture("v", "v")], comparable=False)
    assert contents(found) == "uv"
    assert (told.renamed, told.trained_on) == (1, 0)


def test_what_was_trained_on_is_told_in_other_data(kept: KeptSplits) -> None:
    pool = [picture("1", "a"), picture("2", "new"), picture("a", "newer")]
    for by_id, trained_on in ((False, 1), (True, 2)):
        found, told = sift(kept, "validation", pool, by_id, whole=True)
        assert (len(found), told.to_dict()) == (3, {"scored": 3, "trained_on": trained_on})


def test_what_cannot_be_compared_is_told(kept: KeptSplits) -> None:
    """Features of a store that does not know its pictures, say."""

    class Elsewhere:
        def read(self) -> bytes:
            raise OSError("holds no pictures")

    _, told = sift(kept, "validation", [Sample("1", Elsewhere()), Sample("2", Elsewhere())], by_id=False, whole=True)
    assert (told.unknown, told.trained_on) == (2, 0)
    assert "whether 2 of 2 pictures were trained on is not known" in next(told.warnings())


def test_the_same_data_in_another_place(kept: KeptSplits) -> None:
    pool = [picture(f"moved/{letter}", letter) for letter in "abuvn"]
    found, told = sift(kept, "validation", pool, by_id=False, whole=True)
    assert contents(found) == "uv"
    assert (told.new, told.gone) == (1, 4)
    found, told = sift(kept, "validation", pool, by_id=False, whole=False)
    assert (contents(found), told.trained_on) == ("abuvn", 2), "a split that the data names"


def test_what_was_trained_on_earlier_is_known_by_content(tmp_path: Path) -> None:
    kept = kept_in(tmp_path, train="a", validation="uv", **{EARLIER: "xyu"})
    _, told = pick(kept, "validation", [picture(letter, letter) for letter in "auv"])
    assert told.trained_on == 1
    _, told = sift(kept, "validation", [picture("a", "new"), picture("2", "x")], by_id=False, whole=True)
    assert told.trained_on == 1
    found, told = sift(kept, "validation", [picture(f"moved/{name}", name) for name in "auv"], by_id=False, whole=True)
    assert (contents(found), told.left_out) == ("v", 1)
    assert list(told.remarks()) == [
        "1 pictures that were held out have the content of one that was trained on, and are not scored"
    ]


def test_the_file_comes_back_and_has_the_same_bytes(tmp_path: Path) -> None:
    ids = [f"{number} 猫 \udc80.jpg" for number in range(12_001)]
    rows = {"train": Rows(ids), "validation": Rows(["a"], [""], [7]), "test": Rows([])}
    write_kept_splits(tmp_path / FILE, rows)
    first = (tmp_path / FILE).read_bytes()
    found = read_kept_splits(tmp_path)
    assert found is not None
    assert found.part("train").keys.tolist() == [key_of(id) for id in ids]
    assert not found.part("train").contents.any()
    assert found.part("validation").captions.tolist() == [7]
    assert (found.part("validation").ids, len(found.part("test")), len(found.part("other"))) == (["a"], 0, 0)
    write_kept_splits(tmp_path / FILE, rows)
    assert (tmp_path / FILE).read_bytes() == first


CUT = gzip.compress(b"x", mtime=0)[:-9]


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"[1]", mtime=0), gzip.compress(b'{"split": "train"}', mtime=0), CUT]
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"splits.jsonl.gz: can't be read as the splits of a run"):
        read_kept_splits(tmp_path)


def test_ids_and_keys_of_sequences_in_sequences() -> None:
    pictures = [picture(letter, letter) for letter in "abcd"]
    samples = Joined([Prefixed("one/", Chosen(pictures, np.array([3, 1]))), Chosen(pictures, np.array([0, 2]))])
    assert list(ids_of(samples)) == [sample.id for sample in samples] == ["one/d", "one/b", "a", "c"]
    assert exact_keys_of(samples).tolist() == [key_of(sample.id) for sample in samples]
