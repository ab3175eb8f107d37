"""`captrain.load` and `captrain.caption`: a captioner to use, and captions for any number of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args, overload

from captrain.api.checks import check_captions_file, check_choices, check_data, check_lengths, check_models
from captrain.api.options import CAPTIONING, Place, how_to_read, place, place_or_none, sort_settings
from captrain.api.process import calling
from captrain.api.settings import ComputingOptions, GenerationOptions, ReadingOptions
from captrain.errors import UserError
from captrain.records import Caption, Rejects
from captrain.settings.schema import ComputingSettings

if TYPE_CHECKING:
    from captrain.features.stream import Computing
    from captrain.inference.caption_files import CaptionOutcome, CaptionOutput
    from captrain.inference.captioner import Captioner

Existing = Literal["skip", "overwrite", "append", "prepend"]
Engine = Literal["local", "ray"]


class CaptionSettings(ReadingOptions, ComputingOptions, GenerationOptions, total=False):
    """Settings of captioning: how data is read, how the captioner runs, how captions are written."""


class Captions(list[Caption]):
    """Captions in the order of the pictures. `rejected` lists the pictures that have none: `id`, `where`, `reason`."""

    def __init__(self, captions: Sequence[Caption], rejected: Sequence[dict[str, str]] = ()) -> None:
        super().__init__(captions)
        self.rejected = list(rejected)


def load(
    source: Place,
    *,
    device: str = "auto",
    precision: str = "auto",
    cache: Place | None = None,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
) -> Captioner:
    """Load a captioner (a run or its folder, a model folder, a .zip, a hub id or a short name), ready to describe pictures.

    Args:
        device: `auto` takes cuda, mps, xpu or cpu, the first that is there; or one of them, such as `cuda:1`.
        precision: `auto` (bf16 where the device computes it fast), `bf16`, `fp16` or `fp32`. In `fp32` captions are those of
            plain transformers, word for word.
        cache: Folder for downloads from the hub. Default: the hub's own cache.
        trust_remote_code: Run the Python code that comes with a model, for kinds of models that transformers does not know.
        safetensors_only: Refuse weights that are pickles.

    Raises `ModelError` when it can't be loaded. Torch is imported here and not with the package.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_blip, tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> captioner = load(tiny_blip(folder / "blip"), device="cpu", precision="fp32")
    >>> photo = tiny_photos(folder / "photos") / "photo-000.png"
    >>> isinstance(captioner(photo, beams=1, max_new_tokens=5), str)
    True
    >>> captioner.map({"image": [photo, photo], "number": [1, 2]}).keys()
    dict_keys(['caption'])
    """
    from captrain.api.process import trusting
    from captrain.inference.captioner import Captioner

    with trusting(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only):
        return Captioner.load(place(source), device=device, precision=precision, cache=place_or_none(cache))


@overload
def caption(
    model: Place,
    data: Place | Sequence[Place],
    out: None = None,
    *,
    beside: Literal[False] = False,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[CaptionSettings],
) -> Captions: ...
@overload
def caption(
    model: Place,
    data: Place | Sequence[Place],
    out: Place,
    *,
    existing: Existing = "skip",
    engine: Engine | None = None,
    address: str | None = None,
    devices: Sequence[str] = (),
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[CaptionSettings],
) -> CaptionOutcome: ...
@overload
def caption(
    model: Place,
    data: Place | Sequence[Place],
    out: None = None,
    *,
    beside: Literal[True],
    extension: str | None = None,
    existing: Existing = "skip",
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[CaptionSettings],
) -> CaptionOutcome: ...
def caption(
    model: Place,
    data: Place | Sequence[Place],
    out: Place | None = None,
    *,
    beside: bool = False,
    extension: str | None = None,
    existing: Existing = "skip",
    engine: Engine | None = None,
    address: str | None = None,
    devices: Sequence[str] = (),
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[CaptionSettings],
) -> Captions | CaptionOutcome:
    """Caption pictures: return the captions, or write them to a file or beside the pictures, as `captrain caption` does.

    Args:
        model: Run folder, model folder or hub id.
        data: A picture, a folder of pictures, a data set, or several of them.
        out: One JSONL file for all captions. The same call continues an interrupted one.
        beside: Write a text file beside each picture.
        extension: Ending of those text files. Default: the caption file that a picture has, else .txt
        existing: What to do if a picture already has a caption.
        engine: `local` captions on all GPUs of this machine, `ray` on all machines of a Ray cluster. Only with `out`.
        address: The Ray cluster: HOST:PORT or auto. Default: Ray on this machine alone.
        devices: The devices of the local engine, such as `["cuda:0", "cuda:1"]`. Default: all GPUs.
        trust_remote_code, safetensors_only: As for `captrain.load`.
        settings: `beams`, `batch_size`, `format` and others (`captrain.api.captioning.CaptionSettings`).

    Returns:
        Captions, in order, without `out` and `beside`; `.rejected` lists pictures that can't be used. Otherwise how many were
        written, skipped and rejected.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_blip, tiny_photos
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> photos, model = tiny_photos(folder / "photos", count=3), tiny_blip(folder / "blip")
    >>> [line.id for line in caption(model, photos, device="cpu", beams=1)]
    ['photo-000.png', 'photo-001.png', 'photo-002.png']
    >>> caption(model, photos, folder / "captions.jsonl", device="cpu", beams=1).written
    3
    """
    sorted_out = sort_settings("captrain.caption", settings, CAPTIONING)
    images = [place(one) for one in ([data] if isinstance(data, (str, os.PathLike)) else data)]
    output = place_or_none(out)
    ending = text_extension(extension, output)
    check_choices(get_args(Existing), existing=existing)
    check_choices(get_args(Engine), engine=engine)
    check_engine(engine, address, devices, output)
    check_lengths(sorted_out["generation"])
    check_captions_file(output)
    common = {**how_to_read(sorted_out["reading"]), "decoding": sorted_out["generation"]}
    run = ComputingSettings(**sorted_out["computing"])
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(place(model))
        check_data(images, common["format"])
        begin()
        from captrain.features.stream import Computing
        from captrain.inference.caption_files import CaptionOutput

        if output is None and not beside:
            return _captions(place(model), images, Computing(**run.model_dump()), **common)
        engines = Engines(engine, address, tuple(devices))
        return write_captions(place(model), images, CaptionOutput(output, ending, existing), run, engines, **common)


@dataclass(frozen=True, slots=True)
class Engines:
    """The engine that captions, the Ray cluster's address and the devices, from the arguments of a flag or call."""

    name: str | None = None
    address: str | None = None
    devices: tuple[str, ...] = ()


