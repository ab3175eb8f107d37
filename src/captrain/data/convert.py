"""From any form of data that is read to any that is written, a sample at a time."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from captrain.data.dataset import read_splits
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.writers import SHARD_SIZE, FormTarget, FormWriter, Losses, OutputSample, guarded, new_folder, writer
from captrain.data.writers.picture_output import OutputPicture, encode_picture
from captrain.errors import DataError, PictureError, SettingsError
from captrain.picture_memory import MAX_PIXELS
from captrain.progress import Advance, track
from captrain.records import Rejects, Sample, write_jsonl

logger = logging.getLogger(__name__)

REJECTED = "rejected.jsonl"
QUALITY = 90  # of JPEG: above it files grow much faster than they get better
REPEATS_LOST = "repeats of {images} images are not kept; only kohya holds them"
MAKERS_LOST = (
    "captrain wrote {amount} captions of {images} images: there they count as a person's; "
    "metadata-jsonl, sidecar and kohya say what wrote them"
)

Images = Literal["copy", "link", "encode"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How many images were written, by split; how many were rejected, and where they are listed."""

    written: dict[str, int]
    rejected: int
    rejects_file: Path | None


@dataclass(frozen=True, slots=True)
class PictureChanges:
    """What becomes of the picture files.

    files: keep them as copies or hard links, or encode them again as JPEG. Default: copy; encode where a size or quality is
        given. max_side: longest side of encoded pictures, in pixels; smaller ones are not enlarged. quality: of JPEG.
    """

    files: Images | None = None
    max_side: int | None = None
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class FormOptions:
    """Options of some forms only: samples per shard; whether a CSV escapes captions that a spreadsheet would run."""

    shard_size: int = SHARD_SIZE
    quote_formulas: bool = False


AS_THEY_ARE, USUAL_FORM = PictureChanges(), FormOptions()


def convert(
    source: str,
    folder: Path,
    to: str,
    *,
    pictures: PictureChanges = AS_THEY_ARE,
    form: FormOptions = USUAL_FORM,
    overwrite: bool = False,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Conversion:
    """Write a data set in another form.

    Args:
        folder: the result; it appears when everything is done.
        to: a name of `writers.WRITERS`.

    Images that can't be read, have no caption, or can't be decoded for encoding are listed in `folder/rejected.jsonl`. What the
    form can't hold is logged, a line for each kind. Raises `DataError` if nothing is left, or if `folder` is taken.
    """
    make_writer = writer(to)
    if form.quote_formulas and to != "csv":
        raise SettingsError(f"found --quote-formulas with --to {to}; it is for csv, which spreadsheets open")
    prepare = _preparation(make_writer, to, pictures)
    rejects = Rejects()
    sources = [source] if options.image_root is None else [source, str(options.image_root)]
    with new_folder(folder, sources, overwrite) as partial_folder:
        splits = read_splits(source, rejects, format, options)
        prepare = guarded(prepare, folder)
        losses = Losses()
        target = FormTarget(
            partial_folder, list(splits), losses, pictures.files == "link", form.shard_size, form.quote_formulas
        )
        written = _write_all(make_writer(target), splits, prepare, rejects, losses)
        if not any(written.values()):
            raise DataError(f"{source}: nothing to write ({rejects.summary()})")
        if rejects:
            write_jsonl(partial_folder / REJECTED, rejects.lines)
    for line in losses.lines():
        logger.warning("%s: %s", folder, line)
    if rejects:
        logger.warning("%s (listed in %s)", rejects.summary(), folder / REJECTED)
    return Conversion(written, len(rejects), folder / REJECTED if rejects else None)


Prepare = Callable[[Sample], OutputPicture]


def _preparation(form: type[FormWriter], to: str, changes: PictureChanges) -> Prepare:
    """What makes a picture ready to be stored. Raises `SettingsError` for choices that don't go together."""
    files, max_side, quality = changes.files, changes.max_side, changes.quality
    if files in ("copy", "link") and (max_side or quality):
        raise SettingsError(f"found --images {files} with --max-side or --quality; those are for --images encode")
    if files == "link" and form.packs_images:
        raise SettingsError(f"--images link: {to} holds the images itself, so nothing can be linked; leave it out")
    if files == "encode" or max_side or quality:
        return partial(_encoded, max_side=max_side, quality=quality or QUALITY)
    return OutputPicture.of


def _encoded(sample: Sample, max_side: int | None, quality: int) -> OutputPicture:
    return encode_picture(sample.read(), max_side, quality, MAX_PIXELS)


def _write_all(
    form: FormWriter, splits: dict[str, Sequence[Sample]], prepare: Prepare, rejects: Rejects, losses: Losses
) -> dict[str, int]:
    """Write all splits; returns how many images of each."""
    with track("convert", sum(map(len, splits.values()))) as advance:
        written = {
            split: _write_split(form, split, samples, prepare, rejects, losses, advance)
            for split, samples in splits.items()
        }
    form.close()
    return written


def _write_split(
    form: FormWriter,
    split: str,
    samples: Sequence[Sample],
    prepare: Prepare,
    rejects: Rejects,
    losses: Losses,
    advance: Advance,
) -> int:
    count = 0
    for sample, outcome in prepared(samples, prepare):
        try:
            if isinstance(outcome, Exception):
                raise outcome
            form.put(OutputSample(sample.id, split, sample.captions, outcome, sample.repeats, sample.machine))
            count += 1
            _note_losses(form, sample, losses)
        except PictureError as error:
            rejects.add(sample.id, sample.source, str(error))
        advance(1)
    return count


def _note_losses(form: FormWriter, sample: Sample, losses: Losses) -> None:
    """Note what the form can't say about a sample that was written."""
    if sample.repeats != 1 and not form.keeps_repeats:
        losses.add(REPEATS_LOST)
    if sample.machine and not form.keeps_machine:
        losses.add(MAKERS_LOST, sum(map(bool, sample.machine)))


def prepared(samples: Iterable[Sample], prepare: Prepare) -> Iterator[tuple[Sample, OutputPicture | PictureError]]:
    """Each sample with its picture or what is wrong with it, in order; a few are made ahead on all cores."""
    threads = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Sample, Future[OutputPicture | PictureError]]] = deque()
        for sample in samples:
            waiting.append((sample, pool.submit(_tried, prepare, sample)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for sample, future in waiting:
            yield sample, future.result()


def _tried(prepare: Prepare, sample: Sample) -> OutputPicture | PictureError:
    """What is wrong with a sample's own file is returned; other errors stop the work."""
    try:
        return prepare(sample)
    except PictureError as error:
        return error
    except OSError as error:
        return PictureError(f"can't be read ({error.strerror or error})")
