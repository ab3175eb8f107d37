"""The alarm for captions that are all alike or never end: it rings for these, and for nothing that is alive."""

from __future__ import annotations

import pytest

from captrain.records import Caption
from captrain.training.run_folder.logbook import collapse


def written(texts: list[str], references: list[str] | None = None) -> list[Caption]:
    """Captions with one reference each, all different unless given."""
    known = references or [f"what a person said of picture {number}" for number in range(len(texts))]
    return [
        Caption(str(number), text, references=(reference,))
        for number, (text, reference) in enumerate(zip(texts, known, strict=True))
    ]


def test_one_caption_for_nearly_all_rings_and_names_it() -> None:
    line = collapse(written(["a man in a shirt"] * 17 + ["a dog", "a cat", "a bird"]), cut_off=0)
    assert line is not None
    assert line.startswith("captions collapse: 17 of 20 pictures get the caption 'a man in a shirt'. ")
    assert "--learning-rate" in line
    assert "\n" not in line


def test_no_words_at_all_are_named_so() -> None:
    line = collapse(written([""] * 20), cut_off=0)
    assert line is not None
    assert "20 of 20 pictures get no words at all" in line


def test_two_captions_for_hundreds_of_pictures_ring() -> None:
    line = collapse(written(["a dog", "a cat"] * 100), cut_off=0)
    assert line is not None
    assert "200 pictures get only 2 different captions" in line


@pytest.mark.parametrize(
    "texts",
    [
        [f"caption {number % 10}" for number in range(100)],  # poor, but not collapsed
        ["the same"] * 9,  # too few to tell
        ["the same"] * 15 + [f"other {number}" for number in range(5)],
        [],
    ],
)
def test_what_is_alive_or_too_little_does_not_ring(texts: list[str]) -> None:
    assert collapse(written(texts), cut_off=0) is None


def test_captions_may_be_alike_where_references_are() -> None:
    assert collapse(written(["a chest x-ray"] * 50, ["a chest x-ray, front"] * 50), cut_off=0) is None
    assert collapse(written(["a", "b"] * 100, ["front", "side"] * 100), cut_off=0) is None


def test_captions_without_references_are_judged_all_the_same() -> None:
    assert collapse([Caption(str(number), "a dog") for number in range(20)], cut_off=0) is not None


@pytest.mark.parametrize(("cut_off", "rings"), [(20, True), (18, True), (17, False), (0, False)])
def test_captions_that_never_end_ring(cut_off: int, rings: bool) -> None:
    line = collapse(written([f"and so on {number}" for number in range(20)]), cut_off)
    assert (line is not None) == rings
    if line is not None:
        assert f"{cut_off} of 20 were cut off at --max-new-tokens" in line


def test_captions_that_the_positions_cut_off_do_not_blame_a_flag() -> None:
    captions = [Caption(str(number), "a dog a dog", references=("a dog",)) for number in range(20)]
    told = collapse(
        captions, 20, "the decoder of this blip captioner holds 64 positions, of which start and prompt take 1"
    )
    assert told is not None
    assert told.startswith(
        "captions do not end: 20 of 20 were cut off at the end of the decoder's positions (the decoder of this blip captioner "
        "holds 64 positions, of which start and prompt take 1). If your captions are longer than that, take a model with more"
    )
    assert "--max-new-tokens" not in told
    assert "at --max-new-tokens" in str(collapse(captions, 20))
