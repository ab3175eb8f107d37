"""`captrain caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from captrain.api.checks import check_captions_file, check_data, check_lengths, check_models
from captrain.cli.flags import (
    ComputingFlags,
    ComputingSettings,
    DecodingFlags,
    ReadingFlags,
    TrustFlags,
    given,
    how_to_read,
    trust,
)
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
    engine: Literal["local", "ray"] | None = None,
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
    trust(model_files)
    ending = _extension(extension, output)
    if engine is None:
        _need_no_engine(address, devices)
    elif output is None:
        raise UserError(f"--engine {engine}: writes one file for all; give --output captions.jsonl")
    run = computing or ComputingSettings()
    common = {**how_to_read(reading), "decoding": given(generation=generation)["generation"]}
    check_lengths(common["decoding"])
    check_captions_file(output)
    check_models(model)
    check_data(images, common["format"])
    quiet_libraries()
    from captrain.features.stream import Batching, Computing
    from captrain.inference.caption_files import CaptionOutput, caption_files

    to = CaptionOutput(output, ending, existing)
    if engine is None:
        outcome = caption_files(model, images, to, computing=Computing(**run.model_dump()), **common)
    else:
        from captrain.features.engines import EngineOptions
        from captrain.inference.caption_parts import caption_parts
        from captrain.inference.captioning_engine import CaptionerOpening

        opening = CaptionerOpening(model, run.precision)
        where = EngineOptions(engine, _devices(engine, run.device, devices), address)
        batching = Batching(run.batch_size, run.workers, run.max_pixels)
        outcome = caption_parts(opening, images, to, engine=where, batching=batching, **common)
    return _show(outcome)


def _show(outcome: Any) -> int:
    """Print what was done; the exit code of it."""
    counts = [("written", str(outcome.written)), ("skipped", str(outcome.skipped))]
    if outcome.unread:
        counts.append(("not read", f"{len(outcome.unread)}, first {outcome.unread[0]}; run the command again"))
    show_table([*counts, *rejected_rows(outcome.rejected, outcome.rejects_file)])
    return 1 if outcome.unread else exit_code(outcome.rejected)


def _need_no_engine(address: str | None, devices: tuple[str, ...]) -> None:
    """Raise `UserError` for what only engines understand."""
    if address is not None:
        raise UserError(f"--address {address}: names a Ray cluster, and goes with --engine ray")
    if devices:
        raise UserError(
            f"--devices {','.join(devices)}: several devices go with --engine local; for one, give --device"
        )


def _devices(engine: str, device: str, devices: tuple[str, ...]) -> tuple[str, ...]:
    """The devices of an engine, of which the flags may name several, or one."""
    if devices and engine == "ray":
        raise UserError(
            f"--devices {','.join(devices)}: goes with --engine local; a cluster's workers get one GPU or core each"
        )
    if devices and device != "auto":
        raise UserError(f"found both --device {device} and --devices {','.join(devices)}, expected one of them")
    return devices or (device,)


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
