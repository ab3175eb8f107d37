"""What may be in an archive of a model, judged by what its directory states, before anything is read."""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from captrain.disk.reading import open_file
from captrain.errors import ModelError

MANIFEST = "captrain-manifest.json"
WEIGHTS = ".safetensors"
TEXTS = frozenset({".json", ".txt", ".md", ".jinja", ".model"})
"""Suffixes of all else: configurations, vocabularies (`.model` is SentencePiece's), the card."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".h5"})
"""Suffixes of forms of weights that can run code when they are loaded, or hide what can."""

NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LARGEST_TEXT = 256 << 20  # bytes; the largest tokenizers have about 35 MB
LARGEST_RATIO = 100  # of a member's size to what it is packed to; vocabularies come to 10
NEGLIGIBLE = 1 << 20  # bytes that a member may have at any ratio
MOST_MEMBERS = 1000
END, END_SIZE, LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
WIDE, WIDE_SIZE, LOCATOR_SIZE = b"PK\x06\x06", 56, 20
"""What stands before the end of a zip of over 4 GiB: the same in 64 bits, and where that is."""
DIRECTORY_ENTRY = 1024  # bytes, about four times what one of our names needs


def check_directory(path: Path, most: int = MOST_MEMBERS) -> None:
    """Refuse an archive whose directory is enormous: zipfile would read all of it into memory.

    Raises `ModelError`; leaves it to zipfile to say what is wrong with a directory that is not there.
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
    wide = tail[: at - LOCATOR_SIZE][-WIDE_SIZE:]  # zipfile believes this one, whatever the other says
    if at > LOCATOR_SIZE and len(wide) == WIDE_SIZE and wide.startswith(WIDE):
        count, stated = struct.unpack("<QQ", wide[32:48])
    if count > most or stated > most * DIRECTORY_ENTRY:
        raise ModelError(f"{path}: states more than {most:,} members; no model has so many files")


def check_members(path: Path, members: Iterable[ZipInfo]) -> dict[str, ZipInfo]:
    """Members by name. Raises `ModelError` for the first that a model's archive must not have."""
    found: dict[str, ZipInfo] = {}
    seen: set[str] = set()
    packed = 0
    for member in members:
        name = member.orig_filename
        if fault := fault_of_name(name) or _fault(member):
            raise ModelError(f"{path}: {name!r} {fault}; nothing was unpacked")
        if name.casefold() in seen:
            raise ModelError(f"{path}: {name!r} is there twice; nothing was unpacked")
        seen.add(name.casefold())
        found[name] = member
        packed += member.compress_size
    if packed > path.stat().st_size:
        raise ModelError(f"{path}: its members overlap or are cut short; nothing was unpacked")
    return found


def fault_of_name(name: str) -> str:
    """What is wrong with a member's name, or nothing.

    >>> fault_of_name("model.safetensors"), fault_of_name("base/config.json")
    ('', '')
    >>> fault_of_name("../config.json")
    'has a name that could lead out of the folder; expected plain names'
    """
    if not NAME.fullmatch(name) or ".." in name:
        return "has a name that could lead out of the folder; expected plain names"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        return "is of a form that could run code when it is loaded; expected weights as .safetensors"
    if suffix != WEIGHTS and suffix not in TEXTS:
        return f"is no file of a model; expected {WEIGHTS}, {', '.join(sorted(TEXTS))}"
    return ""


def _fault(member: ZipInfo) -> str:
    """What is wrong with a member, or nothing."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or something else that is no plain file"
    if member.flag_bits & 0x41:
        return "is encrypted; expected an archive without a password"
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return f"is packed by method {member.compress_type}; expected stored or deflated"
    if not member.filename.endswith(WEIGHTS) and member.file_size > LARGEST_TEXT:
        return f"states {member.file_size:,} bytes; expected at most {LARGEST_TEXT:,}"
    if member.file_size > max(NEGLIGIBLE, LARGEST_RATIO * member.compress_size):
        return f"would unpack to {member.file_size:,} bytes from {member.compress_size:,}; no model shrinks so far"
    return ""
