"""Captions into the files beside pictures: the file that a picture has is changed (`data.caption_file_names`).

Every change is first noted in the folder's ledger (`data.machine_captions`), so that an interrupted command that is repeated adds
no caption twice: if the same model's caption is already in a file, unchanged, the picture is done.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from captrain.data.caption_file_names import CaptionFile, CaptionFolder, is_text, read_caption_file, text_suffixes
from captrain.data.machine_captions import FILE, HOME, CaptionChange, CaptionLedger, CaptionMaker, How
from captrain.data.read_options import ReadOptions
from captrain.data.safe_paths import IMAGE_SUFFIXES, is_hidden
from captrain.data.text_encoding import Text
from captrain.disk.folders import check_way, sync_all
from captrain.disk.reading import UTF_8
from captrain.disk.writing import check_target, write_bytes
from captrain.errors import DataError, PictureError, UserError
from captrain.records import Caption, Rejects, Sample

USUAL = ".txt"
ADDING: dict[str, How] = {"append": "append", "prepend": "prepend"}


class Beside:
    """A caption file beside each picture.

    Args:
        extension: ending of the files. With .txt, which new files have by default, the other usual endings count too, or
            the one that `options` name.
        existing: what to do if a picture has a caption: skip, overwrite, append or prepend.
    """

    def __init__(self, extension: str, existing: str, options: ReadOptions) -> None:
        is_usual = extension.lstrip(".") == USUAL.lstrip(".")
        self.suffixes = text_suffixes(options.caption_extension if is_usual else extension)
        self.ending = self.suffixes[0] if is_usual else f".{extension.lstrip('.')}"
        self.existing, self.encoding = existing, options.encoding
        self.maker: CaptionMaker | None = None
        self._folders: dict[Path, _Folder] = {}
        self._new: list[Path] = []
        self._owners: dict[Path, str] = {}  # a file that is to be changed → the picture it is changed for

    def wants(self, sample: Sample, rejects: Rejects) -> bool:
        """Not if it has a caption (when skipping), nor if its file can't be read, or is that of another picture too."""
        image = _image(sample)
        folder = self._folder(image.parent)
        found = folder.captions.choose(image.name)
        path = self._path(image, found)
        if found is not None and found.fault and self.existing != "overwrite":
            rejects.add(sample.id, str(path), found.fault)
        elif _is_too_long(path):
            rejects.add(sample.id, str(path), "would have a name that is too long for a file; use --output")
        elif found is None and os.path.lexists(path):
            rejects.add(sample.id, str(path), "is there and is not a caption file; remove or rename it")
        elif found is not None and not found.is_empty and self.existing == "skip":
            if other := folder.written_for_another(image.name, found):
                rejects.add(sample.id, str(image), f"would share {path.name} with {other}; use --output")
        elif fault := _fault(path):
            rejects.add(sample.id, str(image), fault)
        elif self._owners.setdefault(path, sample.id) != sample.id:
            rejects.add(sample.id, str(image), f"would share {path.name} with {self._owners[path]}; use --output")
        else:
            return True
        return False

    def begin(self, maker: CaptionMaker) -> None:
        """Say which model writes."""
        self.maker = maker

    def is_done(self, sample: Sample) -> bool:
        """Whether the same model has added its caption before, for example in an interrupted command."""
        image = _image(sample)
        folder = self._folder(image.parent)
        found = folder.captions.choose(image.name)
        if self.existing not in ADDING or found is None or self.maker is None:
            return False
        return folder.ledger.holds(found.name, found.text.raw, found.text.lines(), self.maker)

    def put(self, sample: Sample, caption: Caption) -> None:
        """Write or change the file, whole. Raises `PictureError` if it can't hold this caption."""
        assert self.maker is not None
        image = _image(sample)
        folder = self._folder(image.parent)
        path = self._path(image, folder.captions.choose(image.name))
        found = read_caption_file(path.parent, path.name, self.encoding) if path.exists() else None
        text = Text("", self.encoding or UTF_8) if found is None or found.fault else found.text
        how = ADDING.get(self.existing, "write") if text.lines() else "write"
        try:
            content = text.encoded(_joined(text.content.strip(), caption.text, how))
        except ValueError as error:
            raise PictureError(f"has a caption that can't be written: {path.name} {error}") from None
        before = path.read_bytes() if found is not None else None
        try:
            folder.ledger.add(CaptionChange.of(path.name, image.name, how, caption.text, before, self.maker))
            write_bytes(path, content, sync=found is not None)
        except UserError as error:  # a link
            raise PictureError(f"gets no caption: {error}") from None
        if found is None:
            self._new.append(path)

    def close(self) -> None:
        """Every file is complete already; new ones, which replace nothing, are flushed to the disk together."""
        sync_all(self._new)

    def rejects_path(self) -> Path:
        """In the working folder, not among the pictures, where it would be taken for data."""
        return Path("captrain-rejected.jsonl")

    def _path(self, image: Path, found: CaptionFile | None) -> Path:
        """The file to change: the picture's own, or a new one."""
        captions = self._folder(image.parent).captions
        return image.with_name(found.name if found is not None else captions.new_name(image.name, self.ending))

    def _folder(self, place: Path) -> _Folder:
        """What is in a folder, looked at once."""
        if place not in self._folders:
            self._folders[place] = _Folder.of(place, self.suffixes, self.encoding)
        return self._folders[place]


@dataclass(frozen=True, slots=True)
class _Folder:
    """The caption files of a folder, and what captrain wrote there before."""

    captions: CaptionFolder
    ledger: CaptionLedger

    @classmethod
    def of(cls, place: Path, suffixes: tuple[str, ...], encoding: str) -> _Folder:
        try:
            with os.scandir(place) as listing:
                names = sorted(entry.name for entry in listing if not is_hidden(entry.name) and os.path.isfile(entry))
        except OSError as error:
            raise DataError(f"{place}: can't be listed ({error.strerror})") from None
        images = [name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        texts = [name for name in names if is_text(name, suffixes)]
        return cls(CaptionFolder(place, images, texts, suffixes, encoding), CaptionLedger(place))

    def written_for_another(self, image: str, found: CaptionFile) -> str:
        """The picture that captrain wrote a picture's file for, where that is another one of the folder; else ""."""
        other = self.ledger.picture_of(found.name, found.text.raw)
        return other if other not in ("", image) and self.captions.holds_image(other) else ""


def _is_too_long(path: Path) -> bool:
    """Whether the file system takes no such name."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _fault(path: Path) -> str:
    """Why a caption file is not written, "" if it may be: what a link leads to may be no caption, and a secret."""
    try:
        check_target(path)
        check_way(path.parent / HOME, path.parent)
        check_target(path.parent / HOME / FILE)
    except UserError as error:
        return f"gets no caption: {error}"
    return ""


def _image(sample: Sample) -> Path:
    """Where a picture is. Raises `UserError` if it is not a file by itself."""
    if isinstance(sample.image, Path):
        return sample.image
    raise UserError(
        f"{sample.source}: a picture in an archive, or outside of its table's folder, gets no file beside it; "
        "give --output captions.jsonl"
    )


def _joined(before: str, caption: str, how: How) -> str:
    """The content of a changed file.

    >>> _joined("mine", "a dog", "append"), _joined("mine", "a dog", "write")
    ('mine\\na dog\\n', 'a dog\\n')
    """
    lines = {"append": (before, caption), "prepend": (caption, before), "write": (caption,)}[how]
    return "\n".join(lines) + "\n"
