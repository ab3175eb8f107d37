"""`captrain encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.early import check_data, check_folder, check_models
from captrain.cli.flags import ReadingFlags, TrustFlags, how_to_read, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, show_table
from captrain.cli.switch import Switch

AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]


def encode(
    data: str,
    store: str,
    /,
    *,
    encoder: str,
    vectors: Literal["all", "pooled"] = "all",
    normalize: Switch = False,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    image_size: Annotated[int | None, Parameter(validator=Number(gte=8))] = None,
    resize: Literal["squash", "crop"] | None = None,
    decode: Literal["exact", "fast"] | None = None,
    uncaptioned: Switch = False,
    max_words: AtLeastOne | None = None,
    shard_images: AtLeastOne | None = None,
    batch_size: AtLeastOne = 32,
    workers: AtLeastOne | None = None,
    max_pixels: AtLeastOne = 200_000_000,
    device: tuple[str, ...] = ("auto",),
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto",
    redo_changed: Switch = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    reading: ReadingFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Compute the features of pictures once, into a store to train from.

    The same command again goes on with a store that is not finished, and takes in shards that were added.

    Args:
        data: Pictures with captions: tar shards by pattern, list, folder or URL, or any data set.
        store: Folder or URL for the features.
        encoder: Vision encoder (folder or hub id), or a captioner for its image half.
        vectors: All patch vectors, or the one pooled vector of the image (of CLIP its projected embedding).
        normalize: Divide each vector by its length.
        dtype: Kind of the kept numbers. `auto` is bfloat16 where bf16 computes, else float16.
        image_size: Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own.
        resize: `squash` resizes both edges, `crop` keeps the aspect and takes the middle. Default: the checkpoint's.
        decode: `exact` reads JPEGs as transformers does; `fast` is quicker where they are far larger than the image size,
            and gives slightly other pixels. Default: the captioner's, else `exact`.
        uncaptioned: Take pictures without captions too.
        max_words: Cut captions after so many words.
        shard_images: Most pictures of a shard. Default: what makes 256 MiB.
        batch_size: Pictures encoded at a time.
        workers: Threads that decode pictures. Default: one a core, at most 16.
        max_pixels: Pictures with more pixels than this are rejected before they are decoded.
        device: Where to run: auto, cpu, cuda, mps, xpu, or several such as cuda:0,cuda:1, each with shards of its own.
        precision: Arithmetic of matrix products. `auto` takes bf16 where the device computes it fast; fp16 is for GPUs.
        redo_changed: Encode shards again that changed since they were encoded, instead of refusing.
        engine: `ray` encodes on all machines of a Ray cluster, one worker a GPU or core; they must share data and store.
        address: The Ray cluster: HOST:PORT or auto. Default: Ray on this machine alone.
    """
    trust(model_files)
    check_models(encoder)
    check_data([data], how_to_read(reading)["format"])
    check_folder(None if "://" in store else Path(store))
    quiet_libraries()
    from captrain.features.encode import EncoderOpening, StoreContent
    from captrain.features.encode import encode as encode_data
    from captrain.features.engines import EngineOptions
    from captrain.features.stream import Batching

    found = encode_data(
        data,
        store,
        EncoderOpening(encoder, vectors, normalize, image_size, resize, decode, precision),
        content=StoreContent(dtype, not uncaptioned, max_words, shard_images, redo_changed),
        batching=Batching(batch_size, workers, max_pixels),
        engine=EngineOptions(engine, device, address),
        **how_to_read(reading),
    )
    rejected = found.counts["rejected"]
    rows = [(name, f"{found.counts[name]:,}") for name in ("images", "captions", "shards")]
    rows.append(("size", f"{found.counts['bytes'] / 1e6:,.1f} MB"))
    if rejected:
        rows.append(("rejected", f"{rejected} (listed in {found.rejects_file})"))
    if found.unread:
        rows.append(("not read", f"{len(found.unread)} shards, first {found.unread[0]}; run the command again"))
    show_table([*rows, ("store", found.store)])
    return 1 if found.unread else exit_code(rejected)
