"""Data sets of the Hugging Face library `datasets`: a folder written by `save_to_disk`, or one on the hub.

The source is the folder, `hf://datasets/owner/name` (with `@revision`), or `hub:owner/name` (with `:configuration`). No code
of a data set is run.

It is decided once a table which columns are pictures, captions and names. Pictures stay encoded and captions in their
memory-mapped table; a row is read when it is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captrain.data.arrow import check_file, plain_rows
from captrain.data.caption_buffers import FlatTexts
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import texts_of
from captrain.data.readers.tables import refuse_links
from captrain.data.safe_paths import Root
from captrain.data.samples import JoinedSamples, LazySamples, key_of
from captrain.data.shards.tars import tidy_name
from captrain.data.splits import SPLIT_NAMES
from captrain.disk.reading import read_file
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample, parse_json
from captrain.tabular.cells import CAPTION_COLUMNS, caption_columns, no_caption, not_a_caption, sifted

if TYPE_CHECKING:
    from datasets import Dataset

if TYPE_CHECKING:
    from datasets import Dataset


_LARGEST_NOTE = 64 << 20  # bytes of the JSON beside a table
_ON_HUB = re.compile(r"(?:hf://datasets/|hub:)((?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?(?::([\w.-]+))?/?")


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a folder that `save_to_disk` wrote, or names a data set on the hub."""
    here = {
        name for name in ("state.json", "dataset_info.json", "dataset_dict.json") if os.path.isfile(f"{source}/{name}")
    }
    return "dataset_dict.json" in here or len(here) == 2 or _ON_HUB.fullmatch(source) is not None


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All rows with a picture, split by split. Rejected are rows without picture or caption.

    Raises `DataError` if the data set can't be loaded, its columns can't be told, or nothing is left.
    """
    loaded, roots = _from_hub(source) if _ON_HUB.fullmatch(source) else _from_disk(Path(source), options.follow_links)
    found: dict[str, list[Sequence[Sample]]] = {}
    wanted = ""
    for name, dataset in loaded.items():
        split = SPLIT_NAMES.get(name.lower(), name)
        label, prefix = (source, "") if name == "all" else (f"{source}/{name}", f"{name}/")
        table = ImageTable(dataset, label, prefix, roots, options)
        wanted = table.wanted
        if len(rows := table.usable(rejects, captioned)):
            found.setdefault(split, []).append(RowSamples(table, rows))
    if not found:
        problem = rejects.summary() if rejects else "no rows"
        raise DataError(f"{source}: nothing to use ({problem}); expected rows with a picture and {wanted}")
    return {split: parts[0] if len(parts) == 1 else JoinedSamples(parts) for split, parts in found.items()}


def _from_disk(folder: Path, follow_links: bool) -> tuple[dict[str, Dataset], tuple[Root, ...]]:
    """The splits of a saved folder ("all" of one without), and where its pictures may be."""
    root = Root(folder, follow_links=follow_links)
    splits = [""]
    if (note := folder / "dataset_dict.json").is_file():
        refuse_links(folder, [note], follow_links)
        splits = _note(note).get("splits") or []
        if not isinstance(splits, list) or not all(
            isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in splits
        ):
            raise DataError(f"{note}: its splits are not names; expected what save_to_disk writes")
    for name in splits:
        _stay_inside(root, f"{name}/" if name else "")
    loaded = _loading(
        str(folder), lambda datasets: {name: datasets.load_from_disk(str(folder / name)) for name in splits}
    )
    return {name or "all": dataset.with_format(None) for name, dataset in loaded.items()}, (root,)


def _stay_inside(root: Root, prefix: str) -> None:
    """Raise `DataError` if a saved table has files outside its folder: they are opened by the names in a JSON file."""
    where = root.folder / prefix / "state.json"
    refuse_links(root.folder, where.parent.glob("*.json"), root.follow_links)
    files = _note(where).get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files]
        if isinstance(files, list)
        else [None]
    )
    for name in names:
        found = root.exact(prefix + name, str(where)) if isinstance(name, str) else None
        if found is None:
            raise DataError(
                f"{where}: names a file that is not there ({str(name)[:80]}); expected what save_to_disk writes"
            )
        check_file(root.folder / found)


def _note(path: Path) -> dict[str, Any]:
    """A small JSON object."""
    try:
        if path.stat().st_size > _LARGEST_NOTE:
            raise DataError(f"{path}: over {_LARGEST_NOTE} bytes; expected what save_to_disk writes")
        value = parse_json(read_file(path).decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); expected what save_to_disk writes") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; expected what save_to_disk writes") from None
    return value if isinstance(value, dict) else {}


def _from_hub(source: str) -> tuple[dict[str, Dataset], tuple[Root, ...]]:
    """All splits of a data set on the hub, copied into the library's own cache."""
    name, revision, configuration = _ON_HUB.fullmatch(source).groups()  # type: ignore[union-attr]
    loaded = _loading(source, lambda datasets: datasets.load_dataset(name, configuration, revision=revision))
    import datasets
    from huggingface_hub import constants

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_MODULES_CACHE, constants.HF_HUB_CACHE)
    return dict(loaded), tuple(Root(Path(cache)) for cache in caches)


