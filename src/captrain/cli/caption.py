"""`captrain caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from captrain.cli.flags import ComputingFlags, ComputingSettings, DecodingFlags, ReadingFlags, given, how_to_read
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, rejected_rows, show_table
from captrain.errors import UserError


def caption(
    model: str,
    images: list[str],
    /,
    *,
    output: Path | None = None,
    extension: str | None = None,
    existing: Literal["skip", "overwrite", "append", "prepend"] = "skip",
    reading: ReadingFlags = None,
    computing: ComputingFlags = None,
    generation: DecodingFlags = None,
) -> int:
    """Write captions for pictures.

    Args:
        model: Run folder, model folder or hub id.
        images: Pictures, folders of pictures, or data sets.
        output: One JSONL file for all captions. Default: a text file beside each picture.
        extension: Ending of the text files beside the pictures. Default: .txt
        existing: What to do where a caption is there already.
    """
    quiet_libraries()
    from captrain.inference.caption_files import caption_files

    outcome = caption_files(
        model,
        images,
        output=output,
        extension=_extension(extension, output),
        existing=existing,
        **how_to_read(reading),
        **(computing or ComputingSettings()).model_dump(),
        decoding=given(generation=generation)["generation"],
    )
    counts = [("written", str(outcome.written)), ("skipped", str(outcome.skipped))]
    show_table([*counts, *rejected_rows(outcome.rejected, outcome.rejects_file)])
    return exit_code(outcome.rejected)


def _extension(found: str | None, output: Path | None) -> str:
    """The ending of text files, checked: it is added to names, and must not lead into another folder."""
    if found is not None and output is not None:
        raise UserError(
            "found both --output and --extension, expected one: a JSONL file for all, or text files beside the pictures"
        )
    extension = ".txt" if found is None else found if found.startswith(".") else f".{found}"
    if extension.endswith(".") or any(letter in extension for letter in "/\\\0"):
        raise UserError(f"--extension: found {found!r}, expected an ending such as .txt or .caption")
    return extension
