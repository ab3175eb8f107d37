"""Pictures in zips beside a table: read in place, under the ids they have when unpacked, and never more than they state."""

from __future__ import annotations

import json
import logging
import pickle
import stat
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.data.convert import convert
from captrain.data.picture_index import pictures_in_archives
from captrain.data.places import Root
from captrain.data.readers import detect, reader
from captrain.errors import DataError
from captrain.records import Rejects, Sample


def picture(seed: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def table(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "text": name}) + "\n" for name in names)
    )
    return folder


def read(source: Path) -> tuple[list[Sample], Rejects]:
    rejects = Rejects()
    splits = reader(detect(str(source))).read(str(source), rejects)
    return [sample for samples in splits.values() for sample in samples], rejects


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "names", [("0.png", "b/1"), ("images/0.png", "images/b/1.png"), ("/home/x/images/0.png", "/home/x/images/b/1.png")]
)
def test_pictures_are_read_out_of_a_zip(
    tmp_path: Path, method: int, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    folder = table(tmp_path / "set", *names, "gone.png")
    archive = write_zip(folder / "images.zip", {"0.png": picture(0), "b/1.png": picture(1), "notes.txt": b"x"}, method)
    with caplog.at_level(logging.INFO, logger="captrain"):
        samples, rejects = read(folder)
    assert [sample.id for sample in samples] == ["images/0.png", "images/b/1.png"]
    assert [sample.read() for sample in pickle.loads(pickle.dumps(samples))] == [picture(0), picture(1)]
    assert [line["id"] for line in rejects.lines] == ["gone.png"]
    assert sum(str(archive) in line and "read out of" in line for line in caplog.messages) == 1
    assert convert(str(folder), tmp_path / "out", "metadata-jsonl").written == {"all": 2}
    zipfile.ZipFile(archive).extractall(folder / "images")
    assert [sample.id for sample in read(folder)[0]] == ["images/0.png", "images/b/1.png"]


def test_a_file_counts_before_a_member_and_two_zips_are_told_apart(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"1.png": b"zip", "2.png": b"zip"})
    write_zip(tmp_path / "b.zip", {"2.png": b"zip", "3.png": b"zip"})
    (tmp_path / "1.png").write_bytes(b"file")
    root = Root(tmp_path)
    assert [root.find(f"{number}.png", "t:1") for number in (1, 2, 3)] == ["1.png", None, "b/3.png"]
    assert "'a/2.png' or 'b/2.png'" in root.absence("2.png", "t:1")


def test_what_is_no_plain_picture_is_never_listed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in ("../out.png", "/abs.png", "C:\\x.png", "__MACOSX/._a.png", "secret.txt", "folder/", "fine.png"):
            archive.writestr(name, b"x")
    (tmp_path / "b.zip").write_bytes(b"no zip at all")
    assert [path for path, _ in pictures_in_archives(tmp_path)] == ["a/fine.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_is_not_what_it_states_is_an_error(tmp_path: Path, method: int) -> None:
    archive = write_zip(tmp_path / "a.zip", {"bomb.png": bytes(1 << 20)}, method)
    ((_, member),) = pictures_in_archives(tmp_path)
    raw = bytearray(archive.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 24 : central + 28] = (100).to_bytes(4, "little")  # states a hundred bytes of a million
    archive.write_bytes(raw)
    ((_, smaller),) = pictures_in_archives(tmp_path)
    assert (member.size, smaller.size) == (1 << 20, 100)
    with pytest.raises(OSError, match="is not what the zip's directory says"):
        smaller.read()
    archive.write_bytes(b"x" * 10)
    with pytest.raises(OSError, match="the zip is broken"):
        member.read()


def test_a_zip_alone_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "photos.zip", {"1.png": picture(1), "1.txt": b"a dog"})
    with pytest.raises(DataError, match=r"photos\.zip: an archive; unpack it first \(unzip photos\.zip -d photos\)"):
        read(archive)
    with pytest.raises(DataError, match=r"photos\.zip lies there; unpack it first"):
        read(tmp_path)


def test_pictures_are_read_out_of_a_tar_beside_the_table_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\n1,a dog\nb/2.png,a cat\n")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name, data in {"1.png": picture(1), "b/2.png": picture(2), "../3.png": b"x", "1.txt/": b""}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    samples, rejects = read(tmp_path / "captions.csv")
    assert {sample.id: sample.read() for sample in samples} == {
        "images/1.png": picture(1),
        "images/b/2.png": picture(2),
    }
    assert not rejects
    with pytest.raises(
        DataError, match=r"captions\.csv lies beside: if it is a table of these pictures, give its path"
    ):
        read(tmp_path)
