"""`captrain caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from captrain.api.captioning import Engine, Existing
from captrain.api.captioning import caption as caption_pictures
from captrain.cli.flags import ComputingFlags, DecodingFlags, ReadingFlags, TrustFlags, given, trusted
from captrain.cli.show import exit_code, rejected_rows, show_table


def caption(
    model: str,
    images: list[str],
    /,
    *,
    output: Path | None = None,
    extension: str | None = None,
    existing: Existing = "skip",
    engine: Engine | None = None,
    address: str | None = None,
    devices: Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=())] = (),
    reading: ReadingFlags = None,
    computing: ComputingFlags = None,
    generation: DecodingFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Write captions for pictures.

    With --engine, a collection of any size is captioned part by part on several devices or machines. Run the same command
    again to go on after an interruption.

    Args:
        model: Run folder, model folder or hub id.
        images: Pictures, folders of pictures, or data sets.
        output: JSONL file for all captions. Default: a text file beside each picture.
        extension: Extension of the text files beside the pictures. Default: that of the caption file that is there, else .txt.
        existing: What to do if a picture has a caption already. A repeated command does not append or prepend twice.
        engine: `local` uses all GPUs of this machine, `ray` all machines of a Ray cluster, which must share pictures, model and
            output. Default: one device.
        address: Address of the Ray cluster: HOST:PORT or auto. Default: Ray on this machine only.
        devices: Devices of the local engine, such as cuda:0,cuda:1. Default: all GPUs.
    """
    sections = given(reading=reading, computing=computing, generation=generation)
    how: dict[str, Any] = {name: value for section in sections.values() for name, value in section.items()}
    how |= {"extension": extension, "existing": existing, "engine": engine, "address": address, "devices": devices}
    how |= trusted(model_files)
    if output is None:
        return _show(caption_pictures(model, images, beside=True, **how))
    return _show(caption_pictures(model, images, output, **how))


def _show(outcome: Any) -> int:
    """Print what was done; the exit code of it."""
    counts = [("written", str(outcome.written)), ("skipped", str(outcome.skipped))]
    if outcome.unread:
        counts.append(("not read", f"{len(outcome.unread)}, first {outcome.unread[0]}; run the command again"))
    show_table([*counts, *rejected_rows(outcome.rejected, outcome.rejects_file)])
    return 1 if outcome.unread else exit_code(outcome.rejected)
