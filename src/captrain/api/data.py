"""`captrain.read`: data sets of any form as samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Unpack, overload

from captrain.api.checks import check_data
from captrain.api.options import READING, Place, how_to_read, place, sort_settings
from captrain.api.settings import ReadingOptions
from captrain.data.samples import JoinedSamples
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

if TYPE_CHECKING:
    import datasets


ROWS_AT_ONCE = 1000
_kept_folders: list[TemporaryDirectory[str]] = []  # of data sets that are in use: removed when the process ends


class Samples(Sequence[Sample]):
    """The samples of a data set: a sequence, whose pictures are opened when they are asked for.

    `samples["train"]` is a split of it, `samples.splits` says how many samples each has. `rejected` lists what could not be
    used: `id`, `where`, `reason`.

    >>> pictures = Samples({"train": [Sample("a.jpg", b"", ("a dog",))], "test": [Sample("b.jpg", b"", ("a cat",))]}, Rejects())
    >>> [sample.captions[0] for sample in pictures], pictures["test"][0].id, pictures.splits
    (['a dog', 'a cat'], 'b.jpg', {'train': 1, 'test': 1})
    """

    def __init__(self, named: Mapping[str, Sequence[Sample]], rejects: Rejects, source: str = "") -> None:
        self._named, self._rejects, self._source = dict(named), rejects, source
        parts = list(self._named.values())
        self._all: Sequence[Sample] = parts[0] if len(parts) == 1 else JoinedSamples(parts)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    @overload
    def __getitem__(self, index: str) -> Samples: ...
    def __getitem__(self, index: int | slice | str) -> Sample | Sequence[Sample] | Samples:
        return self.split(index) if isinstance(index, str) else self._all[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._all)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        rejected = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"<Samples {self._source!r}: {splits}{rejected}>"

    @property
    def splits(self) -> dict[str, int]:
        """How many samples each split has; `all` is the only one of data that names none."""
        return {name: len(samples) for name, samples in self._named.items()}

    @property
    def rejected(self) -> list[dict[str, str]]:
        """What could not be used."""
        return self._rejects.lines

    def split(self, name: str) -> Samples:
        """One split. Raises `DataError` for a name that the data does not have, with those that it has."""
        if name not in self._named:
            there = ", ".join(map(repr, self._named))
            raise DataError(f"{self._source}: no split '{name}', it has {there}.{nearest(name, self._named)}")
        return Samples({name: self._named[name]}, self._rejects, self._source)

    def to_dataset(self) -> datasets.Dataset:
        """As a Hugging Face data set: `id`, `image` (decoded when it is asked for), `captions`, `source`, `split`.

        Pictures in files of their own stay there. Those in archives and tables are copied into a temporary file, which is
        removed when the process ends; one that can't be read is left out, and listed in `rejected`.
        """
        import datasets

        features = datasets.Features(
            {
                "id": datasets.Value("string"),
                "image": datasets.Image(),
                "captions": [datasets.Value("string")],
                "source": datasets.Value("string"),
                "split": datasets.Value("string"),
            }
        )
        return datasets.Dataset.from_file(self._write_rows(features.arrow_schema))

    def _write_rows(self, schema: Any) -> str:
        """The file of a data set's rows."""
        import pyarrow as pa

        from captrain.disk.writing import new_file

        folder = TemporaryDirectory(prefix="captrain-")
        _kept_folders.append(folder)
        path = Path(folder.name, "samples.arrow")
        with new_file(path, sync=False) as file, pa.ipc.new_stream(file, schema) as writer:
            for rows in _in_groups(self._rows()):
                writer.write_table(pa.Table.from_pylist(rows, schema))  # type: ignore[no-untyped-call, unused-ignore]
        return str(path)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for split, samples in self._named.items():
            for sample in samples:
                try:
                    image = _image_of(sample)
                except OSError as error:
                    self._rejects.add(sample.id, sample.source, f"can't be read ({error.strerror or error})")
                    continue
                captions = list(sample.captions)
                yield {"id": sample.id, "image": image, "captions": captions, "source": sample.source, "split": split}


def read(data: Place, *, captioned: bool = True, **settings: Unpack[ReadingOptions]) -> Samples:
    """The samples of any data set that captrain reads: id, picture, captions, and their source.

    Args:
        data: Folder, table, tar shards, feature store or hub name.
        captioned: Leave out pictures without a caption; False keeps them.
        settings: How to read it, if it is not recognised: `format`, `image_column`, `encoding` and others.

    Raises `DataError` if nothing is there, or nothing can be used.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos
    >>> samples = read(tiny_photos(pathlib.Path(tempfile.mkdtemp()), count=3))
    >>> len(samples), samples[0].id, len(samples[0].captions), samples.splits
    (3, 'photo-000.png', 5, {'all': 3})
    >>> dataset = samples.to_dataset()
    >>> dataset.column_names, dataset[0]["image"].size
    (['id', 'image', 'captions', 'source', 'split'], (48, 40))
    """
    source, how = place(data), how_to_read(sort_settings("captrain.read", settings, READING)["reading"])
    check_data([source], how["format"])
    from captrain.data.dataset import read_splits

    rejects = Rejects()
    return Samples(read_splits(source, rejects, **how, captioned=captioned), rejects, source)


def _image_of(sample: Sample) -> dict[str, Any]:
    """A picture as a data set of Hugging Face holds it: by its path, or its bytes."""
    if isinstance(sample.image, Path):
        return {"path": str(sample.image.absolute()), "bytes": None}
    return {"path": Path(sample.id).name, "bytes": sample.read()}


def _in_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == ROWS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group
