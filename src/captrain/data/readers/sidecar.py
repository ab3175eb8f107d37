"""A folder of images with captions beside them: `dog.jpg` and `dog.txt`, one caption per line, in nested folders too.

`captrain.data.caption_file_names` says which file belongs to which image. If every image is below a folder called train,
validation (val, dev) or test, those are the splits. `FolderCaptions` reads the caption files of a folder: the captions, who wrote
them, and what a person should know about the files, for example that some look like one text in paragraphs.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captrain.data.caption_buffers import FlatTexts
from captrain.data.caption_file_names import CaptionFile, CaptionFolder, is_text, text_suffixes
from captrain.data.machine_captions import MACHINE, CaptionLedger, remark_on_machine
from captrain.data.picture_files import is_unicode, unread
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.detection import tables_there
from captrain.data.readers.remarks import TABLES, lying_there
from captrain.data.safe_paths import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Root, existing
from captrain.data.samples import ChosenSamples, LazySamples, key_of
from captrain.data.splits import SPLIT_NAMES
from captrain.data.text_encoding import LARGEST_TEXT, lines_of, read_text
from captrain.disk.walking import FolderEntry
from captrain.errors import DataError
from captrain.limits import LONGEST_CAPTION, TOO_LONG
from captrain.records import Rejects, Sample

__all__ = ["LARGEST_TEXT", "FolderSamples", "is_unicode", "read", "recognises"]

TOLD_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES | {*TABLES}  # endings of pipes and devices that are reported


class FolderSamples(LazySamples):
    """Images by their paths; captions are read from the text beside an image when it is asked for."""

    def __init__(self, root: Path, options: ReadOptions) -> None:
        self.root, self.options = root, options
        self.images = FlatTexts()
        self.endings = [""]  # what follows an image's path without its suffix in its text's: ".txt", ".jpg.txt"
        self.texts = array("I")  # of an image: the place of its text's ending, 0 if it has no text
        self.renamed: dict[int, str] = {}  # of an image whose text is spelled otherwise: that text's path
        self.makers: dict[int, tuple[str, ...]] = {}  # of an image whose text a machine wrote lines of

    def append(self, image: str, found: Captioned) -> None:
        """Add an image."""
        stem, text = os.path.splitext(image)[0], image[: image.rfind("/") + 1] + found.text
        ending = text[len(stem) :] if found.text else ""
        if found.text and not text.startswith(stem):
            self.renamed[len(self)] = text
            ending = os.path.splitext(text)[1]
        if found.makers:
            self.makers[len(self)] = found.makers
        if ending not in self.endings:
            self.endings.append(ending)
        self.images.append(image)
        self.texts.append(self.endings.index(ending))

    def __len__(self) -> int:
        return len(self.images)

    def keys(self) -> np.ndarray:
        return np.fromiter((key_of(image) for image in self.images), dtype=np.uint64, count=len(self))

    def ids(self) -> Iterator[str]:
        return iter(self.images)

    def sample_at(self, index: int) -> Sample:
        name = self.images[index]
        captions: tuple[str, ...] = ()
        machine: tuple[str, ...] = ()
        if ending := self.endings[self.texts[index]]:
            text = self.root / self.renamed.get(index, os.path.splitext(name)[0] + ending)
            try:
                lines = read_text(text, self.options.encoding).lines()
            except (OSError, ValueError) as error:
                raise DataError(f"{text}: {error}; it was readable when the folder was listed") from None
            if not lines:
                raise DataError(f"{text}: holds no caption; it held one when the folder was listed")
            captions, machine = captions_in_lines(lines, self.makers.get(index, ()), self.options)
        return Sample(name, self.root / name, captions, name, machine=machine)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a folder: any folder may hold pictures and captions."""
    return Path(source).is_dir()


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images below `source`, sorted by their paths, which are also their ids.

    Rejected are images without captions, captions without images, texts that are empty or not UTF-8, and links that
    leave the folder. With `captioned=False` an image needs no caption. Raises `DataError` if nothing is left.
    """
    walk = _Walk(existing(Path(source)), rejects, options, captioned)
    walk.go()
    if not walk.samples:
        raise DataError(walk.nothing_left())
    splits = _by_split(walk.samples.images)
    if splits is None:
        return {"all": walk.samples}
    return {split: ChosenSamples(walk.samples, np.array(positions)) for split, positions in splits.items()}


class _Walk:
    """Goes through a folder and all below it, a folder at a time, so that little is held besides the samples."""

    def __init__(self, root: Path, rejects: Rejects, options: ReadOptions, captioned: bool) -> None:
        self.root, self.rejects, self.captioned = root, rejects, captioned
        self.suffixes = text_suffixes(options.caption_extension)
        self.samples = FolderSamples(root, options)
        self.folders = Root(root, follow_links=options.follow_links).folders()
        self.captions = FolderCaptions(root, rejects, options, captioned)
        self.image_count = self.text_count = self.odd_count = 0

    def go(self) -> None:
        """Fill `samples` in the order of their paths. It uses a stack, not recursion: folders may nest a thousand deep."""
        left: list[tuple[str, Captioned | None]] = [("", NO_TEXT)]  # a folder's path is "" or ends in "/"
        while left:
            path, found = left.pop()
            if not path or path.endswith("/"):
                left.extend(reversed(self._open(path)))
            elif found is not None:
                self.samples.append(path, found)
        self.captions.finish()

    def nothing_left(self) -> str:
        """The error for a folder without anything to use."""
        counts = f"{self.image_count} images and {self.text_count or 'no'} captions"
        is_told = self.odd_count or (self.image_count and self.text_count)
        first = f"; {self.rejects.summary()}" if self.rejects and is_told else ""
        beside = f"a {' or '.join(self.suffixes)} beside each image or a metadata.jsonl"
        wanted = beside if self.captioned else "JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF files"
        if made := self.rejects.remarked(MACHINE):
            first += f"; {made} images have captions that captrain wrote, which do not count here (--learn-from-machine-captions)"
        there = "".join(f"; {said}" for said in [*lying_there([self.root]), *tables_there(self.root)])
        return f"{self.root}/: {counts}{there}; expected {wanted}{first}"

    def _open(self, prefix: str) -> list[tuple[str, Captioned | None]]:
        """The images of a folder with what is known of their captions (None: left out), and the folders in it."""
        names: list[str] = []
        others: list[str] = []
        for entry in self._listed(prefix):
            name = entry.name
            if odd := self._oddity(entry):
                self.odd_count += 1
                self._reject(prefix + name, odd)
            elif entry.is_folder:
                names.append(f"{name}/")
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                names.append(name)
            elif is_text(name, self.suffixes):
                others.append(name)
        images = [name for name in names if not name.endswith("/")]
        self.image_count += len(images)
        self.text_count += len(others)
        found = self.captions.of(prefix, images, others)
        return [(prefix + name, found.get(name, NO_TEXT if name.endswith("/") else None)) for name in names]

    def _listed(self, prefix: str) -> list[FolderEntry]:
        """What is in a folder. One that can't be listed is rejected, if it is not the data set's own."""
        try:
            return self.folders.entries(prefix)
        except OSError as error:
            if not prefix:
                raise DataError(f"{str(self.root)[:200]}: can't be listed ({error.strerror})") from None
            self._reject(prefix, f"can't be listed ({error.strerror})")
            return []

    def _reject(self, path: str, reason: str) -> None:
        plain = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.rejects.add(plain, str(self.root / plain), reason)

    def _oddity(self, entry: FolderEntry) -> str:
        """Why a file or folder can't be used, whatever is in it; "" if nothing speaks against it."""
        if not is_unicode(entry.name):
            return "has a name that is not UTF-8; rename it"
        suffix = os.path.splitext(entry.name)[1]
        kind = suffix.lower()
        is_told = entry.is_folder or entry.is_link or kind in TOLD_SUFFIXES or is_text(entry.name, self.suffixes)
        if entry.is_folder or (entry.fault and is_told):
            return entry.fault
        return unread(suffix) if kind in UNREAD_SUFFIXES else ""


