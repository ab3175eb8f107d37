"""Captions for files: a text file beside each picture, or one JSONL for all; skipped, continued and replaced as asked."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from captrain.data.dataset import list_images
from captrain.data.machine_captions import CaptionMaker
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.samples import ChosenSamples
from captrain.disk.folders import make_folder, remove, sync
from captrain.disk.locks import locked, locked_folders
from captrain.disk.writing import check_target, move
from captrain.errors import BusyError, PictureError, UserError
from captrain.features.stream import Computing
from captrain.inference.captioner import Captioner, machine_line, maker_of
from captrain.inference.parts_folder import PartsFolder
from captrain.inference.sidecar_captions import Beside
from captrain.models.checkpoint.located import check_model
from captrain.models.decoding import Written
from captrain.paths import JSON_LINES, check_output_file
from captrain.progress import track
from captrain.records import Caption, Rejects, Sample, append_jsonl, drop_half_line, lines_with_ids, write_jsonl

logger = logging.getLogger(__name__)

PART_IMAGES = 512
MOST_TOLD = 20  # rejected pictures that are logged if they can't be listed


@dataclass(frozen=True, slots=True)
class CaptionOutcome:
    """The number of captions written, of pictures that already had one, and of rejected ones, and where these are listed.

    `unread` names sources that could not be read to their end.
    """

    written: int
    skipped: int
    rejected: int
    rejects_file: Path | None
    unread: tuple[str, ...] = ()


class CaptionsTarget(Protocol):
    """Where captions go."""

    def wants(self, sample: Sample, rejects: Rejects) -> bool:
        """Whether a caption is to be written for this sample."""

    def begin(self, maker: CaptionMaker) -> None:
        """Say which model writes, before the first caption."""

    def is_done(self, sample: Sample) -> bool:
        """Whether the caption of a wanted sample was written before by this model."""

    def put(self, sample: Sample, caption: Caption) -> None:
        """Write one. Raises `PictureError` if it can't be written where it belongs."""

    def close(self) -> None:
        """Finish: all captions are written."""

    def rejects_path(self) -> Path:
        """Where to list rejected pictures."""


@dataclass(frozen=True, slots=True)
class CaptionOutput:
    """Where captions go.

    path: one JSONL file for all; None for the caption file beside each picture.
    extension: ending of caption files beside pictures; with .txt, the file that a picture has is changed.
    existing: skip pictures that have a caption, or overwrite it, or append or prepend to it.
    part_images: pictures in a part of an engine: at most so many are captioned again on each device after a kill.
    """

    path: Path | None = None
    extension: str = ".txt"
    existing: str = "skip"
    part_images: int = PART_IMAGES


def caption_files(
    model: str,
    images: list[str] | str,
    to: CaptionOutput,
    *,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    computing: Computing | None = None,
    decoding: Mapping[str, Any] = MappingProxyType({}),
) -> CaptionOutcome:
    """Write captions for pictures, folders, lists or data sets.

    Args:
        to: where captions go, and what happens to those that are there.
        format, options: how data sets among the images are read. computing: how pictures are batched, and where.
        decoding: changes to the model's own decoding.
    """
    computing = computing or Computing()
    output, existing = to.path, to.existing
    if output is not None:
        check_captions_file(output)
        _refuse_adding(existing)
    check_model(model)
    rejects = Rejects()
    by_persons = replace(options, machine_captions=False)  # only these are references
    sources = [images] if isinstance(images, str) else images
    samples = list_images(sources, rejects, format=format, options=by_persons)
    with _only_writer(output, samples), ExitStack() as stack:
        target: CaptionsTarget = (
            Beside(to.extension, existing, options) if output is None else CaptionLines(output, existing)
        )
        listing_path = _held_list(target.rejects_path(), stack)
        listed = len(rejects)
        wanted = [index for index in range(len(samples)) if target.wants(samples[index], rejects)]
        skipped = len(samples) - len(wanted) - (len(rejects) - listed)
        written = 0
        if wanted:
            captioner = Captioner.load(model, computing.device, computing.precision)
            how = captioner.decoding(dict(decoding))
            target.begin(maker_of(model, captioner, how))
            todo = ChosenSamples(
                samples, np.array([at for at in wanted if not target.is_done(samples[at])], dtype=np.int64)
            )
            skipped += len(wanted) - len(todo)
            with _telling_how_to_go_on(existing), track("caption", len(todo)) as advance:
                for index, line in captioner.stream(
                    todo, how, rejects, computing.batch_size, computing.workers, computing.max_pixels
                ):
                    written += _put(target, todo[index], line, rejects)
                    advance(1)
        target.close()
        listing = _list_rejects(rejects, listing_path)
    logger.info("%d captions written, %d pictures left as they are, %d rejected", written, skipped, len(rejects))
    return CaptionOutcome(written, skipped, len(rejects), listing)