def _loading(source: str, load: Any) -> dict[str, Dataset]:
    """What `load(datasets)` gives; whatever goes wrong in the library is one clear line."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source}: needs a package that is not installed; pip install datasets") from None
    try:
        return load(datasets)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        offline = isinstance(error, (ConnectionError, TimeoutError)) or "Offline" in type(error).__name__
        hint = (
            "no network? give a folder written by save_to_disk" if offline else "check name, configuration and access"
        )
        hint = hint if _ON_HUB.fullmatch(source) else "expected what save_to_disk writes"
        raise DataError(f"{source}: can't be loaded ({' '.join(lines)[:300]}); {hint}") from None


IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")
ID_COLUMNS = ("file_name", "filename", "key", "__key__", "id", "image_id")

Sifted = tuple[tuple[str, ...], tuple[str, ...]]  # captions of a row, and texts in their cells that are not captions

_ROWS = 1000  # looked through at a time


class Cell:
    """The picture in one row of a table, read when it is asked for."""

    def __init__(self, table: Dataset, row: int, label: str, roots: tuple[Root, ...]) -> None:
        self.table, self.row, self.label, self.roots = table, row, label, roots

    def read(self) -> bytes:
        """The encoded picture. Raises `OSError` if its row has none, or names a file outside the data set."""
        (value,) = self.table[self.row].values()
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return read_file(self._file(value))
        raise OSError("holds no picture")

    def _file(self, name: str) -> Path:
        for root in self.roots:
            path = root.folder / name
            if root.holds(str(path)) and path.is_file():
                return path
        raise OSError(f"names a file that is not in the data set: {name[:200]}")

    def __str__(self) -> str:
        return self.label

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and other.label == self.label

    def __hash__(self) -> int:
        return hash(self.label)


class RowSamples(LazySamples):
    """Some rows of a table."""

    def __init__(self, table: ImageTable, rows: np.ndarray) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> np.ndarray:
        return np.array([key_of(self.table.id_of(int(row))) for row in self.rows], dtype=np.uint64)

    def sample_at(self, index: int) -> Sample:
        return self.table.sample(int(self.rows[index]))


class ImageTable:
    """One split: its picture column, its caption column, and what its rows are called."""

    def __init__(self, table: Dataset, name: str, prefix: str, roots: tuple[Root, ...], options: ReadOptions) -> None:
        self.name, self.prefix, self.roots = name, prefix, roots
        image = _image_column(table, options, name)
        captions = _caption_columns(table, options.caption_column, name)
        _check(table, [image, *captions], name)
        self.images = _undecoded(table, image).select_columns([image])
        self.captions = table.select_columns(captions) if captions else None
        self.ids = _ids(table)
        self.wanted = f"column '{captions[0]}'" if captions else f"a column {' or '.join(CAPTION_COLUMNS[:5])}"

    def id_of(self, row: int) -> str:
        return self.prefix + (self.ids[row] if self.ids is not None else str(row))

    def sample(self, row: int) -> Sample:
        label = f"{self.name}[{row}]"
        captions: tuple[str, ...] = ()
        if self.captions is not None:
            captions, _ = _texts(self.captions[row].values(), label)
        return Sample(self.id_of(row), Cell(self.images, row, label, self.roots), captions, label)

    def usable(self, rejects: Rejects, captioned: bool) -> np.ndarray:
        """The rows that make samples; the others go to `rejects`."""
        kept = []
        for row, (pictured, (captions, odd)) in enumerate(zip(self._pictured(), self._captions(), strict=True)):
            where = f"{self.name}[{row}]"
            if not pictured:
                rejects.add(self.id_of(row), where, "holds no picture")
            elif captioned and not captions:
                rejects.add(self.id_of(row), where, no_caption(odd))
            else:
                kept.append(row)
                for text in odd if captioned else ():
                    rejects.add(self.id_of(row), where, not_a_caption(text))
        return np.array(kept, dtype=np.int64)

    def _pictured(self) -> Iterator[bool]:
        """For each row whether it has a picture, without a copy of any."""
        for batch in self.images.with_format("arrow").iter(_ROWS):
            column = batch.column(0).combine_chunks()
            kinds = {kind.name for kind in column.type} if hasattr(column.type, "get_field_index") else set()
            fields = [column.field(kind) for kind in ("bytes", "path") if kind in kinds] or [column]
            whole = np.asarray(column.is_valid())
            yield from whole & np.any([np.asarray(field.is_valid()) for field in fields], axis=0)

    def _captions(self) -> Iterator[Sifted]:
        if self.captions is None:
            yield from (((), ()),) * len(self.images)
            return
        row = 0
        for batch in self.captions.with_format("arrow").iter(_ROWS):
            for values in plain_rows(batch):
                yield _texts(values.values(), f"{self.name}[{row}]")
                row += 1


def _check(table: Dataset, columns: list[str], name: str) -> None:
    """Raise `DataError` if a column's offsets lead out of its file: they are followed in memory, unchecked."""
    try:
        for column in columns:
            table.data.column(column).validate(full=True)
    except (ValueError, OSError) as error:
        raise DataError(f"{name}: its table is broken ({str(error).splitlines()[0][:200]}); write it again") from None


