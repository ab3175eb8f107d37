"""Safe paths: a file that a table or a link names is only read from below its data set's folder."""

from __future__ import annotations

import logging
import os
import posixpath
import reprlib
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captrain.data.absolute_paths import MovedPaths, PathsHere, is_absolute, is_here
from captrain.data.picture_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, is_hidden, split_suffix
from captrain.data.picture_index import IMAGE_FOLDER, PictureIndex, archive_of
from captrain.disk.reading import POINTER, fault_of, is_pointer_file
from captrain.disk.walking import Folders
from captrain.errors import DataError, nearest
from captrain.records import Stored

__all__ = ["IMAGE_SUFFIXES", "UNREAD_SUFFIXES", "Root", "existing", "is_hidden", "is_remote", "refuse_pointer"]

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = (  # where pictures are beside their table, as data sets are handed out
    *(IMAGE_FOLDER, "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images"),
)

NOT_THERE = "names an image that is not there"


def is_remote(source: str) -> bool:
    """Whether a source is a URL, not a path.

    >>> [is_remote(source) for source in ("s3://bucket/00000.tar", "photos", "C:/photos")]
    [True, False, False]
    """
    return "://" in source


def existing(path: Path) -> Path:
    """`path`, if a file or folder is there; otherwise a `DataError` with the nearest name beside it."""
    try:
        if path.is_dir():
            return path
        if fault := fault_of(path):
            raise DataError(f"{path}: {fault}")
        if path.exists():
            return path
    except OSError as error:  # a name that is too long, or a folder above that can't be entered
        raise DataError(f"{str(path)[:200]}: can't be opened ({error.strerror})") from None
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"{path}: not found; the folder {parent} does not exist either")
    hint = nearest(path.name, (entry.name for entry in parent.iterdir()))
    raise DataError(
        f"{path}: not found.{hint} Expected a folder with pictures and captions, or a .jsonl file that lists them"
    )


def refuse_pointer(path: Path) -> None:
    """Raise `DataError` if a file is a Git LFS pointer."""
    if is_pointer_file(path):
        raise DataError(f"{path}: {POINTER}")


