"""`captrain.encode`: the features of pictures, computed once into a store to train from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, get_args

from captrain.api.checks import check_choices, check_data, check_folder, check_models, check_numbers
from captrain.api.options import READING, Place, how_to_read, place, sort_settings
from captrain.api.process import calling
from captrain.api.settings import ReadingOptions

if TYPE_CHECKING:
    from captrain.features.encode import Encoded

Vectors = Literal["all", "pooled"]
StoredType = Literal["auto", "bfloat16", "float16", "float32"]
Resizing = Literal["squash", "crop"]
Decoder = Literal["exact", "fast"]
ComputingPrecision = Literal["auto", "bf16", "fp16", "fp32"]


def encode(
    model: Place,
    data: Place,
    out: Place,
    *,
    vectors: Vectors = "all",
    normalize: bool = False,
    dtype: StoredType = "auto",
    image_size: int | None = None,
    resize: Resizing | None = None,
    decode: Decoder | None = None,
    uncaptioned: bool = False,
    max_words: int | None = None,
    shard_images: int | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    max_pixels: int = 200_000_000,
    device: str | Sequence[str] = "auto",
    precision: ComputingPrecision = "auto",
    redo_changed: bool = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[ReadingOptions],
) -> Encoded:
    """Compute the features of pictures once, into a store to train from, as `captrain encode` does.

    The same call again continues an unfinished store, and adds new shards.

    Args:
        model: Vision encoder (folder or hub id), or a captioner, whose encoder is used.
        data: Pictures with captions: tar shards by pattern, list, folder or URL, or any data set.
        out: Folder or URL of the store.
        vectors: All patch vectors, or the one pooled vector of the image (for CLIP, its projected embedding).
        normalize: Divide each vector by its length.
        dtype: Number format of the store. `auto` is bfloat16 if the encoder runs in bf16, else float16.
        image_size: Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own.
        resize: `squash` resizes both edges, `crop` keeps the aspect and takes the middle. Default: the checkpoint's.
        decode: `exact` reads JPEGs as transformers does, `fast` is quicker and gives slightly different pixels.
        uncaptioned: Take pictures without captions too.
        max_words: Cut captions after this many words.
        shard_images: Most pictures in a shard. Default: as many as make 256 MiB.
        batch_size: Pictures encoded at a time.
        workers: Threads that decode pictures. Default: one per core, at most 16.
        max_pixels: Pictures with more pixels than this are rejected before they are decoded.
        device: Where to run, or several devices, each with shards of its own.
        precision: Precision of the computation.
        redo_changed: Encode shards again that changed since they were encoded, instead of refusing.
        engine: `ray` encodes on all machines of a Ray cluster, with one worker per GPU or core.
        address: The Ray cluster: HOST:PORT or auto. Default: Ray on this machine alone.
        trust_remote_code, safetensors_only: As for `captrain.load`.
        settings: How to read the data: `format`, `caption_key` and others.

    Returns:
        The store: a path that `captrain.train` and `captrain.read` take, `.counts`, `.rejects_file`, `.unread`, and `.open()`,
        which gives its vectors.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_photos, tiny_vision_encoder
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> photos = tiny_photos(folder / "photos", count=4)
    >>> store = encode(tiny_vision_encoder(folder / "vit"), photos, folder / "store", vectors="pooled", device="cpu")
    >>> store.counts["images"], store.open().vectors(0).shape
    (4, (4, 1, 24))
    """
    reading = how_to_read(sort_settings("captrain.encode", settings, READING)["reading"])
    encoder, source, store = place(model), place(data), place(out)
    check_numbers(least=8, image_size=image_size)
    check_numbers(
        max_words=max_words, shard_images=shard_images, batch_size=batch_size, workers=workers, max_pixels=max_pixels
    )
    check_choices(get_args(Vectors), vectors=vectors)
    check_choices(get_args(StoredType), dtype=dtype)
    check_choices(get_args(Resizing), resize=resize)
    check_choices(get_args(Decoder), decode=decode)
    check_choices(get_args(ComputingPrecision), precision=precision)
    check_choices(("local", "ray"), engine=engine)
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(encoder)
        check_data([source], reading["format"])
        check_folder(None if "://" in store else Path(store))
        begin()
        from captrain.features.encode import EncoderOpening, StoreContent
        from captrain.features.encode import encode as encode_data
        from captrain.features.engines import EngineOptions
        from captrain.features.stream import Batching

        return encode_data(
            source, store, EncoderOpening(encoder, vectors, normalize, image_size, resize, decode, precision),
            content=StoreContent(dtype, not uncaptioned, max_words, shard_images, redo_changed),
            batching=Batching(batch_size, workers, max_pixels),
            engine=EngineOptions(engine, (device,) if isinstance(device, str) else tuple(device), address),
            **reading,
        )  # fmt: skip