def _image_column(table: Dataset, options: ReadOptions, name: str) -> str:
    """The picture column: the named one, the one of the kind Image, or one with a usual name."""
    from datasets import Image

    images = [column for column, kind in table.features.items() if isinstance(kind, Image)]
    if not options.image_column and len(images) == 1:
        return images[0]
    usual = [column for column in IMAGE_COLUMNS if column in images] or list(IMAGE_COLUMNS)
    column = _named(table, options.image_column, usual, "pictures", name)
    if column is None:
        columns = ", ".join(table.column_names[:12]) or "none"
        raise DataError(f"{name}: no picture column (columns: {columns}); --image-column says which one it is")
    return column


def _named(table: Dataset, wanted: str, usual: Sequence[str], what: str, name: str) -> str | None:
    """The wanted column, or the first that has a usual name; None if there is none."""
    columns = table.column_names
    if wanted and wanted not in columns:
        hint = nearest(wanted, columns)
        raise DataError(f"{name}: no column '{wanted}' for {what} (columns: {', '.join(columns[:12])}).{hint}")
    return wanted or next((column for column in usual if column in columns), None)


def _undecoded(table: Dataset, column: str) -> Dataset:
    """The table with pictures as bytes or paths."""
    from datasets import Image

    return table.cast_column(column, Image(decode=False)) if isinstance(table.features[column], Image) else table


def _ids(table: Dataset) -> FlatTexts | None:
    """What an id column calls the rows; None if there is none whose values are all there, different and plain names."""
    for column in ID_COLUMNS:
        kind = getattr(table.features.get(column), "dtype", "")
        if column in table.column_names and kind in ("string", "large_string", "int32", "int64", "uint32", "uint64"):
            _check(table, [column], column)
            ids, keys = FlatTexts(), set()
            for batch in table.select_columns([column]).with_format("arrow").iter(_ROWS):
                for value in batch.column(0).to_pylist():
                    name = None if value is None else tidy_name(str(value))
                    if name is not None:
                        keys.add(key_of(name))
                        ids.append(name)
            if len(keys) == len(table):
                return ids
    return None


def _caption_columns(table: Dataset, wanted: str, name: str) -> list[str]:
    """The columns of captions, in their order. Raises `DataError` for a wanted one that the table does not have."""
    if wanted in table.column_names:
        return [wanted]
    found = caption_columns((wanted.lower(),) if wanted else CAPTION_COLUMNS, tuple(table.column_names))
    if wanted and not found:
        _named(table, wanted, (), "captions", name)
    return list(found)


def _texts(cells: Iterable[Any], where: str) -> Sifted:
    """The captions in the cells of a row, and texts there that are not captions."""
    return sifted(text for cell in cells for text in texts_of(cell, "captions", where))
