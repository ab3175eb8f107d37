"""From a sample's id, which may be anything, to a name below the target folder that every file system takes."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable

from captrain.data.safe_paths import IMAGE_SUFFIXES
from captrain.data.samples import key_of
from captrain.data.writers import Losses, OutputSample

LONGEST_PART = 200  # bytes of a file's or folder's name; systems allow 255, and suffixes are added
LONGEST_NAME = 1000  # bytes of all parts together
RENAMED = "{images} images got other names, because theirs are taken or not fit for files"

_REFUSED = re.compile(  # by Windows, by UTF-8, or by people's terminals, where some turn the order of letters around
    r'[<>:"|?*\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]'
)
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)  # files that Windows has everywhere


def safe_name(sample_id: str) -> str:
    r"""A relative posix path, the id itself where it is a plain one: no way out, no hidden or refused names, not too long.

    >>> [safe_name(each) for each in ("nested/dog 1.jpg", "../../etc/passwd", "C:\\x\\.hid", "https://a.b/c?d=1", "")]
    ['nested/dog 1.jpg', 'etc/passwd', 'C_/x/_hid', 'https_/a.b/c_d=1', 'image']
    """
    parts = [_safe_part(part) for part in sample_id.replace("\\", "/").split("/")]
    name = "/".join(part for part in parts if part) or "image"
    return name if len(name.encode()) <= LONGEST_NAME else shortened_part(name.replace("/", "_"), LONGEST_PART)


def with_suffix(name: str, suffix: str, *, replace: bool = False) -> str:
    """A name that ends as pictures do; one that does so already stays, unless its ending is to be replaced.

    >>> with_suffix("dog", ".jpg"), with_suffix("v1.5", ".png"), with_suffix("a.PNG", ".jpg", replace=True)
    ('dog.jpg', 'v1.5.png', 'a.jpg')
    """
    stem, found = os.path.splitext(name)
    if found.lower() not in IMAGE_SUFFIXES:
        return name + suffix
    return stem + suffix if replace else name


class Names:
    """Gives each image a name of its own, also where file systems don't tell case or forms of Unicode apart.

    About 70 bytes a name. Images that are not called by their ids are counted.
    """

    def __init__(self, losses: Losses) -> None:
        self.losses = losses
        self.taken: set[int] = set()

    def of(self, item: OutputSample, shape: Callable[[str], str] = str, unique: Callable[[str], str] = str) -> str:
        """A free name for an item's image, from its id.

        Args:
            shape: what a form makes of a name that is safe.
            unique: what of a name has to be unique; all of it by default.
        """
        picture = item.picture
        plain, safe = (
            with_suffix(name, picture.suffix, replace=picture.encoded) for name in (item.id, safe_name(item.id))
        )
        shaped = shape(safe)
        name = self.take(shaped, unique)
        if safe != plain or name != shaped:
            self.losses.add(RENAMED)
        return name

    def take(self, name: str, unique: Callable[[str], str] = str) -> str:
        """`name`, or the same with a number where it is taken.

        >>> names = Names(Losses())
        >>> names.take("a.jpg"), names.take("A.jpg"), names.take("a.jpg")
        ('a.jpg', 'A-2.jpg', 'a-3.jpg')
        """
        number, found = 1, name
        while not self.claim(unique(found)):
            number += 1
            begin, end = os.path.splitext(name)
            found = f"{begin}-{number}{end}"
        return found

    def claim(self, name: str) -> bool:
        """Whether a name was free; it is taken now."""
        key = key_of(unicodedata.normalize("NFC", name).casefold())
        free = key not in self.taken
        self.taken.add(key)
        return free


def _safe_part(part: str) -> str:
    """One file's or folder's name; empty for what only leads somewhere else."""
    if part in ("", ".", ".."):
        return ""
    part = _REFUSED.sub("_", part).strip().rstrip(". ")
    if part.startswith(".") or _DEVICES.match(part):
        part = "_" + part.lstrip(".")
    part = "_MACOSX" if part == "__MACOSX" else "_eaDir" if part == "@eaDir" else part
    return shortened_part(part, LONGEST_PART)


def shortened_part(part: str, longest: int) -> str:
    """At most `longest` bytes: the beginning, a digest of the whole, and the ending if it is one of a picture."""
    if len(part.encode()) <= longest:
        return part
    stem, suffix = os.path.splitext(part)
    suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else ""
    digest = hashlib.blake2b(part.encode(), digest_size=8).hexdigest()
    begin = stem.encode()[: longest - len(digest) - len(suffix) - 1].decode("utf-8", "ignore").rstrip(". ")
    return f"{begin}-{digest}{suffix}"