class Root:
    """The folder of a data set. Says where a named file is, and refuses what is outside.

    The files of a Hugging Face cache (`snapshots/<revision>/...`) are links to `blobs/` beside `snapshots/`: those are
    inside. If a person asked for it, everything that links below the folder lead to is inside; ids stay the paths below it.
    """

    def __init__(self, folder: Path, *, given: bool = False, follow_links: bool = False) -> None:
        """`given`: a person named the folder, so absolute paths of this machine that are outside of it are refused too."""
        self.folder, self.follow_links = folder, follow_links
        self.given = self.confined = given
        self.tried = ""  # the first path that led to no image
        self._bounds = [os.path.realpath(folder)]
        for above in Path(self._bounds[0]).parents:
            if above.name == "snapshots" and (above.parent / "blobs").is_dir():
                self._bounds.append(str(above.parent / "blobs"))
                self.confined = True
        self._folders = [name for name in IMAGE_FOLDERS if os.path.isdir(os.path.join(folder, name))]
        self._inside: dict[str, bool] = {}  # folder → whether it is inside, so that links are followed once a folder
        self.index = PictureIndex(str(folder), self.folders)
        self._places = [
            posixpath.join(Path(place).as_posix(), "") for place in (os.path.abspath(folder), self._bounds[0])
        ]
        self._moved, self._here = MovedPaths(self), PathsHere(self)
        self._told = self._has_archives = False

    def holds(self, path: str) -> bool:
        """Whether `path`, below the folder by its name, is inside once all links are followed."""
        if self.follow_links:
            return True
        real = os.path.realpath(path)
        return any(real == bound or real.startswith(os.path.join(bound, "")) for bound in self._bounds)

    def folders(self) -> Folders:
        """What lists the folder and those below it."""
        return Folders(self.folder, self.holds, follow=self.follow_links)

    def find(self, name: str, where: str) -> str | None:
        """The id of the image that a table calls `name`: its posix path below the folder; None if it is none, or not one.

        Looked for as `exact` does, else among all pictures below the folder (`PictureIndex.named`). An absolute path that
        leads elsewhere is one of this machine, or of another (`captrain.data.absolute_paths`). Raises `DataError`,
        beginning with `where`, for a path that leaves the folder.
        """
        if found := self.exact(name, where):
            return found
        relative = self._relative(name, where)
        if is_absolute(relative):
            return self._find_absolute(relative, name, where)
        likely = self.index.named(relative)
        if len(likely) != 1 or not (self._is_file(likely[0], name, where) or self.index.archived(likely[0])):
            return None
        self._tell(relative, likely[0], where)
        return likely[0]

    def exact(self, name: str, where: str) -> str | None:
        """The path of a file that is called so: below the folder, then below `images/` or another of `IMAGE_FOLDERS` in it.

        As written and in both normal forms of Unicode (macOS and Linux spell "é" differently). A folder may be called `~`
        or, but on Windows, `C:`.
        """
        relative = self._relative(name, where)
        if is_absolute(relative) and (os.name == "nt" or relative.startswith("/")):
            return None
        for spelling in _spellings(relative):
            for candidate in (spelling, *(f"{folder}/{spelling}" for folder in self._folders)):
                if self._is_file(candidate, name, where):
                    return candidate
        return None

    def first(self, names: Sequence[str], where: str) -> str | None:
        """The path of the first of several names of an image that leads to one: as written, before anything else."""
        exact = next((found for name in names if (found := self.exact(name, where))), None)
        return exact or next((found for name in names if (found := self.find(name, where))), None)

    def image(self, found: str) -> Path | Stored:
        """The path of the image with an id that `find` gave."""
        if outside := self._here.picture(found):
            return outside
        path = self.folder / found
        if not self._has_archives or os.path.lexists(path):
            return path
        self.index.look()  # another process has not yet
        return self.index.archived(found) or path

    def absence(self, name: str, where: str) -> str:
        """Why `find` has no path for a name, to be read after it."""
        relative = self._relative(name, where)
        likely = self._moved.likely(relative, where) if is_absolute(relative) else self.index.named(relative)
        if len(likely) > 1:
            return f"may be any of {len(likely)} images, '{likely[0]}' or '{likely[1]}'; expected a name of one"
        self.tried = self.tried or (relative if is_absolute(relative) else str(self.folder / relative))
        fault = "" if is_absolute(relative) else fault_of(self.folder / relative)
        return f"names what {fault}" if fault else NOT_THERE

    def _find_absolute(self, path: str, name: str, where: str) -> str | None:
        found = None if self.confined else self._here.find(path, where)
        if not found and (found := self._moved.find(path, where)):
            self._tell_of_archives(found, where)
        if found or (split_suffix(path)[1] and not (self.confined and is_here(path))):
            return found
        raise self._leaves(name, where)

    def _relative(self, name: str, where: str) -> str:
        """A name as a plain path below the folder; as an absolute path, if it is not below it."""
        written = posixpath.normpath(name.removeprefix("file://").replace("\\", "/"))
        if is_absolute(written):
            inside = next((place for place in self._places if written.startswith(place)), "")
            return written.removeprefix(inside)
        if written == ".." or written.startswith("../") or os.path.splitdrive(name)[0]:
            raise self._leaves(name, where)
        return written

    def _leaves(self, name: str, where: str) -> DataError:
        next_step = "" if self.given else ", or give --image-root"
        return DataError(
            f"{where}: {reprlib.repr(name)} leaves the folder {self.folder}; expected a path below it{next_step}"
        )

    def _is_file(self, candidate: str, name: str, where: str) -> bool:
        path = os.path.join(self.folder, candidate)
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):  # ValueError: a NUL or half a surrogate pair in the name
            return False
        parent = os.path.dirname(path)
        if parent not in self._inside:
            self._inside[parent] = self.holds(parent)
        if not self._inside[parent] or (stat.S_ISLNK(mode) and os.path.exists(path) and not self.holds(path)):
            raise DataError(
                f"{where}: {reprlib.repr(name)} is reached by a link that leaves the folder {self.folder}; "
                "--follow-links reads what it leads to"
            )
        return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and os.path.isfile(path))

    def _tell(self, relative: str, found: str, where: str) -> None:
        """Say once that names lead into other folders than they say."""
        if self._tell_of_archives(found, where):
            return
        folder = posixpath.dirname(relative)
        if not self._told and posixpath.dirname(found) not in (folder, posixpath.join(IMAGE_FOLDER, folder)):
            self._told = True
            logger.info("%s: '%s' is '%s' in %s, the one picture of that name", where, relative, found, self.folder)

    def _tell_of_archives(self, found: str, where: str) -> bool:
        """Log once that pictures are in an archive; returns whether this one is."""
        member = self.index.archived(found)
        if member is None or os.path.lexists(self.folder / found):
            return False
        if not self._has_archives:
            self._has_archives = True
            logger.info("%s: pictures are read out of %s, which need not be unpacked", where, archive_of(member))
        return True


def _spellings(name: str) -> Iterator[str]:
    """How a file of that name may be spelled: as it is first, then in other forms of Unicode, each folder and name by itself.

    >>> list(_spellings("a.JPG")), len(list(_spellings("caf\u00e9/caf\u00e9.jpg")))
    (['a.JPG'], 4)
    """
    folder, slash, base = name.rpartition("/")
    for place in _forms(folder):
        for spelled in _forms(base):
            yield f"{place}{slash}{spelled}"


def _forms(name: str) -> Iterable[str]:
    if name.isascii():
        return (name,)
    return dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)))


def as_spelled(path: Path) -> Path | None:
    """The file at a path, spelled as it is, else in another form of Unicode or with its ending in other letters; None if none is.

    >>> as_spelled(Path(__file__)) == Path(__file__), as_spelled(Path("no/such.jpg"))
    (True, None)
    """
    stem, suffix = os.path.splitext(str(path))
    names = (stem + ending for ending in dict.fromkeys((suffix, suffix.lower(), suffix.upper())))
    spellings = (spelled for name in names for spelled in _spellings(name))
    return next((Path(spelled) for spelled in spellings if os.path.isfile(spelled)), None)
