"""JSON as strangers write it: halves of surrogate pairs, lines without ids, texts without end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.errors import DataError
from captrain.limits import LARGEST_LINE, LONGEST_CAPTION, next_json_line, shortened
from captrain.records import lines_with_ids, parse_json, read_json, write_jsonl

HALVES = ["\ud800", "\udfff", "\ud83d", "\ude00"]
ANY = st.text(st.characters(exclude_characters="\ufffd") | st.sampled_from(["\\", '"', "u", "d", *HALVES]), max_size=12)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=ANY)
def test_half_a_surrogate_pair_becomes_a_question_mark_and_all_else_stays(text: str) -> None:
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parse_json(json.dumps([text])) == [joined.replace("\ufffd", "?")]


def test_names_that_are_no_text_are_written_as_json_can(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [{"where": "caf\udce9.jpg"}])
    assert (tmp_path / "r.jsonl").read_text() == '{"where": "caf\\udce9.jpg"}\n'


def test_a_file_without_ids_is_told(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text('{"id": 7}\n{"file_name": "a.jpg", "text": "a dog"}\n')
    with pytest.raises(DataError, match="entry 2 has no id \\(found: file_name, text\\)"):
        list(lines_with_ids(file))
    for content in ("[1]", "{", "1" * 5000):
        file.write_text(content)
        with pytest.raises(DataError, match="copy it again"):
            read_json(file)


def test_an_overlong_string_is_cut_wherever_it_is_read_from() -> None:
    line = json.dumps({"file_name": "a.jpg", "text": 'a "dog"\\' * 4_000_000}).encode() + b"\n"
    assert len(line) > LARGEST_LINE
    found = next_json_line(io.BytesIO(line + b"{}\n"))
    values = json.loads(found)
    assert values["file_name"] == "a.jpg" and len(values["text"]) == LONGEST_CAPTION + 1
    assert json.loads(shortened(line.decode())) == values
    assert len(next_json_line(io.BytesIO(b"[" + b"1," * LARGEST_LINE))) < 2 * LARGEST_LINE
