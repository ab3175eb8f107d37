"""What an estimate starts from: a look at the data, and a few seconds of measuring on this machine."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO

import fsspec.core
import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from captrain.data.dataset import read_splits
from captrain.data.feature_store.layout import FeaturesNote
from captrain.data.images import ImageSpec, prepare
from captrain.data.read_options import ReadOptions
from captrain.data.readers.detection import detect
from captrain.data.safe_paths import is_remote
from captrain.data.samples import JoinedSamples
from captrain.data.shards.remote import told_error
from captrain.data.shards.sources import expand
from captrain.data.shards.stream import IN_ORDER, stream_samples
from captrain.errors import DataError, PictureError
from captrain.features.encoder import Encoder, Vectors, open_encoder
from captrain.features.estimate import (
    KNOWN_DATA,
    KNOWN_ENCODERS,
    EncodingWork,
    Number,
    Rates,
    assumed,
    decoding_rate,
    encoding_rate,
    measured,
)
from captrain.models.checkpoint.located import is_cached
from captrain.records import Rejects

USUAL_EDGE = 480  # pixels of a picture's shorter side, where it is assumed
SAMPLED = 256  # pictures that are looked at
BATCH = 16


def survey(
    data: str,
    encoder: str,
    device: str,
    seconds: float | None,
    *,
    vectors: Vectors,
    dtype: str,
    format: str | None,
    options: ReadOptions,
) -> tuple[EncodingWork, Rates]:
    """What is to be encoded, and how fast each stage is: measured for about `seconds`, or with None assumed.

    Args:
        data: any data set, or one of `KNOWN_DATA`. encoder: folder or hub id, or one of `KNOWN_ENCODERS`.
        device: kind of device; `here` is that of this machine.
        vectors, dtype: what is kept of a picture.
    """
    look = None if seconds is None else seconds / 2
    content, images, read_bytes = look_at_data(data, format, options)
    spec, encoding, on_cores, feature_bytes = rates_of(encoder, device, vectors, dtype, look)
    if look is not None:
        decoding = measure_decoding(content or stand_in(data), spec, look, bool(content))
    else:
        decoding = decoding_rate(USUAL_EDGE if content else KNOWN_DATA[data].edge)
    return EncodingWork(images, read_bytes, feature_bytes), Rates(decoding, encoding, on_cores)


def look_at_data(data: str, format: str | None, options: ReadOptions) -> tuple[list[bytes], Number, Number]:
    """Some pictures of a data set, how many there are, and bytes that are read for each."""
    if data in KNOWN_DATA and not os.path.exists(data):
        known = KNOWN_DATA[data]
        return [], assumed(known.images, known.source), assumed(known.image_bytes, known.source)
    form = format or detect(data, options)
    if form == "features":
        raise DataError(f"{data}: holds features already; expected pictures, see: captrain features info")
    return _look_at_tars(data, options) if form == "webdataset" else _look_at_samples(data, format, options)


def _look_at_samples(data: str, format: str | None, options: ReadOptions) -> tuple[list[bytes], Number, Number]:
    """Of a table or folder: it is counted whole, and some of it is read, evenly spread."""
    samples = JoinedSamples(list(read_splits(data, Rejects(), format, options, captioned=False).values()))
    content = []
    for index in range(0, len(samples), max(1, len(samples) // SAMPLED)):
        with suppress(OSError):  # what can't be read is listed by `captrain encode`; here the sample is smaller
            content.append(samples[index].read())
    if not content:
        raise DataError(f"{data}: no picture can be read; see: captrain data check {data}")
    mean = sum(map(len, content)) / len(content)
    return content, measured(len(samples), "counted"), measured(mean, f"mean of {len(content)} pictures")


def _look_at_tars(data: str, options: ReadOptions) -> tuple[list[bytes], Number, Number]:
    """Of tar shards: the first pictures are read. All shards together have as many as bytes of tar a picture allow."""
    shards = [shard.url for shard in expand(data, follow_links=options.follow_links)]
    stream = stream_samples(shards, options, order=IN_ORDER, captioned=False)
    content = [sample.read() for sample in itertools.islice(stream, SAMPLED)]
    if not content:
        raise DataError(f"{data}: the first shards hold no picture; see: captrain data check {data}")
    shard, start, number = stream.state_dict()["next"]
    each = (sum(map(_size, shards[:shard])) + start) / number
    size = measured(each, f"bytes of tar a picture, of {number} pictures")
    if shard >= len(shards):
        return content, measured(number, "counted"), size
    count = round(sum(map(_size, shards)) / each)
    return content, assumed(count, f"{len(shards)} shards like the first pictures"), size


def _size(url: str) -> int:
    """Bytes of a shard, local or behind a URL."""
    if not is_remote(url):
        return os.path.getsize(url)
    with told_error(url):
        system, path = fsspec.core.url_to_fs(url)
        return int(system.size(path))


def rates_of(
    name: str, device: str, vectors: Vectors, dtype: str, look: float | None
) -> tuple[ImageSpec, Number, bool, Number]:
    """What pictures are prepared to, the encoder's rate and whether that is of a core, and bytes of a picture's features."""
    known = KNOWN_ENCODERS.get(name)
    kind = "cpu" if device == "here" else device
    if known is not None and not (os.path.isdir(name) or is_cached(name)):
        note = FeaturesNote(
            tokens=1 if vectors == "pooled" else known.tokens, width=known.width, dtype=dtype, vectors=vectors
        )
        spec = ImageSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        size = assumed(note.row_bytes, f"{note.tokens} x {note.width} {dtype}, {known.source}")
        return spec, encoding_rate(known.macs, kind), kind == "cpu", size

    model = open_encoder(name, vectors=vectors, device="auto" if device == "here" else "cpu")
    features = model.features(dtype)
    if device == "here" and look is not None:
        on_cores = model.device.type == "cpu"
        encoding = _measure_encoding(model, look)
    else:
        on_cores, encoding = kind == "cpu", encoding_rate(_macs(model), kind)
    return model.spec, encoding, on_cores, measured(features.row_bytes, str(features))


def _macs(model: Encoder) -> float:
    """Multiply-adds of one picture, in 10^9, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        model.encode(torch.zeros(1, model.spec.height, model.spec.width, 3, dtype=torch.uint8))
    return float(counter.get_total_flops() / 2 / 1e9)


