"""What the caption files in a folder of images say: captions, who wrote them, and what is to be told of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from captrain.data.caption_files import CaptionFile, CaptionFolder, text_suffixes
from captrain.data.machine import Ledger, remark_on_machine
from captrain.data.readers.options import ReadOptions
from captrain.data.readers.paragraphs import Paragraphs
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
