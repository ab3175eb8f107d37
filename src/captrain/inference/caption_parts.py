"""Captions for collections of any size: on all devices of this machine or of a cluster, part by part, then joined into one JSONL.

The same bytes come out whatever the engine, the number of devices and interruptions: parts are cut by the data alone, a batch
never spans two of them, and they are joined in the order of the data.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from captrain.data.dataset import LIST_SUFFIXES, list_images
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.detection import detect
from captrain.data.safe_paths import IMAGE_SUFFIXES
from captrain.disk.folders import make_folder, remove
from captrain.disk.locks import locked
from captrain.errors import DataError, UserError
from captrain.features.engines import Engine, EngineJob, EngineOptions, changed_sources, make_engine, parts_of_sources
from captrain.features.pipeline import SourceReader
from captrain.features.sources import BlockSource, EncodingSource, TarSource, file_safe_name, sources_of
from captrain.features.stream import Batching
from captrain.inference.caption_files import (
    CaptionOutcome,
    CaptionOutput,
    check_captions_file,
    partial_of,
    rejects_path_of,
)
from captrain.inference.captioner import Captioner, adjust_decoding
from captrain.inference.captioning_engine import AboutCaptioner, CaptionerOpening, Captioning
from captrain.inference.parts_folder import PartsFolder
from captrain.models.device import choose_device
from captrain.records import Rejects

logger = logging.getLogger(__name__)

EXISTING = ("skip", "overwrite")


def caption_parts(
    opening: CaptionerOpening,
    images: Sequence[str],
    to: CaptionOutput,
    *,
    engine: EngineOptions | None = None,
    batching: Batching | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    decoding: Mapping[str, Any] = MappingProxyType({}),
) -> CaptionOutcome:
    """Write the captions of all pictures into one file; what an interrupted start has done is not done again.

    While it goes on, finished parts are in `OUTPUT.parts`. If a source can't be read, the output has all others' captions and
    the parts stay, so that the same call tries that source again.

    Args:
        opening: the captioner, and how it is opened.
        images: pictures, folders, lists or data sets; tar shards are read once from front to back, and never copied or indexed.
        to: the file. Pictures that have a caption in it are skipped, or everything is overwritten.
        engine: where captions are made. As devices, `auto` or `cuda` alone means all GPUs of this machine.
        batching: how pictures are decoded. decoding: changes to the model's own decoding.

    Raises:
        UserError: for data, models or outputs that can't work together, or an output that is being written.
    """
    engine, batching, output, existing = engine or EngineOptions(), batching or Batching(), to.path, to.existing
    if output is None:
        raise UserError("engines write one file for all; expected the path of a .jsonl file")
    _check(output, existing)
    reader = SourceReader(batching.batch_size, batching.workers, batching.max_pixels)
    rejects = Rejects()
    sources = caption_sources(images, to.part_images, rejects, format, options)
    folder = PartsFolder(output)
    if opening.precision == "auto" and existing == "skip":
        opening = replace(opening, precision=str((folder.about() or {}).get("precision", "auto")))
    make_folder(output.parent)
    with locked(output), ExitStack() as stack:
        stack.callback(folder.leave)
        runner = stack.enter_context(make_engine(_on_all_gpus(engine), opening))
        about = runner.about()
        how = adjust_decoding(about.decoding, dict(decoding), about.room)
        folder.begin(about.note(how, to.part_images), from_scratch=existing == "overwrite")
        remove(partial_of(output))
        _settle_changes(folder, sources)
        begun = str((folder.about() or {}).get("maker") or about.maker(how))  # the day of an interrupted start stays
        order = Captioning(folder, how, reader, to.part_images, folder.known(), begun)
        return _run(runner, order, sources, rejects)


def caption_sources(
    images: Sequence[str], size: int, rejects: Rejects, format: str | None = None, options: ReadOptions = BY_LOOKING
) -> list[EncodingSource]:
    """What there is to caption, in the order and with the ids of `list_images`. Shards are only listed, not opened."""
    if not all(_is_shards(path, format) for path in images):
        by_persons = replace(options, machine_captions=False)  # only these are references
        samples = list_images(images, rejects, format=format, options=by_persons)
        starts = range(0, len(samples), size)
        return [
            BlockSource(samples, "all", number, start, min(start + size, len(samples)))
            for number, start in enumerate(starts)
        ]
    found: list[EncodingSource] = []
    for path in dict.fromkeys(images):
        shards = sources_of(path, size, rejects, "webdataset", options, captioned=False)
        splits = list(dict.fromkeys(shard.split for shard in shards))
        shards.sort(key=lambda shard: splits.index(shard.split))
        found += shards if len(images) == 1 else [_prefixed(shard, path) for shard in shards]
    return found


def _run(
    runner: Engine[Captioner, AboutCaptioner], order: Captioning, sources: Sequence[EncodingSource], rejects: Rejects
) -> CaptionOutcome:
    """Make the missing parts, then join all parts."""
    folder = order.folder
    earlier = len(order.known) + sum(note.captions for note in folder.done.values())
    job = EngineJob("caption", order, sources)
    job.run(runner)
    names = job.names()
    listed = rejects_path_of(folder.output)
    rejected = folder.join(names, rejects, listed)
    written = len(order.known) + sum(folder.done[name].captions for name in names) - earlier
    if not job.unread():
        folder.clear()
    logger.info("%d captions written, %d were there before, %d pictures rejected", written, earlier, rejected)
    return CaptionOutcome(written, earlier, rejected, listed if rejected else None, job.unread())


def _check(output: Path, existing: str) -> None:
    """Raise `UserError` for what an engine can't do."""
    check_captions_file(output)
    if existing not in EXISTING:
        raise UserError(f"--existing {existing} is for text files beside pictures; with --engine use skip or overwrite")
    partial = partial_of(output)
    if existing == "skip" and partial.exists():
        raise UserError(
            f"{partial}: was begun without --engine; go on without it, or start over with --existing overwrite"
        )


