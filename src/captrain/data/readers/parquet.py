"""Parquet tables, with the pictures inside (bytes, or {bytes, path} as `datasets` writes them) or as file names.

A `.parquet` file; or a folder with some, in it, in `data/` or in one folder per split. What a file's name begins with is its
split (`train-00000-of-00002.parquet`, `validation.parquet`); files that begin with no split's name are "all".

Captions are read at once, into flat text; a picture's bytes when it is asked for. Where pictures are inside, every row is
a sample: names inside are often not unique, so they don't tell whether two rows are about one picture. The id is the name
(with `#2`, `#3` where it comes again), or the file's name and the row's number. Where pictures are named, rows about the
same image become one sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from captrain.data.arrow import plain_rows
from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.parquet_pages import Pages
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import SPLIT_COLUMN, Columns, TableRow, encodable, listed_columns, present, split_of
from captrain.data.readers.parquet_images import BUFFER, Embedded
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.readers.tables import ListedTable, folder_of_images, note_marked, refuse_links, split_in_words
from captrain.data.safe_paths import Root, existing, refuse_pointer
from captrain.data.samples import JoinedSamples
from captrain.data.splits import SPLIT_NAMES
from captrain.disk.walking import names_in
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import MARKS, is_marked, steps_of

SUFFIX = ".parquet"
LOOKED_AT = 32  # rows, to see whether pictures are inside
ROWS = 4096  # whose captions are read at a time

_EXAMPLE = "expected columns such as image and text"


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .parquet file, or a folder with some."""
    path = Path(source)
    try:
        return bool(parquet_files_in(path)) if path.is_dir() else path.is_file() and path.suffix.lower() == SUFFIX
    except (OSError, ValueError):
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a file or of a folder with files, in the order of their rows.

    Rejected are named images that are missing, and images without captions. Raises `DataError` for a file that is broken
    or has no column of images or of captions, and if nothing is left.
    """
    path = existing(Path(source))
    files = parquet_files_in(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}/: no .parquet file; expected train-00000-of-00001.parquet, say")
    refuse_links(path, files, options.follow_links)
    folder = path if path.is_dir() else path.parent
    columns = Columns(options.image_column, options.caption_column)
    parts = ParquetRows(path, folder, options)
    for file in files:
        _read_file(file, split_of_name(file, folder), columns, parts, rejects, captioned)
    samples = parts.samples(rejects, captioned)
    if not samples:
        raise nothing_to_use(source, rejects, _EXAMPLE, [parts.named.root], own=(SUFFIX,))
    return samples


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The first file of each split of a folder; its other files go with it."""
    first: dict[str, Path] = {}
    for file in parquet_files_in(folder):
        first.setdefault(split_of_name(file, folder), file)
    return [ListedTable(file, "" if split == "all" else split) for split, file in first.items()]


def parquet_files_in(folder: Path) -> list[Path]:
    """The Parquet files of a folder: in it, else in `data/`, else in folders that are named like splits."""
    below = [folder / name for name in names_in(folder) if name.lower() in SPLIT_NAMES and (folder / name).is_dir()]
    for places in ([folder], [folder / "data"], below):
        files = [
            place / name
            for place in places
            if place.is_dir()
            for name in names_in(place)
            if name.lower().endswith(SUFFIX) and (place / name).is_file()
        ]
        if files:
            return files
    return []


def split_of_name(file: Path, folder: Path) -> str:
    """The split named by a file, or else by its folder; "all" if none."""
    word = file.stem.lower().split("-")[0]
    if file.parent != folder:
        word = word if word in SPLIT_NAMES else file.parent.name.lower()
    return SPLIT_NAMES.get(word) or split_in_words(folder, file) or "all"


