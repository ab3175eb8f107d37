"""A model in one file: a zip of a model folder with a manifest, safe to open wherever it comes from.

Nothing in it is ever executed: weights are safetensors, everything else is text. Members are checked twice: by what the
archive's directory states, before anything is unpacked, and by their content, while they are unpacked.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from captrain.disk.folders import link_error
from captrain.disk.locks import tidy
from captrain.disk.reading import ZIP_ERRORS, open_file, within_file
from captrain.disk.writing import new_file
from captrain.errors import ModelError

SUFFIX = ".zip"
VERSION = 1
CHUNK = 4 << 20  # bytes read at a time
STORED = (".safetensors",)
"""Members that are not compressed: weights do not shrink."""
FIXED_DATE = (1980, 1, 1, 0, 0, 0)
"""The date of all members: equal models make equal archives."""


def is_archive(source: str) -> bool:
    """Whether a name is that of an archive on disk.

    >>> is_archive("runs/photos"), is_archive("photos.zip")
    (False, False)
    """
    return source.lower().endswith(SUFFIX) and Path(source).is_file()


@contextmanager
def unpacked(source: str) -> Iterator[str]:
    """The temporary folder that an archive is unpacked to; any other name unchanged.

    The folder is removed afterwards. Errors name the archive instead of the folder.
    """
    if not is_archive(source):
        yield source
        return
    with TemporaryDirectory(prefix="captrain-", ignore_cleanup_errors=True) as private:
        folder = Path(private) / "model"  # what may be beside a model folder is private as well
        folder.mkdir()
        unpack_archive(Path(source), folder)
        try:
            yield str(folder)
        except ModelError as error:
            raise ModelError(str(error).replace(str(folder), source)) from None


def write_archive(folder: Path, path: Path) -> None:
    """Pack a model folder into a zip at `path`, written under a temporary name and renamed.

    Raises `ModelError` if the folder holds what an archive must not hold.
    """
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    for name in files:
        if fault := fault_of_name(name):
            raise ModelError(f"{folder}: can't be packed: {name} {fault}")
    stated = {name: {"bytes": file.stat().st_size, "sha256": _digest_of(file)} for name, file in files.items()}
    manifest = json.dumps({"captrain_archive": VERSION, "files": stated}, indent=1)
    with new_file(path) as target, zipfile.ZipFile(target, "w") as archive:
        archive.writestr(_info(MANIFEST), manifest)
        for name, file in files.items():
            info = _info(name)
            info.file_size = file.stat().st_size  # so zipfile knows whether sizes need 64 bits
            with file.open("rb") as content, archive.open(info, "w") as member:
                shutil.copyfileobj(content, member, CHUNK)


def check_out_free(out: Path) -> None:
    """Raise `ModelError` if a model written to `out`, as a folder or an archive, would overwrite something."""
    if out.is_symlink():
        raise link_error(out)
    if out.suffix.lower() == SUFFIX and out.exists():
        tidy(out)
        raise ModelError(f"{out}: exists already; choose another name, or remove it")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        tidy(out)
        raise ModelError(
            f"{out}: is a file, or a folder that is not empty; choose a new or empty folder, or a name that ends in {SUFFIX}"
        )


def unpack_archive(path: Path, folder: Path) -> None:
    """Unpack an archive into an empty folder.

    Raises `ModelError` for a file that is not a zip, is cut short, was changed, or holds what a model does not hold: names that
    lead elsewhere, names that occur twice, links, encrypted members, pickles, and members that unpack to far more than they
    should.
    """
    try:
        check_directory(path)
        with zipfile.ZipFile(path) as archive, within_file():
            members = check_members(path, archive.infolist())
            stated = _read_manifest(path, archive, members)
            _check_room(path, folder, sum(member.file_size for member in members.values()))
            for name, facts in stated.items():
                _unpack_member(path, archive, members[name], facts, folder / name)
    except ZIP_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{path}: is not a zip file, or is cut short or damaged ({reason}); copy or download it again"
        ) from None


def _unpack_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, facts: dict[str, Any], target: Path
) -> None:
    """Write one member, and check its size and checksum; never write more than was stated."""
    target.parent.mkdir(exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(member) as content, target.open("xb") as file:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            if size > member.file_size:
                break
            digest.update(chunk)
            file.write(chunk)
    if size != member.file_size:
        raise ModelError(f"{path}: {member.filename} states {member.file_size:,} bytes, found {size:,}; copy it again")
    if digest.hexdigest() != facts.get("sha256") or size != facts.get("bytes"):
        raise ModelError(f"{path}: {member.filename} has another checksum than the manifest states; copy it again")


def _read_manifest(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> dict[str, dict[str, Any]]:
    """Checksum and size of every member. Raises `ModelError` unless the manifest names exactly the members."""
    manifest = members.pop(MANIFEST, None)
    if manifest is None:
        raise ModelError(f"{path}: holds no {MANIFEST}; expected an archive that 'captrain export RUN model.zip' wrote")
    try:
        content = json.loads(archive.read(manifest))
        version, files = content["captrain_archive"], content["files"]
        stated = {str(name): dict(facts) for name, facts in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{path}: its {MANIFEST} can't be read; copy or download it again") from None
    if version != VERSION:
        raise ModelError(f"{path}: is of version {version}, expected {VERSION}; update captrain")
    if odd := sorted(stated.keys() ^ members.keys()):
        where = "is missing" if odd[0] in stated else f"is not in its {MANIFEST}"
        raise ModelError(f"{path}: {odd[0]!r} {where}; copy or download it again")
    return stated


def _check_room(path: Path, folder: Path, needed: int) -> None:
    """Raise `ModelError` if the disk of the temporary folder has no room for the model."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{path}: unpacks to {needed / 2**30:.1f} GiB, and {folder.parent} has {free / 2**30:.1f} GiB free; "
            "free some space, or set TMPDIR to a folder that has it"
        )


