"""A model in one file: written whole, opened safely, whoever made it."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.errors import ModelError
from captrain.models.checkpoint.archive import MANIFEST, fault_of_name, is_archive, opened, unpack, write_archive
from captrain.models.checkpoint.weight_files import check_pickle

FILES = {"config.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 40, "README.md": b"# card\n" * 50}


def _folder(place: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def _manifest(files: dict[str, bytes]) -> bytes:
    stated = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return json.dumps({"captrain_archive": 1, "files": stated}).encode()


def _zip(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _crafted(path: Path, extra: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    """A whole archive with one member more, which its manifest states as well."""
    name = extra if isinstance(extra, str) else extra.filename
    files = {**FILES, name: content}
    return _zip(path, [(MANIFEST, _manifest(files)), *FILES.items(), (extra, content)])


def _refused(path: Path, tmp_path: Path, *words: str) -> None:
    target = tmp_path / "outer" / "target"
    target.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError) as error:
        unpack(path, target)
    text = str(error.value)
    for word in words:
        assert word in text
    assert "\n" not in text
    assert str(path) in text
    new = set(tmp_path.rglob("*")) - set(before)
    assert all(target in file.parents for file in new), "something was written outside the folder"


def test_what_was_packed_comes_out(tmp_path: Path) -> None:
    files = {**FILES, "base/config.json": b"{}"}
    write_archive(_folder(tmp_path / "model", files), tmp_path / "model.zip")
    with opened(str(tmp_path / "model.zip")) as folder:
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
        }
        assert found == files
        assert stat.S_IMODE(Path(folder).parent.stat().st_mode) & 0o077 == 0, "others can look into it"
    assert not Path(folder).exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_equal_models_make_equal_archives(tmp_path: Path) -> None:
    write_archive(_folder(tmp_path / "one"), tmp_path / "one.zip")
    write_archive(_folder(tmp_path / "two"), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_weights_are_stored_and_text_is_compressed(tmp_path: Path) -> None:
    write_archive(_folder(tmp_path / "model"), tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        kinds = {member.filename: member.compress_type for member in archive.infolist()}
    assert kinds["model.safetensors"] == zipfile.ZIP_STORED
    assert kinds["README.md"] == zipfile.ZIP_DEFLATED


def test_errors_inside_name_the_archive(tmp_path: Path) -> None:
    write_archive(_folder(tmp_path / "model"), tmp_path / "model.zip")
    with (
        pytest.raises(ModelError, match=r"model\.zip/config\.json: odd"),
        opened(str(tmp_path / "model.zip")) as folder,
    ):
        raise ModelError(f"{folder}/config.json: odd")


def test_folders_and_hub_ids_are_left_alone(tmp_path: Path) -> None:
    with opened(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    with opened("some/captioner") as name:
        assert name == "some/captioner"
    assert not is_archive(str(tmp_path / "missing.zip"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "code.py", "a b.json", "deep/er/config.json"])
def test_what_an_archive_must_not_hold_is_not_packed(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be packed"):
        write_archive(_folder(tmp_path / "model", {**FILES, name: b"x"}), tmp_path / "model.zip")
    assert not list(tmp_path.glob("model.zip*"))


@pytest.mark.parametrize(
    "name",
    [
        "../config2.json", "/etc/config2.json", "a/../../config2.json", "C:/config2.json", "..\\config2.json", "C:config2.json",
        "./config2.json", "a//config2.json", "config2.json/", ".hidden.json", "a\nb.json", "a/b/c.json", "x..json",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    _refused(_crafted(tmp_path / "evil.zip", name), tmp_path, "plain names", "nothing was unpacked")


def test_name_that_ends_at_a_null_byte_is_refused(tmp_path: Path) -> None:
    path = _crafted(tmp_path / "evil.zip", "config2.jsonX.json")
    path.write_bytes(path.read_bytes().replace(b"config2.jsonX.json", b"config2.json\0.json"))
    _refused(path, tmp_path, "evil.zip")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "Weights.PKL", "model.ckpt", "base/adapter_model.bin"]
)
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    _refused(_crafted(tmp_path / "evil.zip", name), tmp_path, "could run code", ".safetensors")


@pytest.mark.parametrize("name", ["modeling_evil.py", "run.sh", "noextension", "lib.so"])
def test_files_of_no_model_are_refused(name: str, tmp_path: Path) -> None:
    _refused(_crafted(tmp_path / "evil.zip", name), tmp_path, "is no file of a model")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.json")
    info.external_attr = (kind | 0o777) << 16
    _refused(_crafted(tmp_path / "evil.zip", info, b"/etc/passwd"), tmp_path, "is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["config.json", "Config.JSON"])
def test_members_that_are_there_twice_are_refused(name: str, tmp_path: Path) -> None:
    _refused(_crafted(tmp_path / "evil.zip", name), tmp_path, "is there twice")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = _crafted(tmp_path / "evil.zip", "secret.json")
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)
    _refused(path, tmp_path, "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(method: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("odd.json")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(MANIFEST, _manifest({"odd.json": b"x"}))
        archive.writestr(info, b"x", method)
    _refused(tmp_path / "evil.zip", tmp_path, "expected stored or deflated")


@pytest.mark.parametrize("name", ["bomb.json", "bomb.safetensors"])
def test_bombs_are_refused_before_they_unpack(name: str, tmp_path: Path) -> None:
    _refused(_crafted(tmp_path / "evil.zip", name, bytes(20 << 20)), tmp_path, "no model shrinks so far")


def _restate(path: Path, name: bytes, size: int) -> None:
    """State another size of the unpacked member, in its own header and in the directory."""
    content = bytearray(path.read_bytes())
    local, directory = content.index(name) - 30, content.rindex(name) - 46
    content[local + 22 : local + 26] = content[directory + 24 : directory + 28] = struct.pack("<I", size)
    path.write_bytes(content)


@pytest.mark.parametrize("size", [100, 5000])
def test_sizes_that_are_not_true_are_refused(size: int, tmp_path: Path) -> None:
    path = _zip(tmp_path / "evil.zip", [(MANIFEST, _manifest({"a.json": b"ab" * 500})), ("a.json", b"ab" * 500)])
    _restate(path, b"a.json", size)
    _refused(path, tmp_path, "a.json" if size > 1000 else "evil.zip")


def test_enormous_text_is_refused(tmp_path: Path) -> None:
    path = _crafted(tmp_path / "evil.zip", "huge.json")
    _restate(path, b"huge.json", 300 << 20)
    _refused(path, tmp_path, "expected at most")


def test_enormous_directory_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _zip(tmp_path / "evil.zip", [(f"f{number}.json", b"") for number in range(1001)])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    _refused(path, tmp_path, "more than 1,000 members")


def test_member_without_room_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(_folder(tmp_path / "model"), tmp_path / "model.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    _refused(tmp_path / "model.zip", tmp_path, "GiB free", "TMPDIR")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_checksum_is_refused(name: str, tmp_path: Path) -> None:
    changed = {**FILES, name: FILES[name][:-1] + b"!"}
    path = _zip(tmp_path / "evil.zip", [(MANIFEST, _manifest(FILES)), *changed.items()])
    _refused(path, tmp_path, name, "wrong checksum")


def test_members_and_manifest_must_agree(tmp_path: Path) -> None:
    fewer = {name: content for name, content in FILES.items() if name != "config.json"}
    _refused(
        _zip(tmp_path / "a.zip", [(MANIFEST, _manifest(FILES)), *fewer.items()]),
        tmp_path / "1",
        "'config.json' is missing",
    )
    _refused(_zip(tmp_path / "b.zip", [(MANIFEST, _manifest(fewer)), *FILES.items()]), tmp_path / "2", "is not in its")
    _refused(_zip(tmp_path / "c.zip", FILES.items()), tmp_path / "3", "holds no captrain-manifest.json")


@pytest.mark.parametrize("manifest", [b"nope", b"[]", b"{}", b'{"captrain_archive": 1, "files": {"a": 3}}', b"\xff"])
def test_broken_manifest_is_refused(manifest: bytes, tmp_path: Path) -> None:
    _refused(_zip(tmp_path / "evil.zip", [(MANIFEST, manifest), *FILES.items()]), tmp_path, "can't be read")


def test_later_version_asks_for_an_update(tmp_path: Path) -> None:
    manifest = _manifest(FILES).replace(b'"captrain_archive": 1', b'"captrain_archive": 2')
    _refused(_zip(tmp_path / "new.zip", [(MANIFEST, manifest), *FILES.items()]), tmp_path, "update captrain")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.99])
def test_archive_that_is_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    write_archive(_folder(tmp_path / "model"), tmp_path / "model.zip")
    content = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "model.zip").write_bytes(content[: int(share * len(content))])
    _refused(tmp_path / "model.zip", tmp_path, "cut short")


@given(st.integers(0, 2**31), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_is_harmless(whole: Callable[[], bytes], place: int, value: int) -> None:
    """It is refused in one line, or (in a date, say) changes nothing that comes out."""
    import tempfile

    content = bytearray(whole())
    content[place % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder, "changed.zip"), Path(folder, "target")
        path.write_bytes(content)
        target.mkdir()
        try:
            unpack(path, target)
        except ModelError as error:
            assert "\n" not in str(error)
        else:
            assert {file.name: file.read_bytes() for file in target.iterdir()} == FILES
        assert {file.name for file in Path(folder).iterdir()} == {"changed.zip", "target"}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], bytes]:
    folder = tmp_path_factory.mktemp("whole")
    write_archive(_folder(folder / "model"), folder / "model.zip")
    content = (folder / "model.zip").read_bytes()
    return lambda: content


@given(st.text(max_size=40))
def test_names_that_pass_stay_in_the_folder(name: str) -> None:
    if not fault_of_name(name):
        parts = Path("/folder", name).parts
        assert ".." not in parts
        assert parts[:2] == ("/", "folder")
        assert len(parts) <= 4


def test_a_directory_that_only_the_wide_end_states_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zipfile believes the 64-bit record before the end, whatever the end itself says."""
    whole = _zip(tmp_path / "a.zip", [(MANIFEST, _manifest(FILES)), *FILES.items()]).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, 1 << 40, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    (tmp_path / "a.zip").write_bytes(whole[:end] + wide + locator + whole[end:])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    _refused(tmp_path / "a.zip", tmp_path, "members")
    with pytest.raises(ModelError, match="members"):
        check_pickle(tmp_path / "a.zip")