def _only_writer(output: Path | None, samples: Sequence[Sample]) -> AbstractContextManager[None]:
    """The lock on the one file for all, or on all folders that captions may be written into."""
    if output is None:
        return locked_folders(sample.image.parent for sample in samples if isinstance(sample.image, Path))
    make_folder(output.parent)
    return locked(output)


@contextmanager
def _telling_how_to_go_on(existing: str) -> Iterator[None]:
    """If this command is interrupted, log what the same command does next."""
    try:
        yield
    except KeyboardInterrupt:
        does = "begins again, as --existing overwrite says" if existing == "overwrite" else "goes on with the rest"
        logger.warning("captions that are written stay; the same command %s", does)
        raise


def _held_list(path: Path, stack: ExitStack) -> Path:
    """The list of rejected pictures: `path`, or the same with a number if another process writes that. It is locked.

    A folder that can't be written matters only if there is something to list. Raises `UserError` for a link.
    """
    place, number = path, 1
    while os.access(path.parent, os.W_OK):
        check_target(place)
        try:
            stack.enter_context(locked(place))
            break
        except BusyError:
            number += 1
            place = path.with_stem(f"{path.stem}-{number}")
    return place


def _put(target: CaptionsTarget, sample: Sample, line: Written, rejects: Rejects) -> bool:
    """Write one caption; whether it could be written."""
    try:
        target.put(sample, Caption.of(sample, line.text, line.score))
    except PictureError as error:
        rejects.add(sample.id, sample.source or sample.id, str(error))
        return False
    return True


class CaptionLines:
    """One JSONL file, written as `FILE.partial` and renamed when complete; an interrupted one is continued."""

    def __init__(self, path: Path, existing: str) -> None:
        self.path, self.maker = path, ""
        self.partial = partial_of(path)
        _refuse_parts(path, existing)
        if existing == "overwrite":
            remove(self.partial)
        elif not self.partial.exists() and path.exists():
            write_jsonl(self.partial, lines_with_ids(path))
        drop_half_line(self.partial)
        self.done = {str(line["id"]) for line in lines_with_ids(self.partial)} if self.partial.exists() else set()

    def wants(self, sample: Sample, rejects: Rejects) -> bool:
        """True unless the file already has its caption."""
        return sample.id not in self.done

    def begin(self, maker: CaptionMaker) -> None:
        """Say which model writes: each line states it."""
        self.maker = str(maker)

    def is_done(self, sample: Sample) -> bool:
        """False: `wants` knows everything that is done."""
        return False

    def put(self, sample: Sample, caption: Caption) -> None:
        """Add a line."""
        append_jsonl(self.partial, [machine_line(caption, self.maker)])

    def close(self) -> None:
        """Give the file its name."""
        if self.partial.exists():
            sync(self.partial)
            move(self.partial, self.path)
        else:
            write_jsonl(self.path, [])

    def rejects_path(self) -> Path:
        """Beside the captions."""
        return rejects_path_of(self.path)


def check_captions_file(output: Path) -> None:
    """Raise `UserError` for an output whose name is not that of a JSONL file, or where no file can be written."""
    check_output_file(output, JSON_LINES, "JSON lines are")
    for path in (output, partial_of(output), rejects_path_of(output)):
        check_target(path)


def partial_of(output: Path) -> Path:
    """The name of the one file for all until it is complete."""
    return output.with_name(output.name + ".partial")


def rejects_path_of(output: Path) -> Path:
    """Where the pictures without a caption in the file are listed.

    >>> rejects_path_of(Path("captions.jsonl")).name
    'captions.rejected.jsonl'
    """
    return output.with_suffix(".rejected.jsonl")


def _refuse_adding(existing: str) -> None:
    """Raise `UserError` if captions are to be added to those of one file for all."""
    if existing in ("append", "prepend"):
        raise UserError(f"--existing {existing} is for text files beside pictures; with --output use skip or overwrite")


def _refuse_parts(output: Path, existing: str) -> None:
    """Raise `UserError` if an engine has begun to write this output, unless it is overwritten."""
    parts = PartsFolder(output)
    if parts.about() is None:
        return
    if existing != "overwrite":
        raise UserError(
            f"{parts.folder.label}: was begun with --engine; go on with it, or start over with --existing overwrite"
        )
    parts.clear()
    parts.leave()


def _list_rejects(rejects: Rejects, path: Path) -> Path | None:
    """Write the list of rejected pictures, if there are any."""
    if not rejects:
        return None
    try:
        write_jsonl(path, rejects.lines)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        reasons = "; ".join(f"{line['id']}: {line['reason']}" for line in rejects.lines[:MOST_TOLD])
        logger.warning("%s; no list at %s (%s): %s", rejects.summary(), path, error.strerror, reasons)
        return None
    logger.warning("%s (listed in %s)", rejects.summary(), path)
    return path