def _info(name: str) -> zipfile.ZipInfo:
    """The header of a member."""
    info = zipfile.ZipInfo(name, FIXED_DATE)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith(STORED) else zipfile.ZIP_DEFLATED
    return info


def _digest_of(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


MANIFEST = "captrain-manifest.json"
WEIGHTS = ".safetensors"
TEXTS = frozenset({".json", ".txt", ".md", ".jinja", ".model", ".yaml"})
"""Suffixes of the other files: configurations, vocabularies (`.model` is SentencePiece's), the card, the recipe."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".h5"})
"""Suffixes of weight files that can run code when they are loaded."""

NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LARGEST_TEXT = 256 << 20  # bytes; the largest tokenizers have about 35 MB
LARGEST_RATIO = 100  # of a member's size to its compressed size; vocabularies reach 10
NEGLIGIBLE = 1 << 20  # bytes; smaller members may have any ratio
MOST_MEMBERS = 1000
END, END_SIZE, LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
WIDE, WIDE_SIZE, LOCATOR_SIZE = b"PK\x06\x06", 56, 20
"""What a zip of over 4 GiB has before its end record: the same record in 64 bits, and its position."""
DIRECTORY_ENTRY = 1024  # bytes, about four times what an entry of ours takes


def check_directory(path: Path, most: int = MOST_MEMBERS) -> None:
    """Raise `ModelError` for an archive with an enormous directory: zipfile would read all of it into memory.

    An archive without a directory passes: zipfile reports that.
    """
    with open_file(path) as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - WIDE_SIZE - LOCATOR_SIZE - END_SIZE - LONGEST_COMMENT))
        tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_SIZE:
        return
    count, stated = struct.unpack("<HI", tail[at + 10 : at + 16])
    wide = tail[: at - LOCATOR_SIZE][-WIDE_SIZE:]  # zipfile uses this record, whatever the other states
    if at > LOCATOR_SIZE and len(wide) == WIDE_SIZE and wide.startswith(WIDE):
        count, stated = struct.unpack("<QQ", wide[32:48])
    if count > most or stated > most * DIRECTORY_ENTRY:
        raise ModelError(f"{path}: states more than {most:,} members; no model has so many files")


def check_members(path: Path, members: Iterable[ZipInfo]) -> dict[str, ZipInfo]:
    """The members by name. Raises `ModelError` for the first that a model's archive must not hold."""
    found: dict[str, ZipInfo] = {}
    seen: set[str] = set()
    packed = 0
    for member in members:
        name = member.orig_filename
        if fault := fault_of_name(name) or _fault(member):
            raise ModelError(f"{path}: {name!r} {fault}; nothing was unpacked")
        if name.casefold() in seen:
            raise ModelError(f"{path}: {name!r} occurs twice; nothing was unpacked")
        seen.add(name.casefold())
        found[name] = member
        packed += member.compress_size
    if packed > path.stat().st_size:
        raise ModelError(f"{path}: its members overlap or are cut short; nothing was unpacked")
    return found


def fault_of_name(name: str) -> str:
    """What is wrong with a member's name; "" if nothing is.

    >>> fault_of_name("model.safetensors"), fault_of_name("base/config.json")
    ('', '')
    >>> fault_of_name("../config.json")
    'has a name that could lead out of the folder; expected plain names'
    """
    if not NAME.fullmatch(name) or ".." in name:
        return "has a name that could lead out of the folder; expected plain names"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        return "could run code when it is loaded; expected weights as .safetensors"
    if suffix != WEIGHTS and suffix not in TEXTS:
        return f"is not a file of a model; expected {WEIGHTS}, {', '.join(sorted(TEXTS))}"
    return ""


def _fault(member: ZipInfo) -> str:
    """What is wrong with a member; "" if nothing is."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if member.flag_bits & 0x41:
        return "is encrypted; expected an archive without a password"
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return f"is packed by method {member.compress_type}; expected stored or deflated"
    if not member.filename.endswith(WEIGHTS) and member.file_size > LARGEST_TEXT:
        return f"states {member.file_size:,} bytes; expected at most {LARGEST_TEXT:,}"
    if member.file_size > max(NEGLIGIBLE, LARGEST_RATIO * member.compress_size):
        return f"would unpack to {member.file_size:,} bytes from {member.compress_size:,}; no model shrinks that much"
    return ""