def _by_split(images: Sequence[str]) -> dict[str, array[int]] | None:
    """Positions of images by split, if all their top folders' names are names of splits."""
    splits: dict[str, array[int]] = {}
    for position, image in enumerate(images):
        top, slash, _ = image.partition("/")
        if not slash or top.lower() not in SPLIT_NAMES:
            return None
        splits.setdefault(SPLIT_NAMES[top.lower()], array("q")).append(position)
    return splits


class Captioned(NamedTuple):
    """An image's caption file, and for each of its lines what wrote it ("" is a person; () if persons wrote all)."""

    text: str = ""
    makers: tuple[str, ...] = ()


NO_TEXT = Captioned()


def captions_in_lines(
    lines: Sequence[str], makers: Sequence[str], options: ReadOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions in the lines of a file, and for each what wrote it, by what wrote the lines.

    >>> captions_in_lines(["mine", "a dog"], ["", "runs/album"], ReadOptions())
    (('mine', 'a dog'), ('', 'runs/album'))
    >>> captions_in_lines(["mine", "a dog"], ["", "runs/album"], ReadOptions(caption_lines="whole", machine_captions=False))
    (('mine',), ())
    """
    named = dict(enumerate(makers))
    kept = [(line, named.get(place, "")) for place, line in enumerate(lines)]
    if not options.machine_captions:
        kept = [(line, maker) for line, maker in kept if not maker]
    if options.caption_lines == "whole" and kept:
        by_machine = all(maker for _, maker in kept)
        kept = [(" ".join(line for line, _ in kept), kept[-1][1] if by_machine else "")]
    wrote = tuple(maker for _, maker in kept)
    return tuple(line for line, _ in kept), wrote if any(wrote) else ()


class FolderCaptions:
    """Takes one folder of a data set after another; what is wrong with a file is reported once."""

    def __init__(self, root: Path, rejects: Rejects, options: ReadOptions, captioned: bool) -> None:
        self.root, self.rejects, self.options, self.captioned = root, rejects, options, captioned
        self.suffixes = text_suffixes(options.caption_extension)
        self.paragraphs = Paragraphs()

    def of(self, prefix: str, images: Sequence[str], others: Sequence[str]) -> dict[str, Captioned]:
        """What is known of the captions of each image that is a sample. `prefix` is the folder's path, with its slash."""
        folder = CaptionFolder(self.root / prefix, images, others, self.suffixes, self.options.encoding)
        ledger, faulty = CaptionLedger(folder.folder), set()
        found: dict[str, Captioned] = {}
        for image in images:
            text = folder.choose(image)
            fault = _fault(text, self.options.caption_lines == "whole")
            captioned = self._of(prefix, image, text, ledger) if text and not fault else NO_TEXT
            if captioned.text or not self.captioned:
                found[image] = captioned
            elif fault and (name := text.name if text else image) not in faulty:
                faulty.add(name)
                self.rejects.add(*self._about(prefix + name), fault)
        if self.captioned:
            self._tell(prefix, folder)
        return found

    def finish(self) -> None:
        """Called when all folders were seen."""
        if self.captioned and self.options.caption_lines == "each":
            for name in self.paragraphs.names():
                about = (
                    "looks like one text of several lines, which are read as captions; --caption-lines whole reads one"
                )
                self.rejects.remark("paragraphs", *self._about(name), about)

    def _of(self, prefix: str, image: str, found: CaptionFile, ledger: CaptionLedger) -> Captioned:
        """The captions of an image that has some; those that a machine wrote are remarked on, or do not count."""
        lines = found.text.lines()
        self.paragraphs.look(prefix + found.name, found.text.content)
        makers = ledger.makers(found.name, found.text.raw, lines) if ledger else ()
        if not any(makers):
            return Captioned(found.name)
        remark_on_machine(self.rejects, *self._about(prefix + image), makers)
        counts = self.options.machine_captions or not all(makers)
        return Captioned(found.name, makers) if counts else NO_TEXT

    def _tell(self, prefix: str, folder: CaptionFolder) -> None:
        """Texts of no image are rejected; images with two texts, and texts of two images, are remarked on."""
        for name in folder.strays:
            self.rejects.add(*self._about(prefix + name), "has no image beside it")
        for name, images in folder.shared():
            which = f"{', '.join(images[:3])}{' ...' if len(images) > 3 else ''}"
            about = f"is the caption file of {len(images)} pictures ({which})"
            self.rejects.remark("shared-text", *self._about(prefix + name), about)
        for image, name in folder.hidden():
            about = f"has a second caption file, {name}, which is not read"
            self.rejects.remark("two-texts", *self._about(prefix + image), about)

    def _about(self, path: str) -> tuple[str, str]:
        return path, str(self.root / path)


def _fault(text: CaptionFile | None, is_whole: bool) -> str:
    """Why a picture's caption file gives it no caption; "" if it does. `is_whole`: all of it is one caption."""
    if text is None:
        return "has no caption beside it"
    if is_whole and len(text.text.content) > LONGEST_CAPTION:
        return TOO_LONG
    return text.fault or ("holds no caption" if text.is_empty else "")


LONG = 100  # bytes, so that a script of many words a letter counts as one of many letters a word

_SENTENCE = re.compile(r"[.!?][\"')\]]*\s+\S|[。！？]+[^\s。！？」』）]")
_BLANK = re.compile(r"\S[^\S\n]*\r?\n[^\S\n]*\r?\n\s*\S")


class Paragraphs:
    """Looks at text after text. A long line of several sentences suggests paragraphs; so does a blank line between lines, or a
    sentence that goes on in the next line, where most texts have one line only.

    >>> looked = Paragraphs()
    >>> for name, text in {"a.txt": "a dog", "b.txt": "a cat", "c.txt": "A dog.\\n\\nIt runs.", "d.txt": "a cow"}.items():
    ...     looked.look(name, text)
    >>> list(looked.names())
    ['c.txt']
    """

    def __init__(self) -> None:
        self.one_line = self.several = 0
        self.found: dict[str, bool] = {}  # for each text, whether it alone is enough

    def look(self, name: str, content: str) -> None:
        """Take in one text that holds captions."""
        lines = lines_of(content)
        if len(lines) < 2:
            self.one_line += 1
            return
        self.several += 1
        if any(len(line.encode()) >= LONG and _SENTENCE.search(line) for line in lines):
            self.found[name] = True
        elif _BLANK.search(content) or _goes_on(lines):
            self.found[name] = False

    def names(self) -> Iterator[str]:
        """Texts that look like paragraphs, once all are in."""
        usual = self.one_line > self.several
        return (name for name, by_itself in self.found.items() if by_itself or usual)


def _goes_on(lines: tuple[str, ...]) -> bool:
    """Whether a line that begins as a sentence goes on in the next one.

    >>> _goes_on(("A dog runs over", "the grass.")), _goes_on(("a dog", "a brown dog"))
    (True, False)
    """
    return any(one[0].isupper() and one[-1].isalpha() and other[0].islower() for one, other in pairwise(lines))