def write_captions(
    model: str, images: list[str], to: CaptionOutput, run: ComputingSettings, engines: Engines, **how: Any
) -> CaptionOutcome:
    """Write captions to one file or beside the pictures, on one device or on an engine's.

    Args:
        to: where captions go. run: how the captioner runs. engines: an engine, or none.
        how: how pictures are read (`format`, `options`), and `decoding`.
    """
    from captrain.features.stream import Batching, Computing

    if engines.name is None:
        from captrain.inference.caption_files import caption_files

        return caption_files(model, images, to, computing=Computing(**run.model_dump()), **how)
    from captrain.features.engines import EngineOptions
    from captrain.inference.caption_parts import caption_parts
    from captrain.inference.captioning_engine import CaptionerOpening

    where = EngineOptions(engines.name, engine_devices(engines.name, run.device, engines.devices), engines.address)
    batching = Batching(run.batch_size, run.workers, run.max_pixels)
    return caption_parts(CaptionerOpening(model, run.precision), images, to, engine=where, batching=batching, **how)


def _captions(model: str, images: list[str], computing: Computing, **how: Any) -> Captions:
    """The captions of all pictures, kept in memory."""
    from captrain.data.dataset import list_images
    from captrain.inference.captioner import Captioner
    from captrain.progress import track

    rejects = Rejects()
    by_persons = replace(how["options"], machine_captions=False)  # only these are references
    samples = list_images(images, rejects, format=how["format"], options=by_persons)
    captioner = Captioner.load(model, computing.device, computing.precision)
    found = []
    with track("caption", len(samples)) as advance:
        lines = captioner.stream(
            samples,
            captioner.decoding(how["decoding"]),
            rejects,
            computing.batch_size,
            computing.workers,
            computing.max_pixels,
        )
        for index, line in lines:
            found.append((index, Caption.of(samples[index], line.text, line.score)))
            advance(1)
    return Captions([line for _, line in sorted(found, key=lambda pair: pair[0])], rejects.lines)


def check_engine(engine: str | None, address: str | None, devices: Sequence[str], output: Path | None) -> None:
    """Raise `UserError` for options that only engines have, and for an engine without a file for all captions."""
    if engine is not None:
        if output is None:
            raise UserError(f"--engine {engine}: writes one file for all; give --output captions.jsonl")
        return
    if address is not None:
        raise UserError(f"--address {address}: names a Ray cluster, and goes with --engine ray")
    if devices:
        raise UserError(
            f"--devices {','.join(devices)}: several devices go with --engine local; for one, give --device"
        )


def engine_devices(engine: str, device: str, devices: Sequence[str]) -> tuple[str, ...]:
    """The devices of an engine, several from `devices`, or the one `device`."""
    if devices and engine == "ray":
        raise UserError(
            f"--devices {','.join(devices)}: goes with --engine local; a cluster's workers get one GPU or core each"
        )
    if devices and device != "auto":
        raise UserError(f"found both --device {device} and --devices {','.join(devices)}, expected one of them")
    return tuple(devices) or (device,)


def text_extension(found: str | None, output: Path | None) -> str:
    """The ending of text files, checked: it is added to names, and must not lead into another folder.

    >>> text_extension("caption", None), text_extension(None, None)
    ('.caption', '.txt')
    """
    if found is not None and output is not None:
        raise UserError(
            "found both --output and --extension, expected one: a JSONL file for all, or text files beside the pictures"
        )
    extension = ".txt" if found is None else found if found.startswith(".") else f".{found}"
    if extension.endswith(".") or any(letter in extension for letter in "/\\\0"):
        raise UserError(f"--extension: found {found!r}, expected an ending such as .txt or .caption")
    return extension
