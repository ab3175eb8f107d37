"""`captrain.read` and `captrain.check`: data sets of any form as samples, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Unpack, overload

from captrain.api.checks import check_data as check_there
from captrain.api.checks import check_models
from captrain.api.options import READING, Place, how_to_read, place, place_or_none, sort_settings
from captrain.api.session import session
from captrain.api.settings import ReadingOptions
from captrain.data.samples import Joined
from captrain.errors import DataError, UserError, nearest
from captrain.messages import spoken
from captrain.records import Rejects, Sample

if TYPE_CHECKING:
    import datasets

    from captrain.data.check.check import Checked
    from captrain.models.vocabulary import RoundTrip

ROWS_AT_ONCE = 1000
SHOWN_WORDS = 12
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
        self._all: Sequence[Sample] = parts[0] if len(parts) == 1 else Joined(parts)

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


@dataclass(frozen=True, repr=False)
class Check:
    """What a check of a data set found: `counts`, `problems` by kind, and every single one as `lines`.

    `wrong` counts what would be left out of a training or harm it, `remarks` what is good to know.
    """

    source: str
    found: Checked
    words: RoundTrip | None = None
    rejects_file: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Images, captions, what is wrong, remarks."""
        found = self.found
        return {"images": found.images, "captions": found.captions, "wrong": self.wrong, "remarks": self.remarks}

    @property
    def wrong(self) -> int:
        """How many problems are more than remarks. A tokenizer that loses too many words is one."""
        return self.found.wrong + (self.words is not None and self.words.is_refused)

    @property
    def remarks(self) -> int:
        """How many remarks there are."""
        return self.found.findings.count("remark")

    @property
    def problems(self) -> dict[str, dict[str, Any]]:
        """By kind: `grade` ("wrong" or "remark"), `count`, and a few `examples`."""
        return dict(self.found.to_dict()["problems"])

    def lines(self) -> Iterator[dict[str, str]]:
        """Every problem: `id`, `where`, `reason`, `problem` (its kind) and `grade`."""
        return self.found.lines()

    def to_dict(self) -> dict[str, Any]:
        """What `captrain data check --json` prints."""
        words = {} if self.words is None else {"round_trip": self.words.to_dict()}
        return {**self.found.to_dict(), **words, "rejects": self.rejects_file and str(self.rejects_file)}

    def facts(self) -> list[tuple[str, str]]:
        """What the data is, as rows of name and value."""
        found = self.found
        fewest, mean, most = found.captions_per_image
        splits = ", ".join(f"{name} {count:,}" for name, count in found.splits.items() if name != "all")
        rows = [
            ("images", f"{found.images:,} ({splits})" if splits else f"{found.images:,}"),
            ("captions", f"{found.captions:,}, {mean:g} an image ({fewest} to {most})"),
        ]
        if found.size:
            rows.append(("median size", f"{found.size[0]} x {found.size[1]}"))
        for unit, lengths in (("words", found.words), ("tokens", found.tokens)):
            if lengths:
                summary = f"{lengths.shortest} to {lengths.longest}, median {lengths.median}, 95 % up to {lengths.most}"
                rows.append((f"{unit} a caption", summary))
        common = ", ".join(word for word, _ in found.common_words[:SHOWN_WORDS])
        rows.append(("vocabulary", f"{found.vocabulary:,} words; most common: {common}"))
        if self.words is not None:
            rows.append(("words kept", "all" if not self.words.lost else f"not {self.words.told}"))
            rows += [("case", self.words.case_told)] * bool(self.words.case)
        return rows

    def problem_rows(self) -> list[tuple[str, str, str, str]]:
        """Kind, grade, count and an example, of each kind of problem."""
        from captrain.data.check.problems import KINDS

        examples = {name: f"{lines[0]['id']} {lines[0]['reason']}" for name, lines in self.found.examples().items()}
        counts = self.found.findings.counts().items()
        return [(KINDS[name].title, KINDS[name].grade, f"{count:,}", examples[name]) for name, count in counts]

    def summary(self) -> str:
        """How much is wrong, on one line."""
        return f"{self.wrong or 'nothing'} wrong, {self.remarks or 'no'} {'remark' if self.remarks == 1 else 'remarks'}"

    def __repr__(self) -> str:
        lines = [f"<Check {self.source!r}: {self.summary()}>", *(f"{name}: {value}" for name, value in self.facts())]
        return "\n".join(
            [*lines, *(f"{count} {kind} ({grade}): {example}" for kind, grade, count, example in self.problem_rows())]
        )

    def _repr_html_(self) -> str:
        from captrain.api.notebook import check_html

        return check_html(self.source, self.summary(), self.facts(), self.problem_rows())


