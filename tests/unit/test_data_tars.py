"""Walking tars: what tarfile writes is found again, and whatever else a file holds is a member with a problem."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.shards.members import Keys, MemberGroup, groups
from captrain.data.shards.tars import BLOCK, Member, StoredMember, walk

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def made(content: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def special(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            tar.addfile(member)
    return file.getvalue()


def of_type(kind: bytes, name: str = "x.jpg") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def walked(data: bytes, start: int = 0) -> list[Member]:
    return list(walk(io.BytesIO(data), len(data), start))


REAL = made({"a.jpg": b"A" * 700, "a.txt": b"a dog", "b" * 150 + ".jpg": b"B" * 10, "c.txt": b""}, tarfile.GNU_FORMAT)


@pytest.mark.parametrize("format", FORMATS)
def test_members_are_where_tarfile_finds_them(format: str) -> None:
    long = f"{'d' * 60}/{'e' * 60}/dog.jpg"
    content = {"dog.jpg": b"x" * 1000, long: b"y" * BLOCK, "a b/c.txt": b"", "z.txt": b"z"}
    if format != "ustar":
        content |= {"猫" * 50 + ".jpg": b"cat", "n" * 300 + ".txt": b"long"}
    data = made(content, FORMATS[format])
    found = walked(data)
    assert {member.name: data[member.offset : member.offset + member.size] for member in found} == content
    assert not any(member.problem for member in found)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [member.offset for member in found] == [member.offset_data for member in tar]


def test_a_walk_begins_at_any_member() -> None:
    whole = walked(REAL)
    for place, member in enumerate(whole):
        assert walked(REAL, member.start) == whole[place:]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"Q", "unknown kind"),
    ],
)
def test_what_is_no_plain_file_is_a_problem_and_the_rest_is_read(kind: bytes, said: str) -> None:
    plain = tarfile.TarInfo("after.jpg")
    found = walked(special(of_type(kind), plain))
    assert [member.name for member in found] == ["x.jpg", "after.jpg"]
    assert said in found[0].problem
    assert not found[1].problem


def test_folders_are_left_out() -> None:
    assert [member.name for member in walked(special(of_type(tarfile.DIRTYPE, "d"), tarfile.TarInfo("d/x.jpg")))] == [
        "d/x.jpg"
    ]


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "a\\..\\..\\x.jpg", "a\nb.jpg", "."]
)
def test_names_that_leave_the_tar_are_problems(name: str) -> None:
    (member,) = walked(special(tarfile.TarInfo(name)))
    assert "leaves the tar" in member.problem


def test_names_are_tidied() -> None:
    assert walked(special(tarfile.TarInfo("./a//b.jpg")))[0].name == "a/b.jpg"


def test_a_name_that_is_not_utf8_is_written_out() -> None:
    data = bytearray(special(tarfile.TarInfo("xy.jpg")))
    assert walked(repaired(data, 0, b"\xff\xfe.jpg"))[0].name == "\\xff\\xfe.jpg"


def repaired(data: bytearray, at: int, raw: bytes) -> bytes:
    """`data` with other bytes at `at`, and the checksum of the first header made right."""
    data[at : at + len(raw)] = raw
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    return bytes(data)


def test_every_cut_keeps_what_lies_before_it() -> None:
    whole = walked(REAL)
    for end in range(1, whole[-1].offset + 1, 97):
        found = walked(REAL[:end])
        assert found[-1].name == "" and found[-1].problem
        kept = [member for member in whole if member.offset + member.size <= end]
        assert found[:-1] == kept[: len(found) - 1]
        assert len(found) - 1 == len(kept)


def test_a_break_says_where() -> None:
    broken = bytearray(REAL)
    at = walked(REAL)[1].start
    broken[at : at + 10] = b"\x01" * 10
    found = walked(bytes(broken))
    assert [member.name for member in found] == ["a.jpg", ""]
    assert str(at) in found[-1].problem


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "0 bytes"), (b"\x1f\x8b" + b"x" * 1000, "gzip"), (b"x" * 2000, "not a tar")]
)
def test_what_is_no_tar_says_so(data: bytes, said: str) -> None:
    (member,) = walked(data)
    assert member.name == ""
    assert said in member.problem


def test_two_tars_in_a_row_are_noticed() -> None:
    assert "end mark" in walked(REAL + REAL)[-1].problem
    assert not any(member.problem for member in walked(REAL + bytes(100_000)))


def test_headers_and_members_have_limits() -> None:
    bomb = of_type(tarfile.XHDTYPE)
    data = bytearray(special(bomb))
    assert "over 1048576" in walked(repaired(data, 124, b"77777777777\0"))[-1].problem
    huge = bytearray(special(tarfile.TarInfo("x.jpg")))
    raw = repaired(huge, 124, b"\x80" + (2 << 30).to_bytes(11, "big"))
    assert "over 1073741824" in next(walk(io.BytesIO(raw))).problem
    assert "cut short" in walked(raw)[0].problem
    assert "not a tar" in walked(repaired(huge, 124, b"-0000000001\0"))[0].problem


def test_pax_records_that_lead_nowhere_end_the_walk() -> None:
    for record in (
        b"path=x\n",
        b" path=x\n",
        b"0 path=x\n",
        b"9999 path=x\n",
        b"25 size=9999999999999999999\n",
        b"8 size=\n",
    ):
        data = bytearray(special(of_type(tarfile.XHDTYPE), tarfile.TarInfo("x.jpg")))
        data[BLOCK:BLOCK] = record.ljust(BLOCK, b"\0")
        (member,) = walked(repaired(data, 124, b"%011o\0" % len(record)))
        assert member.name == ""
        assert "broken" in member.problem


def test_a_size_beyond_any_disk_ends_the_walk() -> None:
    data = bytearray(special(tarfile.TarInfo("x.jpg")))
    (member,) = walk(io.BytesIO(repaired(data, 124, b"\x80" + b"\x7f" * 11)))
    assert member.problem


def test_a_stored_member_reads_its_bytes_and_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(REAL)
    member = walked(REAL)[0]
    stored = pickle.loads(pickle.dumps(StoredMember(path, member.offset, member.size, "s.tar/a.jpg")))
    assert stored.read() == b"A" * 700
    assert str(stored) == "s.tar/a.jpg"
    path.write_bytes(REAL[:900])
    with pytest.raises(OSError, match="shorter"):
        stored.read()


def check(data: bytes) -> None:
    """Whatever the bytes are: a walk ends, its members lie inside, and groups hold no byte that is not there."""
    found = walked(data)
    assert len(found) <= len(data) // BLOCK + 1
    for member in found:
        assert member.problem or member.offset + member.size <= len(data)
    for keys in (Keys(), Keys(("jpg",))):
        for group in groups(io.BytesIO(data), keys, images=True):
            if isinstance(group, MemberGroup):
                for part in group.parts:
                    assert part.data is None or part.data == data[part.offset : part.offset + part.size]


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_raise_nothing(data: bytes) -> None:
    check(data)


PAX = made({"猫" * 60 + ".jpg": b"A" * 700, "a.txt": b"a dog"}, tarfile.PAX_FORMAT)
EDITS = st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.binary(min_size=1, max_size=16)), min_size=1, max_size=6)


@given(st.sampled_from([REAL, PAX]), EDITS, st.booleans(), st.integers(0, len(REAL)))
@settings(max_examples=200, deadline=None)
def test_changed_tars_raise_nothing(data: bytes, edits: list[tuple[int, bytes]], repair: bool, end: int) -> None:
    changed = bytearray(data)
    for at, raw in edits:
        changed[at : at + len(raw)] = raw
    check(mended(changed) if repair else bytes(changed[:end]))


def mended(data: bytearray) -> bytes:
    """All blocks that look like headers with right checksums, so that a changed header is not found by these."""
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b"        "
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)