class ParquetRows:
    """What rows are put into: those with pictures inside, and those that name them."""

    def __init__(self, path: Path, folder: Path, options: ReadOptions) -> None:
        self.inside = Embedded(folder)
        given = None if options.image_root is None else folder_of_images(options.image_root)
        self.named = GatheredCaptions(
            Root(given or folder, given=given is not None, follow_links=options.follow_links), path
        )

    def samples(self, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
        """All samples by split."""
        parts: dict[str, list[Sequence[Sample]]] = {}
        for collected in (self.inside, self.named):
            for split, samples in collected.samples(rejects, captioned=captioned).items():
                parts.setdefault(split, []).append(samples)
        return {split: some[0] if len(some) == 1 else JoinedSamples(some) for split, some in parts.items()}


def _read_file(file: Path, split: str, columns: Columns, parts: ParquetRows, rejects: Rejects, captioned: bool) -> None:
    """Put the rows of a file where they belong."""
    with _opened(file) as (parquet, pages):
        names = parquet.schema_arrow.names
        columns.check(names, str(file))
        columns = columns.of(names)
        leaf = _leaf_of_pictures(parquet, pages, columns)
        wanted = _columns_of_text(file, names, columns, captioned)
        if leaf:
            note_marked(file, _read_inside(file, split, columns, parts.inside, (parquet, pages), leaf, wanted), rejects)
            return
        images = _top(columns.images, names)
        if not images:
            raise DataError(columns.no_image(names, str(file)))
        marked = 0
        for number, values in _rows(parquet, pages, images + wanted):
            row = columns.row(values, f"{file}:{number}")
            marked += row.marked
            parts.named.add(row.image, row.captions + row.odd, number, rejects, row.split or split)
        note_marked(file, marked, rejects)


def _read_inside(
    file: Path, split: str, columns: Columns, inside: Embedded, opened: tuple[Any, Pages], leaf: str, wanted: list[str]
) -> int:
    """Collect the rows of a file that has pictures inside, which are not read; returns how many are marked."""
    parquet, pages = opened
    for group in range(len(pages.groups)):
        pages.chunks(group, [leaf])  # whether its pictures can be read is checked now
    origin = inside.open(file, leaf, list(accumulate(pages.rows)))
    column, _, within = leaf.partition(".")
    paths = [f"{column}.path"] if within and f"{column}.path" in _leaves(parquet) else []
    marked = 0
    for number, values in _rows(parquet, pages, paths + wanted):
        where = f"{file}:{number}"
        path = values.get(column) or {}
        name = path.get("path") if paths else None
        is_left = is_marked(values)
        marked += is_left
        captions, odd = ((), ()) if is_left else columns.texts(values, where)
        row = TableRow(encodable(name) if isinstance(name, str) else "", captions, split_of(values, where), odd)
        inside.add(origin, number, row, row.split or split)
    return marked


def _columns_of_text(file: Path, names: list[str], columns: Columns, captioned: bool) -> list[str]:
    captions = _top(columns.decided, names)
    if captioned and not captions:
        raise DataError(
            f"{file}: no column of captions (columns: {listed_columns(names)}); "
            "expected captions, caption or text, or --caption-column to say which it is"
        )
    return captions + [name for name in (SPLIT_COLUMN, *MARKS) if name in names]


def _top(columns: tuple[str, ...], names: list[str]) -> list[str]:
    """The columns to read for those that count: a nested one is read with all that it is in."""
    return [name if name in names else steps_of(name)[0] for name in present(columns, tuple(names))]


def _leaf_of_pictures(parquet: Any, pages: Pages, columns: Columns) -> str:
    """The column that holds encoded pictures ("image.bytes", "jpg"), or "" if pictures are only named."""
    import pyarrow.types as types

    schema = parquet.schema_arrow
    usual = [name for name in present(columns.images, tuple(schema.names)) if name in schema.names]
    for name in usual if columns.given_image else [*usual, *schema.names]:
        kind = schema.field(name).type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            leaf = f"{name}.bytes"
        elif name in usual and (types.is_binary(kind) or types.is_large_binary(kind)):
            leaf = name
        else:
            continue
        if not _is_empty(parquet, pages, leaf):
            return leaf
    return ""


def _leaves(parquet: Any) -> list[str]:
    return [parquet.schema.column(place).path for place in range(len(parquet.schema.names))]


def _is_empty(parquet: Any, pages: Pages, leaf: str) -> bool:
    """Whether the first rows have no picture, as if `datasets` wrote only paths.

    What the file's metadata says of a column would tell too, but asking pyarrow 26 for it ends the process if it is damaged.
    """
    for values in islice(_slices(parquet, pages, [leaf], 1), LOOKED_AT):
        value = values.column(0)[0].as_py()
        if value.get("bytes") if isinstance(value, dict) else value:
            return False
    return True


def _rows(parquet: Any, pages: Pages, wanted: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and values of each row, of the wanted columns only."""
    number = 0
    for batch in _slices(parquet, pages, list(dict.fromkeys(wanted)), ROWS):
        for values in plain_rows(batch):
            number += 1
            yield number, values


def _slices(parquet: Any, pages: Pages, wanted: list[str], most: int) -> Iterator[Any]:
    """The rows of some columns, as many at a time as bounded memory allows."""
    for groups, rows in pages.slices(wanted, most):
        yield from parquet.iter_batches(batch_size=rows, row_groups=groups, columns=wanted)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Pages]]:
    """A Parquet file and what its pages hold; whatever is wrong with it, now or while it is read, is a `DataError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_pointer(file)
    try:
        with pq.ParquetFile(file, buffer_size=BUFFER) as parquet:
            yield parquet, Pages(file)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: not a Parquet file that can be read ({reason})") from None