def read(data: Place, *, captioned: bool = True, **settings: Unpack[ReadingOptions]) -> Samples:
    """The samples of any data set that captrain reads: id, picture, captions, where they stand.

    Args:
        data: Folder, table, tar shards, feature store or hub name.
        captioned: Leave out pictures without a caption; False keeps them.
        settings: How to read it, where looking does not tell: `format`, `image_column`, `encoding` and others.

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
    check_there([source], how["format"])
    from captrain.data.dataset import read_splits

    rejects = Rejects()
    return Samples(read_splits(source, rejects, **how, captioned=captioned), rejects, source)


def check(
    data: Place,
    *,
    rejects: Place | None = None,
    model: Place | None = None,
    max_tokens: int = 64,
    max_words: int = 100,
    min_edge: int = 64,
    max_pixels: int = 200_000_000,
    workers: int | None = None,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[ReadingOptions],
) -> Check:
    """Look over a data set and list what is wrong with it, as `captrain data check` does.

    Args:
        data: Folder, table, tar shards or hub name.
        rejects: File to write a JSON line a problem into. Default: none is written.
        model: Count captions in tokens of this checkpoint, and the words that its tokenizer does not give back.
        max_tokens: Longest caption in tokens, its end token included. Only with `model`.
        max_words: Remark on captions with more words than this.
        min_edge: Remark on pictures with a shorter edge below this, in pixels.
        max_pixels: Pictures with more pixels than this are wrong, as in training.
        workers: Threads that read and decode pictures. Default: one a core, at most 16.
        trust_remote_code, safetensors_only: As for `captrain.load`.
        settings: How to read the data: `format`, `image_column`, `encoding` and others.

    Raises `DataError` if nothing is there, or nothing can be used.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos
    >>> found = check(tiny_photos(pathlib.Path(tempfile.mkdtemp()), count=3))
    >>> found.counts["images"], found.problems["tiny"]["count"], found.summary()
    (3, 3, 'nothing wrong, 3 remarks')
    """
    how = how_to_read(sort_settings("captrain.check", settings, READING)["reading"])
    source, listed, name = place(data), place_or_none(rejects), None if model is None else place(model)
    with session(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) if name else spoken():
        check_models(name if name and not Path(name, "tokenizer_config.json").is_file() else None)
        if listed is not None:
            check_rejects_file(listed)
        from captrain.data.check.check import Limits, check_data
        from captrain.disk.locks import locked

        tokenizer = load_tokenizer(name) if name else None
        with nullcontext() if listed is None else locked(listed):
            found = check_data(
                source, **how, limits=Limits(max_pixels, min_edge, max_words, max_tokens),
                count_tokens=token_counter(tokenizer) if tokenizer else None, workers=workers,
            )  # fmt: skip
            words = words_kept(tokenizer, found) if tokenizer else None
            if listed is not None:
                found.write_rejects(listed)
    return Check(source, found, words, listed)


def check_rejects_file(path: Path) -> None:
    """Raise `UserError` for a list in a folder that is not there."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"--rejects {path}: the folder {path.parent} does not exist; expected a file in one that does")


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a checkpoint, with or without a model around it."""
    from captrain.models.checkpoint.located import find_model_folder
    from captrain.models.vocabulary import load_tokenizer as load_from

    is_tokenizer = Path(model, "tokenizer_config.json").is_file()
    return load_from(model if is_tokenizer else find_model_folder(model))


def token_counter(tokenizer: Any) -> Callable[[list[str]], list[int]]:
    """Lengths of captions in tokens, the end token included, as training counts them."""

    def count(captions: list[str]) -> list[int]:
        ids = tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"]
        return [len(caption) + 1 for caption in ids]

    return count


def words_kept(tokenizer: Any, found: Checked) -> RoundTrip:
    """What a tokenizer keeps of the captions, by some of them."""
    from captrain.models.vocabulary import round_trip, spread_captions

    return round_trip(tokenizer, spread_captions(found.samples))


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
