"""By which columns the images of predictions and references are matched, and the columns that a person names."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from captrain.errors import DataError
from captrain.inference.score import ScoreOptions, score, score_systems

TEXTS = {f"{number}.jpg": f"a {animal} runs over the {place} today" for number, (animal, place) in enumerate(
    [("dog", "grass"), ("cat", "roof"), ("horse", "field"), ("bird", "sand")], start=1)}  # fmt: skip


def predictions(folder: Path, **columns: str) -> Path:
    """A line a picture; `columns` say what each column holds: name, stem or row."""
    lines = []
    for row, (name, text) in enumerate(TEXTS.items(), start=1):
        kinds = {"name": name, "stem": name.removesuffix(".jpg"), "row": row, "path": f"photos/{name}"}
        lines.append(json.dumps({column: kinds[kind] for column, kind in columns.items()} | {"text": text}))
    (folder / "p.jsonl").write_text("\n".join(lines))
    return folder / "p.jsonl"


def references(folder: Path, header: str = "id,file_name,caption") -> Path:
    """A table whose rows are in another order than the predictions', so that its row numbers lie."""
    names = sorted(TEXTS)
    random.Random(1).shuffle(names)
    assert names != sorted(TEXTS)
    (folder / "r.csv").write_text(
        header + "\n" + "".join(f"{n},{name},{TEXTS[name]}\n" for n, name in enumerate(names, 1))
    )
    return folder / "r.csv"


@pytest.mark.parametrize(
    "columns", [{"id": "name"}, {"id": "row", "file_name": "name"}, {"image": "path"}, {"id": "stem"}, {"id": "path"}]
)
def test_a_file_name_wins_over_a_row_number(tmp_path: Path, columns: dict[str, str]) -> None:
    found = score(predictions(tmp_path, **columns), references(tmp_path), metrics=["bleu_4"], bootstrap=0)
    assert found.scores["bleu_4"] == pytest.approx(1)
    assert any("'file_name'" in note for note in found.notes)


def test_an_id_that_both_files_have_is_used(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        "".join(json.dumps({"image_id": n + 7, "file_name": f"x{n}.jpg", "text": text}) + "\n"
                for n, text in enumerate(TEXTS.values()))
    )  # fmt: skip
    own = [{"image_id": n + 7, "caption": text} for n, text in enumerate(TEXTS.values())]
    (tmp_path / "p.json").write_text(json.dumps(own))
    found = score(tmp_path / "p.json", tmp_path / "r.jsonl", metrics=["bleu_4"], bootstrap=0)
    assert found.scores["bleu_4"] == pytest.approx(1)
    assert not any("matched by" in note for note in found.notes)


def test_all_systems_are_matched_by_one_column_of_the_references(tmp_path: Path) -> None:
    (tmp_path / "txt").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "txt" / name).with_suffix(".txt").write_text(text)
    systems = {"lines": predictions(tmp_path, id="row", image="path"), "texts": tmp_path / "txt"}
    found, _ = score_systems(systems, references(tmp_path), ScoreOptions(["bleu_4"], bootstrap=0))
    assert [system.scores["bleu_4"] for system in found.systems] == [pytest.approx(1)] * 2


def test_columns_that_a_person_names(tmp_path: Path) -> None:
    table = references(tmp_path, "id,pic,desc")
    with pytest.raises(DataError, match="found no reference"):
        score(predictions(tmp_path, id="name"), table, bootstrap=0)
    given = {"image_column": "pic", "caption_column": "desc"}
    found = score(predictions(tmp_path, id="name"), table, metrics=["bleu_4"], bootstrap=0, **given)  # type: ignore[arg-type]
    assert found.scores["bleu_4"] == pytest.approx(1)
    with pytest.raises(DataError, match=r"no file has a column 'pix', which --image-column names; found .*'pic'"):
        score(predictions(tmp_path, id="name"), table, bootstrap=0, image_column="pix", caption_column="desc")


def test_a_column_that_both_files_have_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,caption\nb.jpg,a dog\na.jpg,two cats\n")
    (tmp_path / "r.csv").write_text("image,caption,id\na.jpg,two cats,0\nb.jpg,a dog,1\n")
    found = score(tmp_path / "p.csv", tmp_path / "r.csv", metrics=["bleu_1"], bootstrap=0)
    (note,) = (note for note in found.notes if "matched by" in note)
    assert note.endswith("p.csv: images are matched by 'image' in both files")
