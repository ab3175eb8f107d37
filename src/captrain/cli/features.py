"""`captrain encode`, and the commands on feature stores: info, verify, merge, convert, search."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api.features import ComputingPrecision, Decoder, Resizing, StoredType, Vectors
from captrain.api.features import encode as encode_pictures
from captrain.api.stores import Store, convert_store, merge_stores
from captrain.cli.arguments import AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, given, trusted
from captrain.cli.show import exit_code, show_table

if TYPE_CHECKING:
    from captrain.features.encode import Encoded


def encode(
    data: str,
    store: str,
    /,
    *,
    encoder: str,
    vectors: Vectors = "all",
    normalize: Switch = False,
    dtype: StoredType = "auto",
    image_size: Annotated[int | None, Parameter(validator=Number(gte=8))] = None,
    resize: Resizing | None = None,
    decode: Decoder | None = None,
    uncaptioned: Switch = False,
    max_words: AtLeastOne | None = None,
    shard_images: AtLeastOne | None = None,
    batch_size: AtLeastOne = 32,
    workers: AtLeastOne | None = None,
    max_pixels: AtLeastOne = 200_000_000,
    device: tuple[str, ...] = ("auto",),
    precision: ComputingPrecision = "auto",
    redo_changed: Switch = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    reading: ReadingFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Compute features of pictures once, into a store to train from.

    Run the same command again to finish a store, or to add new shards to it.

    Args:
        data: Pictures with captions: tar shards (pattern, list, folder or URL) or any other data set.
        store: Folder or URL for the features.
        encoder: Vision encoder, or a captioner to use its encoder (folder or hub id).
        vectors: All patch vectors, or the pooled vector of the image (for CLIP, its projected embedding).
        normalize: Scale each vector to length 1.
        dtype: Number format of the store. `auto` means bfloat16 if the encoder runs in bf16, else float16.
        image_size: Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own.
        resize: `squash` resizes to a square, `crop` keeps the proportions and cuts out the middle. Default: the checkpoint's.
        decode: `exact` decodes JPEGs as transformers does; `fast` is quicker for large JPEGs and gives slightly different pixels.
            Default: the captioner's, else `exact`.
        uncaptioned: Include pictures without captions.
        max_words: Cut captions after this many words.
        shard_images: Most pictures in a shard. Default: as many as make 256 MiB.
        batch_size: Pictures per batch.
        workers: Threads that decode pictures. Default: one per core, at most 16.
        max_pixels: Pictures with more pixels than this are rejected before they are decoded.
        device: Where to run: auto, cpu, cuda, mps, xpu, or several devices such as cuda:0,cuda:1.
        precision: Precision of the computation. `auto` means bf16 where the device is fast at it; fp16 is for GPUs.
        redo_changed: Encode shards again that have changed since they were encoded. Default: refuse them.
        engine: `ray` uses all machines of a Ray cluster, which must share data and store.
        address: Address of the Ray cluster: HOST:PORT or auto. Default: Ray on this machine only.
    """
    found = encode_pictures(
        encoder, data, store, vectors=vectors, normalize=normalize, dtype=dtype, image_size=image_size, resize=resize,
        decode=decode, uncaptioned=uncaptioned, max_words=max_words, shard_images=shard_images, batch_size=batch_size,
        workers=workers, max_pixels=max_pixels, device=device, precision=precision, redo_changed=redo_changed, engine=engine,
        address=address, **given(reading=reading)["reading"], **trusted(model_files),
    )  # fmt: skip
    _show_encoded(found)
    return 1 if found.unread else exit_code(found.counts["rejected"])


def _show_encoded(found: Encoded) -> None:
    """Print what a store got, and what could not be read."""
    rejected = found.counts["rejected"]
    rows = [(name, f"{found.counts[name]:,}") for name in ("images", "captions", "shards")]
    rows.append(("size", f"{found.counts['bytes'] / 1e6:,.1f} MB"))
    if rejected:
        rows.append(("rejected", f"{rejected} (listed in {found.rejects_file})"))
    if found.unread:
        rows.append(("not read", f"{len(found.unread)} shards, first {found.unread[0]}; run the command again"))
    show_table([*rows, ("store", found.store)])


def info(store: str, /, *, json: Switch = False) -> int:
    """Say what a feature store holds.

    Args:
        store: Feature store, or embedding folder of clip-retrieval.
        json: Print one JSON object instead of a table.
    """
    found = Store(store).info()
    if json:
        print(json_format.dumps(found, ensure_ascii=False))
        return 0
    splits = ", ".join(f"{name} {count:,}" for name, count in found["splits"].items() if name != "all")
    preparation = ", ".join(f"{name} {value}" for name, value in (found["preparation"] or {}).items())
    rows = [
        ("images", f"{found['images']:,}" + (f" ({splits})" if splits else "")),
        ("captions", f"{found['captions']:,}"),
        ("shards", f"{found['shards']:,}"),
        ("size", f"{found['bytes'] / 1e6:,.1f} MB"),
        ("features", found["features"]),
        ("encoder", found["encoder"] or "not known"),
        ("preparation", preparation or "not known"),
    ]
    rows += [("rejected", f"{found['rejected']:,}")] if found.get("rejected") else []
    rows += [("not read", ", ".join(found["unread"]))] if found.get("unread") else []
    show_table(rows)
    return 0


DAMAGED = 1


def verify(store: str, /) -> int:
    """Check every file of a feature store: checksums, shapes, counts.

    Exit code 1 when something is wrong.

    Args:
        store: Feature store.
    """
    problems = Store(store).verify()
    if problems:
        show_table([(problem.file, problem.reason) for problem in problems], ("file", "problem"))
        return DAMAGED
    print("all files are as the manifest says")
    return 0


def merge(out: str, stores: list[str], /) -> int:
    """Merge feature stores of the same encoder into one. To train on several without merging, list them with commas.

    Args:
        out: Folder or URL for the new store.
        stores: Feature stores to merge.
    """
    found = merge_stores(stores, out).info()
    show_table([("images", f"{found['images']:,}"), ("shards", f"{found['shards']:,}"), ("store", out)])
    return 0


def convert(source: str, out: str, /, *, encoder: str | None = None, model_files: TrustFlags = None) -> int:
    """Convert a feature store to clip-retrieval's embedding folder, or such a folder to a feature store.

    An embedding folder has one vector and one caption per image: the mean of several vectors, the first of several captions.

    Args:
        source: Feature store, or embedding folder.
        out: New folder to write.
        encoder: Encoder that made the embedding folder (folder or hub id); the folder itself does not say.
    """
    images = convert_store(source, out, encoder=encoder, **trusted(model_files))
    show_table([("images", f"{images:,}"), ("folder", out)])
    return 0


def search(
    store: str,
    picture: Path,
    /,
    *,
    count: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    encoder: str | None = None,
    model_files: TrustFlags = None,
) -> int:
    """Find the pictures whose features are most similar to those of a picture.

    Args:
        store: Feature store, or several separated by commas.
        picture: Picture to compare with.
        count: Number of pictures to show.
        encoder: Encoder of the store (folder or hub id). Default: where it was when the store was written.
    """
    found = Store(store).search(picture, count=count, encoder=encoder, **trusted(model_files))
    rows = [(f"{near.cosine:.3f}", near.id, " / ".join(near.captions[:2])) for near in found]
    show_table(rows, ("cosine", "id", "captions"))
    return 0
