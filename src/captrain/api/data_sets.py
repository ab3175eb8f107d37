"""`captrain.convert` and its neighbours: data sets written in another form, shown, fetched, and the forms that there are."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, get_args

from captrain.api.checks import check_choices, check_data, check_numbers
from captrain.api.options import READING, Place, how_to_read, place, place_or_none, sort_settings
from captrain.api.settings import ReadingOptions
from captrain.errors import UserError
from captrain.messages import spoken

if TYPE_CHECKING:
    from captrain.data.convert import Conversion
    from captrain.data.get.fetch import Fetched
    from captrain.data.get.plan import Plan
    from captrain.data.imagefolder import Compilation
    from captrain.data.preview import Previewed

WrittenForm = Literal["metadata-jsonl", "sidecar", "kohya", "coco", "webdataset", "parquet", "csv"]
PictureFiles = Literal["copy", "link", "encode"]
KnownDataSet = Literal["coco-karpathy", "flickr8k", "flickr30k", "cc3m", "nocaps"]
WRITTEN_AS = {"jsonl": "metadata-jsonl"}
"""Where a form is called otherwise when it is written than when it is read."""


def convert(
    data: Place,
    out: Place,
    *,
    to: WrittenForm,
    images: PictureFiles | None = None,
    max_side: int | None = None,
    quality: int | None = None,
    shard_size: int = 1000,
    quote_formulas: bool = False,
    overwrite: bool = False,
    **settings: Unpack[ReadingOptions],
) -> Conversion:
    """Convert a data set to another format, as `captrain data convert` does.

    Args:
        data: Data set to read.
        out: New folder for the result. It appears when everything is done.
        to: Format of the result.
        images: Copy images, make hard links (no disk space, but both names are the same file), or encode them again as upright
            JPEG. Default: copy, or encode if `max_side` or `quality` is given.
        max_side: Longest side of encoded images in pixels. Default: unchanged.
        quality: JPEG quality of encoded images. Default: 90.
        shard_size: Images per tar or parquet file.
        quote_formulas: With csv: put an apostrophe before captions that a spreadsheet would run as a formula.
        overwrite: Replace the folder if it exists.
        settings: How to read the data: `format`, `image_column`, `encoding` and others.

    Returns:
        `.written`, how many images of each split, `.rejected` and `.rejects_file`.

    Raises `DataError` if nothing is left to write, or if the folder is taken.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> convert(tiny_photos(folder / "photos", count=3), folder / "shards", to="webdataset", shard_size=2).written
    {'all': 3}
    """
    how = how_to_read(sort_settings("captrain.convert", settings, READING)["reading"])
    check_choices(get_args(WrittenForm), to=to)
    check_choices(get_args(PictureFiles), images=images)
    check_numbers(least=8, max_side=max_side)
    check_numbers(most=100, quality=quality)
    check_numbers(shard_size=shard_size)
    with spoken():
        check_data([place(data)], how["format"])
        from captrain.data.convert import FormOptions, PictureChanges
        from captrain.data.convert import convert as convert_data

        return convert_data(
            place(data), Path(out), to, pictures=PictureChanges(images, max_side, quality),
            form=FormOptions(shard_size, quote_formulas), overwrite=overwrite, **how,
        )  # fmt: skip


def compile(
    data: Place, out: Place | None = None, *, overwrite: bool = False, **settings: Unpack[ReadingOptions]
) -> Compilation:
    """Make a metadata.jsonl from pictures with caption files beside them, as `captrain data compile` does.

    Hugging Face's imagefolder loads the result.

    Args:
        data: Folder of pictures with text files, or of sd-scripts (kohya) folders.
        out: Folder to write. Default: the source. In another folder, pictures become hard links or copies.
        overwrite: Replace what is there.
        settings: How to read the data: `caption_extension`, `encoding` and others.

    Returns:
        `.rows`, `.tables` (the files), `.loads` (the line of Python that loads them), `.rejected` and `.rejects_file`.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos
    >>> photos, texts = tiny_photos(pathlib.Path(tempfile.mkdtemp()), count=3), pathlib.Path(tempfile.mkdtemp()) / "texts"
    >>> _ = convert(photos, texts, to="sidecar")
    >>> compile(texts).rows
    3
    """
    how = how_to_read(sort_settings("captrain.compile", settings, READING)["reading"])
    with spoken():
        from captrain.data.imagefolder import compile_captions

        return compile_captions(Path(data), place_or_none(out), overwrite=overwrite, **how)


def preview(
    data: Place,
    out: Place,
    *,
    limit: int = 200,
    split: str | None = None,
    problems: bool = False,
    workers: int | None = None,
    **settings: Unpack[ReadingOptions],
) -> Previewed:
    """Write a web page of pictures with their captions, as `captrain data preview` does: one file that needs no network.

    Args:
        data: Folder, table, shards.
        out: HTML file to write.
        limit: Show at most this many pictures, evenly spread over the data set.
        split: Only this split.
        problems: Check the whole data set, and show pictures with problems first.
        workers: Threads that read and decode pictures. Default: one per core, at most 16.
        settings: How to read the data: `format`, `image_column`, `encoding` and others.

    Returns:
        `.shown`, `.images` (all that there are) and `.with_problems`.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> preview(tiny_photos(folder / "photos", count=3), folder / "page.html", limit=2).shown
    2
    """
    how = how_to_read(sort_settings("captrain.preview", settings, READING)["reading"])
    page = Path(out)
    check_numbers(most=10_000, limit=limit)
    check_numbers(workers=workers)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{page}: expected a file name that ends in .html")
    if not page.absolute().parent.is_dir():
        raise UserError(f"{page}: the folder {page.parent} does not exist; expected a file in one that does")
    with spoken():
        check_data([place(data)], how["format"])
        from captrain.data.preview import write_preview

        return write_preview(place(data), page, limit=limit, split=split, problems=problems, workers=workers, **how)


@dataclass(frozen=True, slots=True)
class Download:
    """A data set that was fetched. It is taken wherever a path to data is.

    `plan` says what it is, from where, and under which licence; `fetched` what came.
    """

    plan: Plan
    fetched: Fetched

    def __fspath__(self) -> str:
        """The folder."""
        return str(self.plan.folder)

    @property
    def image_root(self) -> Path | None:
        """Where the pictures are, if they stayed in a local copy: `captrain.train(found, "run", image_root=found.image_root)`."""
        return self.plan.image_root

    @property
    def failed(self) -> int:
        """Pictures that did not come."""
        return self.fetched.failed


def get(
    name: KnownDataSet,
    folder: Place | None = None,
    *,
    mirror: str = "",
    local: Place | None = None,
    annotations_only: bool = False,
    workers: int = 16,
    ask: Callable[[Plan], bool] | None = None,
) -> Download:
    """Download a known data set, as `captrain data get` does. The same call goes on after an interruption.

    Args:
        name: coco-karpathy, flickr8k, flickr30k, cc3m or nocaps.
        folder: Folder to write. Default: the name of the data set.
        mirror: URL of a folder with the same files, to use instead of the source.
        local: Folder with a copy of the files, or of the pictures only, which stay there.
        annotations_only: Leave out the pictures.
        workers: Downloads at a time, if each picture has its own URL.
        ask: Called with the plan before anything is fetched: what, from where, how large, under which licence. If it returns
            False, nothing is fetched. Default: nobody is asked.

    Raises `DataError` for an unknown data set and for files that are damaged or do not fit on the disk.

    >>> get("flickr8k", local="downloads/flickr8k").image_root      # doctest: +SKIP
    Path('downloads/flickr8k/Images')
    """
    check_choices(get_args(KnownDataSet), name=name)
    check_numbers(most=256, workers=workers)
    with spoken():
        from captrain.data.get.fetch import fetch_data_set
        from captrain.data.get.plan import make_plan

        target = Path(name) if folder is None else Path(folder)
        plan = make_plan(name, target, mirror=mirror, local=place_or_none(local), annotations_only=annotations_only)
        if ask is not None and not ask(plan):
            raise UserError("nothing was fetched, as the answer was not y")
        return Download(plan, fetch_data_set(plan, workers))


@dataclass(frozen=True, slots=True)
class DataFormat:
    """A format of data: its name, what it is, what it is called when it is written ("" if it is only read), how it is known."""

    name: str
    about: str
    written_as: str
    recognised_by: str


def formats() -> list[DataFormat]:
    """The data formats that can be read and written, as `captrain data formats` lists them.

    >>> [form.written_as for form in formats() if form.name == "webdataset"]
    ['webdataset']
    """
    from captrain.data.readers import READERS
    from captrain.data.writers import WRITERS

    found = []
    for name, form in READERS.items():
        module = _parsed(form.module)
        written = WRITTEN_AS.get(name, name)
        found.append(DataFormat(name, _first_line(module), written if written in WRITERS else "", _recognised(module)))
    return found


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _recognised(module: ast.Module) -> str:
    """What the docstring of `recognises` says, without its first words.

    >>> _recognised(ast.parse('def recognises():\\n    "Whether this is a folder: any."'))
    'a folder: any'
    """
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "recognises")
    line = _first_line(next(functions))
    for words in ("Whether this is ", "Whether this names ", "Whether a source is ", "Whether "):
        line = line.removeprefix(words)
    return line


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    paragraph = (ast.get_docstring(node) or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split()).removesuffix(".")