def _measure_encoding(model: Encoder, seconds: float) -> Number:
    """Images a second of the device of this machine, or of one of its cores."""

    pixels = torch.zeros(BATCH, model.spec.height, model.spec.width, 3, dtype=torch.uint8)
    rate = BATCH * _times_a_second(lambda: model.encode(pixels).cpu(), seconds)
    if model.device.type != "cpu":
        return measured(rate, f"batches of {BATCH}, {model.device}")
    threads = torch.get_num_threads()
    return measured(rate / threads, f"batches of {BATCH}, {model.precision}, {threads} threads, by core")


def measure_decoding(content: Sequence[bytes], spec: ImageSpec, seconds: float, real: bool) -> Number:
    """Images a second that one core decodes; pictures that can't be decoded take part."""
    pictures = itertools.cycle(content)

    def decode() -> None:
        with suppress(PictureError):
            prepare(next(pictures), spec)

    what = f"{len(content)} of the pictures" if real else "a generated JPEG of the size of the set's pictures"
    return measured(_times_a_second(decode, seconds), f"{what}, one thread")


def _times_a_second(run: Callable[[], object], seconds: float) -> float:
    """How often something runs in a second, after one run to warm up; it runs once more at least."""
    run()
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < seconds:
        run()
        count += 1
    return count / (time.perf_counter() - start)


def stand_in(data: str) -> list[bytes]:
    """A JPEG of smooth noise as large as the pictures of a known data set: 4 to 3, quality 90."""

    edge = KNOWN_DATA[data].edge
    coarse = np.random.default_rng(0).integers(0, 255, (edge // 8, edge // 6, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((edge * 4 // 3, edge), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return [file.getvalue()]
