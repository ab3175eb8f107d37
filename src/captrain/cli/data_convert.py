"""`captrain data convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.flags import ReadingFlags
from captrain.cli.show import exit_code, rejected_rows, show_table
from captrain.cli.switch import Switch
from captrain.settings.schema import ReadingSettings

Form = Literal["metadata-jsonl", "sidecar", "kohya", "coco", "webdataset", "parquet", "csv"]


def convert(
    source: str,
    folder: Path,
    /,
    *,
    to: Form,
    images: Literal["copy", "link", "encode"] | None = None,
    max_side: Annotated[int | None, Parameter(validator=Number(gte=8))] = None,
    quality: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100))] = None,
    shard_size: Annotated[int, Parameter(validator=Number(gte=1))] = 1000,
    quote_formulas: Switch = False,
    overwrite: Switch = False,
    reading: ReadingFlags = None,
) -> int:
    """Write a data set in another form.

    Args:
        source: Data set to read.
        folder: New folder for the result; it appears when all is done.
        to: Form of the result.
        images: Copy images, make hard links (no disk space, but both names are one file), or encode them anew as upright
            JPEG. Default: copy, and encode where --max-side or --quality is given.
        max_side: Longest side of encoded images, in pixels. Default: as they are.
        quality: JPEG quality of encoded images. Default: 90
        shard_size: Images in each tar or parquet file.
        quote_formulas: With --to csv: a caption that a spreadsheet would run (it begins with = + - @) gets an apostrophe before
            it, and a column `apostrophe` that says so; captrain takes it off again.
        overwrite: Replace the folder if it is there.
    """
    from captrain.data.convert import convert as convert_data
    from captrain.data.options import ReadOptions

    settings = reading or ReadingSettings()
    done = convert_data(
        source,
        folder,
        to,
        images=images,
        max_side=max_side,
        quality=quality,
        shard_size=shard_size,
        quote_formulas=quote_formulas,
        overwrite=overwrite,
        format=settings.format,
        options=ReadOptions.of(settings),
    )
    written = [("images" if split == "all" else split, str(count)) for split, count in done.written.items()]
    show_table([*written, *rejected_rows(done.rejected, done.rejects_file), ("folder", str(folder))])
    return exit_code(done.rejected)
