"""`captrain data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.flags import ReadingFlags
from captrain.cli.show import show_table
from captrain.cli.switch import Switch
from captrain.errors import UserError


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
    """Write a page of thumbnails with captions, to look at: one file, without any request to the network.

    Args:
        data: Data set: folder, table, shards.
        output: HTML file to write.
        limit: Show at most so many pictures, evenly spread over the data set.
        split: Only this split.
        problems: Look over the whole data set, and show pictures with problems before any others.
        workers: Threads that read and decode pictures. Default: one a core, at most 16.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output}: expected a file name that ends in .html")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: the folder {output.parent} does not exist; expected a file in one that does")
    from captrain.data.options import BY_LOOKING, ReadOptions
    from captrain.data.preview import write_preview

    written = write_preview(
        data,
        output,
        limit=limit,
        split=split,
        problems=problems,
        format=reading.format if reading else None,
        options=ReadOptions.of(reading) if reading else BY_LOOKING,
        workers=workers,
    )
    rows = [
        ("shown", f"{written.shown:,} of {written.images:,} pictures"),
        ("with problems", f"{written.with_problems:,}"),
    ]
    show_table([*rows, ("page", str(output))])
    return 0
