"""`captrain data compile`."""

from __future__ import annotations

from pathlib import Path

from captrain.cli.flags import ReadingFlags
from captrain.cli.show import exit_code, rejected_rows, show_table
from captrain.cli.switch import Switch
from captrain.settings.schema import ReadingSettings


def compile(
    source: Path, output: Path | None = None, /, *, overwrite: Switch = False, reading: ReadingFlags = None
) -> int:
    """Make a metadata.jsonl of pictures with captions beside them, which Hugging Face's imagefolder loads.

    Args:
        source: Folder of pictures with text files, or of sd-scripts (kohya) folders.
        output: Where to write it. Default: the source. In any other folder that does not hold the source, pictures become
            hard links, or copies.
        overwrite: Replace what is there.
    """
    from captrain.data.compile import compile_captions
    from captrain.data.options import ReadOptions

    settings = reading or ReadingSettings()
    done = compile_captions(
        source, output, overwrite=overwrite, format=settings.format, options=ReadOptions.of(settings)
    )
    tables = [("table", str(table)) for table in done.tables]
    loads = ("loaded by", done.loads)
    show_table([("rows", str(done.rows)), *rejected_rows(done.rejected, done.rejects_file), *tables, loads])
    return exit_code(done.rejected)
