"""`captrain.check`: what is wrong with a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from captrain.api.checks import check_models, check_numbers
from captrain.api.options import READING, Place, how_to_read, place, place_or_none, sort_settings
from captrain.api.process import calling
from captrain.api.settings import ReadingOptions
from captrain.errors import UserError

if TYPE_CHECKING:
    from captrain.data.check.check import Checked
    from captrain.models.vocabulary import RoundTrip

SHOWN_WORDS = 12


@dataclass(frozen=True, repr=False)
class Check:
    """What a check of a data set found: `counts`, `problems` by kind, and every single one as `lines`.

    `wrong` counts what would be left out of a training or harm it, `remarks` what is only worth knowing.
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

    def write(self, path: Place) -> Check:
        """Write every problem into a file, a JSON line each; gives this check with its `rejects_file`."""
        self.found.write_rejects(Path(path))
        return replace(self, rejects_file=Path(path))

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

    def problem_rows(self) -> list[tuple[str, str, str, list[str]]]:
        """Kind, grade, count and examples, of each kind of problem."""
        from captrain.data.check.problems import KINDS

        examples = self.found.examples()
        rows: list[tuple[str, str, str, list[str]]] = []
        for name, count in self.found.findings.counts().items():
            lines = [f"{line['id']} {line['reason']}" for line in examples[name]]
            rows.append((KINDS[name].title, KINDS[name].grade, f"{count:,}", lines))
        return rows

    def summary(self) -> str:
        """How much is wrong, on one line."""
        return f"{self.wrong or 'nothing'} wrong, {self.remarks or 'no'} {'remark' if self.remarks == 1 else 'remarks'}"

    def __repr__(self) -> str:
        lines = [f"<Check {self.source!r}: {self.summary()}>", *(f"{name}: {value}" for name, value in self.facts())]
        lines += [f"{count} {kind} ({grade}): {examples[0]}" for kind, grade, count, examples in self.problem_rows()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from captrain.api.html import check_html

        problems = [(*row, examples[0]) for *row, examples in self.problem_rows()]
        return check_html(self.source, self.summary(), self.facts(), problems)


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
        rejects: File to write the problems to, one JSON line each. Default: no file.
        model: Count captions in tokens of this checkpoint, and the words that its tokenizer loses.
        max_tokens: Longest caption in tokens, its end token included. Only with `model`.
        max_words: Remark on captions with more words than this.
        min_edge: Remark on pictures with a shorter edge below this, in pixels.
        max_pixels: Pictures with more pixels than this are wrong, as in training.
        workers: Threads that read and decode pictures. Default: one per core, at most 16.
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
    check_numbers(least=2, max_tokens=max_tokens)
    check_numbers(max_words=max_words, min_edge=min_edge, max_pixels=max_pixels, workers=workers)
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(name if name and not Path(name, "tokenizer_config.json").is_file() else None)
        if listed is not None:
            check_rejects_file(listed)
        if name is not None:
            begin()
        from captrain.data.check.check import CheckLimits, check_data
        from captrain.disk.locks import locked

        tokenizer = load_tokenizer(name) if name else None
        with nullcontext() if listed is None else locked(listed):
            found = check_data(
                source, **how, limits=CheckLimits(max_pixels, min_edge, max_words, max_tokens),
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
