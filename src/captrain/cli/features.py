"""`captrain encode`, and the commands on feature stores: info, verify, merge, convert, search."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.arguments import AtLeastOne, Switch
from captrain.cli.early import check_data, check_folder, check_models, check_stores
from captrain.cli.flags import ReadingFlags, TrustFlags, how_to_read, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, show_table
from captrain.errors import UserError

if TYPE_CHECKING:
    from captrain.features.encode import Encoded


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
    from captrain.features.encode import encode as encode_data

    found = encode_data(
        data, store, encoder, vectors=vectors, normalize=normalize, dtype=dtype, image_size=image_size, resize=resize,
        decode=decode, captioned=not uncaptioned, max_words=max_words, shard_images=shard_images, batch_size=batch_size,
        workers=workers, max_pixels=max_pixels, devices=device, precision=precision, redo_changed=redo_changed, engine=engine,
        address=address,
        **how_to_read(reading),
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
    check_stores(store)
    from captrain.features.manage import describe

    found = describe(store)
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
    check_stores(store)
    from captrain.features.manage import verify as verify_store

    problems = verify_store(store)
    if problems:
        show_table([(problem.file, problem.reason) for problem in problems], ("file", "problem"))
        return DAMAGED
    print("all files are as the manifest says")
    return 0


def merge(out: str, stores: list[str], /) -> int:
    """Make one feature store of several that one encoder made. (To use several together, list them with commas.)

    Args:
        out: Folder or URL for the new store.
        stores: Feature stores to copy.
    """
    check_stores(*stores)
    from captrain.features.manage import merge as merge_stores

    counts = merge_stores(stores, out).counts()
    show_table([("images", f"{counts['images']:,}"), ("shards", f"{counts['shards']:,}"), ("store", out)])
    return 0


def convert(source: str, out: str, /, *, encoder: str | None = None, model_files: TrustFlags = None) -> int:
    """Write a feature store as clip-retrieval's embedding folder, or make a store of such a folder.

    An embedding folder has one vector and one caption an image: of several vectors it gets the mean, of captions the first.

    Args:
        source: Feature store, or embedding folder.
        out: New folder for the other form.
        encoder: The encoder that made an embedding folder (folder or hub id); the folder itself does not say.
    """
    trust(model_files)
    from captrain.data.feature_store.embeddings import is_embedding_folder

    if not is_embedding_folder(source):
        from captrain.features.manage import write_embeddings

        images = write_embeddings(source, Path(out))
    elif encoder is None:
        raise UserError(f"{source}: does not say which encoder made it; name it: --encoder")
    else:
        quiet_libraries()
        from captrain.features.encoder import open_encoder
        from captrain.features.manage import read_embeddings

        images = read_embeddings(source, out, open_encoder(encoder, vectors="pooled", device="cpu")).counts()["images"]
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
    """Find the pictures whose features are nearest to a picture's.

    Args:
        store: Feature store, or several with commas between them.
        picture: Picture to compare with.
        count: How many to show.
        encoder: Where the store's encoder lies (folder or hub id). Default: where it lay when the store was written.
    """
    trust(model_files)
    check_stores(store)
    check_models(encoder)
    quiet_libraries()
    from captrain.data.shards.sources import split_list
    from captrain.features.search import search as search_stores

    found = search_stores(split_list(store), picture, encoder=encoder, count=count)
    rows = [(f"{near.cosine:.3f}", near.id, " / ".join(near.captions[:2])) for near in found]
    show_table(rows, ("cosine", "id", "captions"))
    return 0
