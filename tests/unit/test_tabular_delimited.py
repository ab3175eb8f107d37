"""Separated text: quotation marks by the evidence of the whole table, and broken rows that harm no others."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.readers.csv_table import read
from captrain.errors import DataError
from captrain.records import Rejects
from captrain.tabular.cells import CAPTION_COLUMNS, IMAGE_COLUMNS
from captrain.tabular.delimited import LONGEST_CELL, Delimited

KNOWN = {*IMAGE_COLUMNS, *CAPTION_COLUMNS}
QUOTING = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL, "nonnumeric": csv.QUOTE_NONNUMERIC}
LETTERS = "a\",;|\t \n'7é"


def rows(path: Path, text: str) -> list[list[str]]:
    path.write_bytes(text.encode())
    return [cells for _, cells in Delimited(path, KNOWN).rows()]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from(sorted(QUOTING)),
    last=st.booleans(),
)
def test_what_the_csv_module_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], delimiter: str, quoting: str, last: bool
) -> None:
    table = [[f"{number}.jpg", text] if last else [text, f"{number}.jpg"] for number, text in enumerate(texts)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=QUOTING[quoting])  # type: ignore[call-overload]
    writer.writerows([["file_name", "text"] if last else ["text", "file_name"], *table])
    assert rows(tmp_path_factory.mktemp("t") / "t.csv", file.getvalue()) == table


@settings(max_examples=150, deadline=None, derandomize=True)
@given(texts=st.lists(st.text("a\",; '7é", min_size=1, max_size=8), max_size=6), delimiter=st.sampled_from("\t|"))
def test_a_table_without_quotation_keeps_every_mark(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], delimiter: str
) -> None:
    table = [[f"{number}.jpg", text] for number, text in enumerate([*texts, 'a 12" hat'])]
    text = "\n".join(delimiter.join(row) for row in [["file_name", "text"], *table])
    assert rows(tmp_path_factory.mktemp("t") / "t.tsv", text) == table


BROKEN = st.sampled_from(["lonely", "x.jpg{0}a{0}b", "x{0}{0}{0}", "x.jpg{0}a{0}", "x.jpg a"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    lines=st.lists(st.tuples(st.booleans(), BROKEN, st.text('a" \n', max_size=6)), min_size=1, max_size=10),
    delimiter=st.sampled_from(",;\t|"),
)
def test_broken_rows_reject_themselves_alone(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[bool, str, str]], delimiter: str
) -> None:
    folder = tmp_path_factory.mktemp("set")
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["file_name", "text"])
    expected, broken = {}, []
    for number, (is_broken, line, text) in enumerate([*lines, (False, "", "end")]):
        if is_broken:
            file.write(line.format(delimiter) + "\n")
            broken.append(f"{folder / 't.csv'}:{file.getvalue().count(chr(10))}")
        else:
            name = f"{number}.jpg"
            (folder / name).write_bytes(b"jpeg")
            writer.writerow([name, f"z{text}z"])
            expected[name] = (f"z{text}z",)
    (folder / "t.csv").write_bytes(file.getvalue().encode())
    rejects = Rejects()
    (samples,) = read(str(folder / "t.csv"), rejects).values()
    assert {sample.id: sample.captions for sample in samples} == expected
    assert [line["where"] for line in rejects.lines] == broken


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_an_open_mark_swallows_no_rows(tmp_path: Path, delimiter: str) -> None:
    lines = ["file_name,text", 'a.jpg,"no entry" sign', 'b.jpg,"half a quote', "c.jpg,a dog", 'd.jpg,end"', 'e.jpg,"']
    table = [line.split(",") for line in lines[1:]]
    assert rows(tmp_path / "t.csv", "\n".join(lines).replace(",", delimiter)) == table
    turned = "\n".join(",".join(reversed(line.split(","))) for line in lines).replace(",", delimiter)
    assert rows(tmp_path / "t.csv", turned) == [row[::-1] for row in table]


def test_a_cell_over_lines_needs_no_column_of_names_before_it(tmp_path: Path) -> None:
    text = 'text,file_name\n"over\ntwo, or ""three""",a.jpg\nx,b.jpg\n'
    assert rows(tmp_path / "t.csv", text) == [['over\ntwo, or "three"', "a.jpg"], ["x", "b.jpg"]]


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ('file_name\ttext\na.jpg\t"x"\nb.jpg\ty\n', ['"x"', "y"]),
        ('file_name\ttext\na.jpg\t"x"\nb.jpg\t"y"\nc.jpg\t"z"\n', ["x", "y", "z"]),
        ('file_name\t"text"\na.jpg\t"x"\n', ["x"]),
        ('file_name\t"text"\na.jpg\t"x"\nb.jpg\tNA\n', ["x", "NA"]),
        ('file_name\ttext\na.jpg\t"x ""y"""\nb.jpg\tz\n', ['x "y"', "z"]),
    ],
)
def test_a_tab_table_is_quoted_where_all_of_it_says_so(tmp_path: Path, text: str, captions: list[str]) -> None:
    assert [cells[1] for cells in rows(tmp_path / "t.tsv", text)] == captions


def test_a_mark_that_is_never_closed_costs_little(tmp_path: Path) -> None:
    lines = ['a.jpg,"x', *["b.jpg,y"] * (LONGEST_CELL // 4)]
    assert rows(tmp_path / "t.csv", "\n".join(["file_name,text", *lines])) == [line.split(",") for line in lines]


def test_names_that_come_twice_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption,caption\na.jpg,x,y\n")
    assert Delimited(tmp_path / "t.csv", KNOWN).header == ["image", "caption", "caption.1"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.text(LETTERS + "\r\0.", max_size=40).map(str.encode) | st.binary(max_size=30))
def test_any_bytes_are_rows_or_one_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(data)
    try:
        found = list(Delimited(path, KNOWN).rows(has_header=False))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        numbers = [number for number, _ in found]
        assert numbers == sorted(set(numbers))
