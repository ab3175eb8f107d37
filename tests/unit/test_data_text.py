"""Text of people's files: what its encoding is, what is no text, and how it is written again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captrain.data.read_options import ReadOptions
from captrain.data.readers.sidecar import read
from captrain.data.text_encoding import control_in, decode_text, is_wide, lines_of
from captrain.disk.reading import MARKS, encoding_of
from captrain.errors import SettingsError
from captrain.records import Rejects
from captrain.settings.schema import Settings

ENCODINGS = ("cp932", "euc-jp", "gb18030", "cp1251", "latin-1", "utf-16-le", "utf-16-be", "utf-32-le", "utf-8")


def captions(folder: Path, content: bytes, encoding: str = "") -> tuple[str, ...]:
    """What a caption file with this content gives."""
    (folder / "a.jpg").write_bytes(b"")
    (folder / "a.txt").write_bytes(content)
    (samples,) = read(str(folder), Rejects(), ReadOptions(encoding=encoding)).values()
    return tuple(samples[0].captions)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=("Cs",))),
    mark=st.sampled_from(MARKS),
    asked=st.sampled_from(ENCODINGS),
)
def test_any_text_with_a_mark_comes_back_whatever_was_asked_for(text: str, mark: tuple[bytes, str], asked: str) -> None:
    assume(not text.startswith("\0"))  # behind UTF-16's mark that is UTF-32's
    content = mark[0] + text.encode(mark[1])
    for encoding in ("", asked):
        found = decode_text(content, encoding)
        assert found.content == text
        assert found.raw == content
    if "\r" not in text and not {"\u2028", "\u2029"} & {*text}:
        assert found.encoded(text) == content


@settings(max_examples=200, deadline=None)
@given(text=st.text(), encoding=st.sampled_from(ENCODINGS))
def test_any_text_in_the_encoding_asked_for_comes_back(text: str, encoding: str) -> None:
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        return
    if not content.startswith(tuple(mark for mark, _ in MARKS)):
        assert decode_text(content, encoding).content == content.decode(encoding)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(("", *ENCODINGS)))
def test_any_bytes_are_text_or_a_reason(content: bytes, encoding: str) -> None:
    try:
        decode_text(content, encoding)
    except ValueError as error:
        assert str(error).startswith("is not ")
        assert str(error).isprintable()


@pytest.mark.parametrize("text", ["a dog runs\n", "собака бежит по траве\n", "Ein Hund läuft\r\nüber die Wiese\r\n"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_noticed_and_read_when_asked_for(text: str, encoding: str, tmp_path: Path) -> None:
    content = text.encode(encoding)
    with pytest.raises(ValueError, match=f"looks like UTF-16 without its mark; --encoding {encoding} reads it"):
        decode_text(content)
    assert captions(tmp_path, content, encoding) == tuple(text.split("\r\n" if "\r" in text else "\n")[:-1])


@pytest.mark.parametrize("text", ["a\0dog", "a dog\0", "\x1b[31ma dog\x1b[0m", "\x00" * 9, "1girl\x1f, solo\x1f"])
def test_control_characters_do_not_make_utf_16(text: str) -> None:
    assert decode_text(text.encode()).content == text
    assert control_in(text)


def test_a_second_mark_is_a_control_character() -> None:
    assert control_in("new\ufeffmine") == "\ufeff"
    assert not control_in("a\tdog")


def test_lines_end_at_line_breaks_alone() -> None:
    assert lines_of("a dog\r\nruns\ron\u2028grass\n\n  \nin\x85the\x0bpark") == (
        "a dog",
        "runs",
        "on",
        "grass",
        "in\x85the\x0bpark",
    )


def test_another_encoding_is_read_when_it_is_said(tmp_path: Path) -> None:
    assert captions(tmp_path, "猫が寝ている\n".encode("cp932"), "cp932") == ("猫が寝ている",)
    assert captions(tmp_path, "\ufeffein Kätzchen".encode(), "cp932") == ("ein Kätzchen",)


def test_what_an_encoding_has_no_letter_for_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"is in cp1252, which has no '猫'"):
        decode_text(b"a cat", "cp1252").encoded("a 猫")


def test_an_unknown_encoding_is_refused_before_anything_is_read() -> None:
    for name in ("cp93", "base64", "rot13"):
        with pytest.raises(SettingsError, match=f"encoding '{name}' is unknown; expected"):
            ReadOptions(encoding=name)
        with pytest.raises(ValueError, match=f"encoding '{name}' is unknown"):
            Settings.model_validate({"data": {"encoding": name}})


def test_files_are_opened_by_their_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / encoding).write_text("a dög", encoding=encoding)
        name = encoding_of(tmp_path / encoding, "cp932")
        assert (tmp_path / encoding).read_text(encoding=name) == "a dög"
        assert is_wide(name) == (encoding != "utf-8-sig")
