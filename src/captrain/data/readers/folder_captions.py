"""What the caption files in a folder of images say: captions, who wrote them, and what is to be told of the files.

Caption files that look like one text in paragraphs, where each of their lines would be read as a caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from captrain.data.caption_files import CaptionFile, CaptionFolder, text_suffixes
from captrain.data.machine import Ledger, remark_on_machine
from captrain.data.options import ReadOptions
from captrain.data.text import lines_of
from captrain.limits import LONGEST_CAPTION, TOO_LONG
from captrain.records import Rejects


class Captioned(NamedTuple):
    """An image's caption file, and for each of its lines what wrote it ("" is a person; () if persons wrote all)."""

    text: str = ""
    makers: tuple[str, ...] = ()


NO_TEXT = Captioned()


def captions_of(
    lines: Sequence[str], makers: Sequence[str], options: ReadOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions in the lines of a file, and for each what wrote it, by what wrote the lines.

    >>> captions_of(["mine", "a dog"], ["", "runs/album"], ReadOptions())
    (('mine', 'a dog'), ('', 'runs/album'))
    >>> captions_of(["mine", "a dog"], ["", "runs/album"], ReadOptions(caption_lines="whole", machine_captions=False))
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
    """Takes one folder of a data set after another; what is wrong with a file is told once."""

    def __init__(self, root: Path, rejects: Rejects, options: ReadOptions, captioned: bool) -> None:
        self.root, self.rejects, self.options, self.captioned = root, rejects, options, captioned
        self.suffixes = text_suffixes(options.caption_extension)
        self.paragraphs = Paragraphs()

    def of(self, prefix: str, images: Sequence[str], others: Sequence[str]) -> dict[str, Captioned]:
        """What is known of the captions of each image that is a sample. `prefix` is the folder's path, with its slash."""
        folder = CaptionFolder(self.root / prefix, images, others, self.suffixes, self.options.encoding)
        ledger, faulty = Ledger(folder.folder), set()
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
        """All folders are seen."""
        if self.captioned and self.options.caption_lines == "each":
            for name in self.paragraphs.names():
                about = (
                    "looks like one text of several lines, which are read as captions; --caption-lines whole reads one"
                )
                self.rejects.remark("paragraphs", *self._about(name), about)

    def _of(self, prefix: str, image: str, found: CaptionFile, ledger: Ledger) -> Captioned:
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
    """Looks at text after text. A long line of several sentences tells paragraphs; so does a blank line between lines, or a
    sentence that goes on in the next line, where most texts have one line only.

    >>> looked = Paragraphs()
    >>> for name, text in {"a.txt": "a dog", "b.txt": "a cat", "c.txt": "A dog.\\n\\nIt runs.", "d.txt": "a cow"}.items():
    ...     looked.look(name, text)
    >>> list(looked.names())
    ['c.txt']
    """

    def __init__(self) -> None:
        self.one_line = self.several = 0
        self.found: dict[str, bool] = {}  # of a text: whether it tells by itself

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
