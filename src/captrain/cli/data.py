"""`captrain data` convert, compile, preview and get: data sets that are written or fetched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api import data_sets
from captrain.api.data_sets import KnownDataSet, PictureFiles, WrittenForm
from captrain.cli.arguments import Switch
from captrain.cli.flags import ReadingFlags, given
from captrain.cli.show import exit_code, rejected_rows, show_table
from captrain.errors import UserError

if TYPE_CHECKING:
    from captrain.data.get.fetch import Fetched
    from captrain.data.get.plan import Plan, Step


def convert(
    source: str,
    folder: Path,
    /,
    *,
    to: WrittenForm,
    images: PictureFiles | None = None,
    max_side: Annotated[int | None, Parameter(validator=Number(gte=8))] = None,
    quality: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100))] = None,
    shard_size: Annotated[int, Parameter(validator=Number(gte=1))] = 1000,
    quote_formulas: Switch = False,
    overwrite: Switch = False,
    reading: ReadingFlags = None,
) -> int:
    """Convert a data set to another format.

    Args:
        source: Data set to read.
        folder: New folder for the result; it appears when everything is done.
        to: Format of the result.
        images: Copy images, make hard links (no disk space, but both names are the same file), or encode them again as upright
            JPEG. Default: copy, or encode if --max-side or --quality is given.
        max_side: Longest side of encoded images in pixels. Default: unchanged.
        quality: JPEG quality of encoded images. Default: 90.
        shard_size: Images per tar or parquet file.
        quote_formulas: With --to csv: put an apostrophe before captions that a spreadsheet would run as a formula (they begin
            with = + - @). A column `apostrophe` says so, and captrain removes it again.
        overwrite: Replace the folder if it exists.
    """
    done = data_sets.convert(
        source, folder, to=to, images=images, max_side=max_side, quality=quality, shard_size=shard_size,
        quote_formulas=quote_formulas, overwrite=overwrite, **given(reading=reading)["reading"],
    )  # fmt: skip
    written = [("images" if split == "all" else split, str(count)) for split, count in done.written.items()]
    show_table([*written, *rejected_rows(done.rejected, done.rejects_file), ("folder", str(folder))])
    return exit_code(done.rejected)


def compile(
    source: Path, output: Path | None = None, /, *, overwrite: Switch = False, reading: ReadingFlags = None
) -> int:
    """Make a metadata.jsonl from pictures with caption files beside them, for Hugging Face's imagefolder.

    Args:
        source: Folder of pictures with text files, or of sd-scripts (kohya) folders.
        output: Folder to write. Default: the source. In another folder, pictures become hard links or copies.
        overwrite: Replace what is there.
    """
    done = data_sets.compile(source, output, overwrite=overwrite, **given(reading=reading)["reading"])
    tables = [("table", str(table)) for table in done.tables]
    loads = ("loaded by", done.loads)
    show_table([("rows", str(done.rows)), *rejected_rows(done.rejected, done.rejects_file), *tables, loads])
    return exit_code(done.rejected)


def preview(
    data: str,
    output: Path,
    /,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 200,
    split: str | None = None,
    problems: Switch = False,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    reading: ReadingFlags = None,
) -> int:
    """Write a web page of pictures with their captions, as one file that needs no network.

    Args:
        data: Data set: folder, table, shards.
        output: HTML file to write.
        limit: Show at most this many pictures, evenly spread over the data set.
        split: Only this split.
        problems: Check the whole data set, and show pictures with problems first.
        workers: Threads that read and decode pictures. Default: one per core, at most 16.
    """
    how = given(reading=reading)["reading"]
    written = data_sets.preview(data, output, limit=limit, split=split, problems=problems, workers=workers, **how)
    rows = [
        ("shown", f"{written.shown:,} of {written.images:,} pictures"),
        ("with problems", f"{written.with_problems:,}"),
    ]
    show_table([*rows, ("page", str(output))])
    return 0


def get(
    name: KnownDataSet,
    folder: Path | None = None,
    /,
    *,
    mirror: str = "",
    local: Annotated[Path | None, Parameter(name="--from")] = None,
    annotations_only: Switch = False,
    yes: Switch = False,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=256))] = 16,
) -> int:
    """Download a known data set. It first says what, from where, how large and under which licence, and asks.

    Run the same command again to go on after an interruption.

    Args:
        name: Data set to download: coco-karpathy, flickr8k, flickr30k, cc3m or nocaps.
        folder: Folder to write. Default: the name of the data set.
        mirror: URL of a folder with the same files, to use instead of the source.
        local: Folder with a copy of the files, or of the pictures only (they stay there; train with --image-root).
        annotations_only: Leave out the pictures.
        yes: Do not ask.
        workers: Downloads at a time, if each picture has its own URL.
    """

    def agreed(plan: Plan) -> bool:
        show_plan(plan)
        return yes or not plan.to_fetch or _says_yes()

    done = data_sets.get(
        name, folder, mirror=mirror, local=local, annotations_only=annotations_only, workers=workers, ask=agreed
    )
    show_result(done.plan, done.fetched, annotations_only)
    return exit_code(done.failed)


def show_plan(plan: Plan) -> None:
    """What would be fetched, from where, how large, under which licence."""
    rows = [_file_row(step) for step in plan.steps]
    for listed in plan.lists:
        source = "the addresses in it" if listed.own_hosts or not plan.mirror else plan.mirror
        rows.append((f"{listed.count:,} pictures of {listed.table}", f"about {size(listed.size)}", source, "none"))
    show_table(rows, header=("file", "size", "from", "checksum"))
    facts = [
        ("data set", plan.data_set.title),
        ("licence", plan.data_set.licence),
        ("about it", plan.data_set.page),
        ("to fetch", size(plan.to_fetch) if plan.to_fetch else "nothing"),
        ("disk", f"about {size(plan.room)}, into {plan.folder}"),
    ]
    if plan.image_root:
        facts.append(("pictures", f"stay in {plan.image_root}"))
    show_table(facts)


def show_result(plan: Plan, fetched: Fetched, annotations_only: bool) -> None:
    """What was fetched, and how to train on it."""
    rows = [("pictures", f"{sum(outcome.there for outcome in fetched.lists):,}")] if fetched.lists else []
    for outcome in fetched.lists:
        if outcome.failed:
            rows.append(("failed", f"{outcome.failed:,} (listed in {outcome.failures})"))
    if plan.data_set.request and not plan.image_root and not annotations_only:
        rows.append(
            ("pictures", f"are handed out by hand: ask at {plan.data_set.request}, unpack them, then --from FOLDER")
        )
    root = f" --image-root {plan.image_root}" if plan.image_root else ""
    rows.append(("train on it", f"captrain train {plan.folder} RUN{root}"))
    show_table(rows)


def size(count: int) -> str:
    """Bytes for people.

    >>> size(13_510_573_713), size(3_000_000)
    ('13.5 GB', '3.0 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _file_row(step: Step) -> tuple[str, str, str, str]:
    from captrain.data.shards.remote import shown_url

    file = step.file
    length = f"{'' if file.exact else 'about '}{size(file.size)}"
    checksum = file.checksum.partition(":")[0] or "noted when it comes first"
    where = {"web": shown_url(step.place), "local": step.place, "here": "is here already"}[step.source]
    return file.name, length, where, checksum


def _says_yes() -> bool:
    """Whether the user lets it be fetched."""
    if not sys.stdin.isatty():
        raise UserError("found no terminal to ask on, expected --yes: the list above says what would be fetched")
    return input("Fetch it? [y/N] ").strip().lower() in ("y", "yes")
