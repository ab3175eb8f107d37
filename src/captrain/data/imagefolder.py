"""A `metadata.jsonl` for pictures with text files beside them, so that Hugging Face's `imagefolder` loads them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import reader
from captrain.data.safe_paths import existing
from captrain.data.writers import Losses, new_folder
from captrain.data.writers.picture_output import OutputPicture, PictureFolder
from captrain.data.writers.tables import JsonLinesFile
from captrain.disk.folders import remove
from captrain.disk.locks import locked_folder
from captrain.disk.writing import check_target
from captrain.errors import CaptrainError, DataError, SettingsError
from captrain.progress import track
from captrain.records import Rejects, Sample, write_jsonl

logger = logging.getLogger(__name__)

FORMATS = ("kohya", "sidecar")
REJECTED = "rejected.jsonl"
TABLE = "metadata.jsonl"
REPEATS_LOST = "repeats of {images} images are not kept"

Splits = dict[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Compilation:
    """Rows written, the tables they are in, the Python call that loads them, and what was rejected."""

    rows: int
    tables: list[Path]
    loads: str
    rejected: int
    rejects_file: Path | None


def compile_captions(
    source: Path,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Compilation:
    """Write `metadata.jsonl` for a folder of images with captions beside them (sd-scripts folders too).

    Args:
        output: where to write it. Default: the source. In the source, or a folder above, images stay where they are; any
            other folder is made new, with hard links to the images, or copies where links are impossible.

    A line is {"file_name": ..., "text": the first caption}, and, where some image has several, "captions": all of them.
    Where folders say the splits, each has a table of its own, as `imagefolder` wants it. At the end `datasets` loads the
    result, offline; `CaptrainError` if that gives other rows. Raises `DataError` if there is nothing to use, or a table
    or folder already exists (unless `overwrite`).
    """
    if not existing(source).is_dir():
        raise DataError(f"{source}: is a file; expected a folder of images with captions beside them")
    output = output or source
    check_target(output / REJECTED)
    rejects, losses = Rejects(), Losses()
    splits = _read(source, rejects, format, options)
    inner = _path_within(source, output)
    if inner is not None:
        with locked_folder(output):
            tables = _write_tables(output, inner, splits, losses, overwrite)
    else:
        with new_folder(output, [str(source)], overwrite) as folder:
            _store_images(PictureFolder(folder, link=True), splits)
            written = _write_tables(folder, "", splits, losses, overwrite)
        tables = [output / table.relative_to(folder) for table in written]
    for line in losses.lines():
        logger.warning("%s: %s", output, line)
    rejects_file = _list_rejects(rejects, output, overwrite)
    rows = sum(map(len, splits.values()))
    return Compilation(rows, tables, prove(output, tables, rows), len(rejects), rejects_file)


def prove(folder: Path, tables: Sequence[Path], rows: int) -> str:
    """The Python call by which `datasets` loads all rows, tried out. Raises `CaptrainError` if there is none.

    Names of images with words such as "test" in them make `datasets` see splits in a folder that has none; then the
    table itself is named in the call.
    """
    calls = {f"load_dataset('imagefolder', data_dir={str(folder)!r})": {"data_dir": str(folder)}}
    if len(tables) == 1:
        calls[f"load_dataset('imagefolder', data_files={str(tables[0])!r})"] = {"data_files": str(tables[0])}
    found: list[str] = []
    for call, arguments in calls.items():
        loaded = _load(arguments)
        if loaded == rows:
            return call
        found.append(f"{call} gives {loaded if isinstance(loaded, str) else f'{loaded} rows'}")
    raise CaptrainError(f"{folder}: {rows} rows are written, but {'; '.join(found)}")


def _load(arguments: dict[str, str]) -> int | str:
    """Rows that have an image and a text, or what went wrong; the cache is a temporary one."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(prefix="captrain-") as cache:
            loaded = datasets.load_dataset("imagefolder", cache_dir=cache, **arguments)
            return sum(len(split) for split in loaded.values() if {"image", "text"} <= set(split.column_names))
    except Exception as error:  # whatever `datasets` raises: it is an answer
        return f"{type(error).__name__} ({str(error)[:300]})"
    finally:
        if shown:
            datasets.enable_progress_bars()


def _read(source: Path, rejects: Rejects, format: str | None, options: ReadOptions) -> Splits:
    if format is None:
        format = "kohya" if reader("kohya").recognises(str(source)) else "sidecar"
    if format not in FORMATS:
        raise SettingsError(
            f"--format {format}: expected {' or '.join(FORMATS)}; captrain data convert --to metadata-jsonl takes all forms"
        )
    return reader(format).read(str(source), rejects, options)


def _path_within(source: Path, output: Path) -> str | None:
    """How images are reached from `output`, "" or "photos/" say; None if the source is not in it."""
    inner = os.path.relpath(os.path.realpath(source), os.path.realpath(output)).replace(os.sep, "/")
    if inner == ".":
        return ""
    return None if inner == ".." or inner.startswith("../") or os.path.isabs(inner) else f"{inner}/"


def _write_tables(folder: Path, inner: str, splits: Splits, losses: Losses, overwrite: bool) -> list[Path]:
    """One table, or one in each top folder where those are splits. Nothing is left of them if one can't be written."""
    lines = JsonLinesFile()
    try:
        for split, samples in splits.items():
            for sample in samples:
                name = inner + sample.id
                within = "" if split == "all" else inner + sample.id.split("/", 1)[0] + "/"
                table = folder / within / TABLE
                if table not in lines.files and table.exists() and not overwrite:
                    raise DataError(f"{table}: is there already; --overwrite replaces it")
                lines.add(table, name.removeprefix(within), sample.captions, sample.machine)
                if sample.repeats != 1:
                    losses.add(REPEATS_LOST)
        lines.close()
    except BaseException:
        lines.discard()
        raise
    return list(lines.files)


def _store_images(store: PictureFolder, splits: Splits) -> None:
    with track("images", sum(map(len, splits.values()))) as advance:
        for samples in splits.values():
            for sample in samples:
                assert isinstance(sample.image, Path), "images beside text files are files"
                store.put(OutputPicture(sample.image, sample.image.suffix), sample.id)
                advance(1)


def _list_rejects(rejects: Rejects, output: Path, overwrite: bool) -> Path | None:
    """Write the list of what was left out, if anything was; an old list goes if it may."""
    path = output / REJECTED
    if not rejects:
        if overwrite:
            remove(path)
        return None
    write_jsonl(path, rejects.lines)
    logger.warning("%s (listed in %s)", rejects.summary(), path)
    return path