def _on_all_gpus(engine: EngineOptions) -> EngineOptions:
    """All GPUs of this machine if none is named; workers of a cluster find out by themselves."""
    devices = engine.devices
    if engine.name != "local" or len(devices) > 1 or ":" in devices[0]:
        return engine
    count = torch.cuda.device_count() if choose_device(devices[0]).type == "cuda" else 1
    return replace(engine, devices=[f"cuda:{number}" for number in range(count)]) if count > 1 else engine


def _is_shards(path: str, format: str | None) -> bool:
    """Whether a path names tar shards."""
    place = Path(path)
    if place.suffix.lower() in IMAGE_SUFFIXES | LIST_SUFFIXES and place.is_file():
        return False
    return (format or detect(path)) == "webdataset"


def _prefixed(source: EncodingSource, path: str) -> EncodingSource:
    """A shard of one of several paths: its ids begin with the path."""
    assert isinstance(source, TarSource)
    source.shard = replace(source.shard, prefix=f"{Path(path).as_posix()}/{source.shard.prefix}")
    source.name, source.label = file_safe_name(source.shard.prefix.rstrip("/")), source.shard.label
    return source


def _settle_changes(folder: PartsFolder, sources: Sequence[EncodingSource]) -> None:
    """Take back the parts of sources that changed. Raises `DataError` for parts of sources that are not named any more."""
    known = set(parts_of_sources(folder.done, sources))
    others = [note.source for name, note in folder.done.items() if name not in known]
    if others:
        raise DataError(
            f"{folder.folder.label}: holds captions of {others[0]}, which the data does not have; name all data that was "
            "begun with, or give another --output, or --existing overwrite"
        )
    for source in changed_sources(folder.done, sources):
        logger.warning("%s: changed since it was captioned, and is captioned again", source.label)
        folder.forget(parts_of_sources(folder.done, [source]))
