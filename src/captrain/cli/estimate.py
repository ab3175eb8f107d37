"""`captrain estimate`: what is known of data, encoder and machine goes into the formulae of `captrain.features.estimate`."""

from __future__ import annotations

import itertools
import json as json_format
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number as Limits

from captrain.cli.flags import ReadingFlags, how_to_read
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import show_table
from captrain.cli.switch import Switch
from captrain.errors import DataError, PictureError

if TYPE_CHECKING:
    from captrain.data.images import ImageSpec
    from captrain.features.encoder import Encoder
    from captrain.features.estimate import Cluster, Estimate, Number, Rates, Work

AtLeastOne = Annotated[int, Parameter(validator=Limits(gte=1))]
AboveZero = Annotated[float, Parameter(validator=Limits(gt=0))]
SAMPLED = 256  # pictures that are looked at
BATCH = 16
STEPS = (1, 8, 64)


def estimate(
    data: str,
    /,
    *,
    encoder: str,
    machines: AtLeastOne = 1,
    devices: AtLeastOne = 1,
    device: Literal["here", "cpu", "rtx4090", "l4", "a100", "h100", "h200"] = "here",
    cores: AtLeastOne | None = None,
    network: AboveZero = 10.0,
    storage: AboveZero = 5.0,
    vectors: Literal["all", "pooled"] = "all",
    no_measure: Switch = False,
    seconds: AboveZero = 4.0,
    json: Switch = False,
    reading: ReadingFlags = None,
) -> int:
    """Estimate hours, disk and network of encoding a data set on several machines, and which stage binds.

    Every number is marked: measured on this machine, or assumed.

    Args:
        data: Any data set, or one known by size: coco, cc3m, cc12m, laion-400m.
        encoder: Vision encoder (folder or hub id). Known without a download: mobilenet-v1-0.75-224,
            google/vit-base-patch16-224, openai/clip-vit-base-patch32, openai/clip-vit-large-patch14.
        machines: Machines, all alike.
        devices: GPUs of each machine; without GPUs its cores count.
        device: Kind of device. `here` measures the device of this machine; the others have assumed rates.
        cores: Cores of each machine that decode. Default: as many as this machine has.
        network: Gbit/s of each machine, each way.
        storage: GB/s that the storage gives to all machines together, each way.
        vectors: All patch vectors, or the one pooled vector of the image.
        no_measure: Assume all rates, and measure nothing.
        seconds: About how long to measure, decoding and encoding together.
        json: Print one JSON object instead of tables.
    """
    quiet_libraries()
    from captrain.features import estimate as formulae

    look = None if no_measure else seconds / 2
    content, images, read_bytes = _look_at_data(data, reading)
    spec, encoding, on_cores, feature_bytes = _rates(encoder, device, vectors, look)
    if look is not None:
        decoding = _measure_decoding(content or _stand_in(data), spec, look, bool(content))
    else:
        decoding = formulae.decoding_rate(480 if content else formulae.KNOWN_DATA[data].edge)
    work = formulae.Work(images, read_bytes, feature_bytes)
    rates = formulae.Rates(decoding, encoding, on_cores)
    cluster = formulae.Cluster(
        machines, machines if on_cores else machines * devices, cores or os.cpu_count() or 1,
        formulae.assumed(network * 1e9 / 8, f"{network:g} Gbit/s a machine, --network"),
        formulae.assumed(storage * 1e9, f"{storage:g} GB/s for all machines, --storage"),
    )  # fmt: skip
    found = formulae.estimate(work, rates, cluster)
    steps = formulae.scaled(work, rates, cluster, 1 if on_cores else devices, STEPS)
    inputs = _inputs(work, rates, found.cluster)
    if json:
        marked = {name: formulae.number_to_dict(number) for name, number in inputs.items()}
        result = {"data": data, "encoder": encoder, "inputs": marked, **formulae.to_dict(found)}
        print(json_format.dumps({**result, "scaling": [formulae.to_dict(step) for step in steps]}, ensure_ascii=False))
    else:
        _show(inputs, found, steps, on_cores)
    return 0


def _look_at_data(data: str, reading: Any) -> tuple[list[bytes], Number, Number]:
    """Some pictures of a data set, how many there are, and bytes that are read for each."""
    from captrain.data.readers import detect
    from captrain.features.estimate import KNOWN_DATA, assumed

    if data in KNOWN_DATA and not os.path.exists(data):
        known = KNOWN_DATA[data]
        return [], assumed(known.images, known.source), assumed(known.image_bytes, known.source)
    how = how_to_read(reading)
    form = how["format"] or detect(data)
    if form == "features":
        raise DataError(f"{data}: holds features already; expected pictures, see: captrain features info")
    return _look_at_tars(data, how["options"]) if form == "webdataset" else _look_at_samples(data, form, how["options"])


def _look_at_samples(data: str, form: str, options: Any) -> tuple[list[bytes], Number, Number]:
    """Of a table or folder: it is counted whole, and some of it is read, evenly spread."""
    from captrain.data.dataset import read_splits
    from captrain.data.samples import Joined
    from captrain.features.estimate import measured
    from captrain.records import Rejects

    samples = Joined(list(read_splits(data, Rejects(), form, options, captioned=False).values()))
    content = []
    for index in range(0, len(samples), max(1, len(samples) // SAMPLED)):
        with suppress(OSError):  # what can't be read is listed by `captrain encode`; here the sample is smaller
            content.append(samples[index].read())
    if not content:
        raise DataError(f"{data}: no picture can be read; see: captrain data check {data}")
    mean = sum(map(len, content)) / len(content)
    return content, measured(len(samples), "counted"), measured(mean, f"mean of {len(content)} pictures")


def _look_at_tars(data: str, options: Any) -> tuple[list[bytes], Number, Number]:
    """Of tar shards: the first pictures are read. All shards together have as many as bytes of tar a picture allow."""
    from captrain.data.shards.sources import expand
    from captrain.data.shards.stream import stream_samples
    from captrain.features.estimate import assumed, measured

    shards = [shard.url for shard in expand(data)]
    stream = stream_samples(shards, options, shuffle_buffer=0, captioned=False)
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
    from captrain.data.places import is_remote
    from captrain.data.shards.remote import telling

    if not is_remote(url):
        return os.path.getsize(url)
    with telling(url):
        import fsspec.core

        system, path = fsspec.core.url_to_fs(url)
        return int(system.size(path))


def _rates(name: str, device: str, vectors: str, look: float | None) -> tuple[ImageSpec, Number, bool, Number]:
    """What pictures are prepared to, the encoder's rate and whether that is of a core, and bytes of a picture's features."""
    from captrain.data.images import ImageSpec
    from captrain.features import estimate as formulae

    known = formulae.KNOWN_ENCODERS.get(name)
    kind = "cpu" if device == "here" else device
    if known is not None and not os.path.isdir(name):
        tokens = 1 if vectors == "pooled" else known.tokens
        spec = ImageSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        size = formulae.assumed(2 * tokens * known.width, f"{tokens} x {known.width} fp16, {known.source}")
        return spec, formulae.encoding_rate(known.macs, kind), kind == "cpu", size
    from captrain.features.encoder import open_encoder

    model = open_encoder(name, vectors=vectors, device="auto" if device == "here" else "cpu")  # type: ignore[arg-type]
    features = model.features("float16")
    if device == "here" and look is not None:
        on_cores = model.device.type == "cpu"
        encoding = _measure_encoding(model, look)
    else:
        on_cores, encoding = kind == "cpu", formulae.encoding_rate(_macs(model), kind)
    return model.spec, encoding, on_cores, formulae.measured(features.row_bytes, str(features))


def _macs(model: Encoder) -> float:
    """Multiply-adds of one picture, in 10^9, counted by torch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.encode(torch.zeros(1, model.spec.height, model.spec.width, 3, dtype=torch.uint8))
    return float(counter.get_total_flops() / 2 / 1e9)


def _measure_encoding(model: Encoder, seconds: float) -> Number:
    """Images a second of the device of this machine, or of one of its cores."""
    import torch

    from captrain.features.estimate import measured

    pixels = torch.zeros(BATCH, model.spec.height, model.spec.width, 3, dtype=torch.uint8)
    rate = BATCH * _times_a_second(lambda: model.encode(pixels).cpu(), seconds)
    if model.device.type != "cpu":
        return measured(rate, f"batches of {BATCH}, {model.device}")
    threads = torch.get_num_threads()
    return measured(rate / threads, f"batches of {BATCH}, {model.precision}, {threads} threads, by core")


def _measure_decoding(content: Sequence[bytes], spec: ImageSpec, seconds: float, real: bool) -> Number:
    """Images a second that one core decodes; pictures that can't be decoded take part."""
    from captrain.data.images import prepare
    from captrain.features.estimate import measured

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


def _stand_in(data: str) -> list[bytes]:
    """A JPEG of smooth noise as large as the pictures of a known data set: 4 to 3, quality 90."""
    import numpy as np
    from PIL import Image

    from captrain.features.estimate import KNOWN_DATA

    edge = KNOWN_DATA[data].edge
    coarse = np.random.default_rng(0).integers(0, 255, (edge // 8, edge // 6, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((edge * 4 // 3, edge), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return [file.getvalue()]


def _marked(number: Number, text: str) -> str:
    """A number's text with its origin."""
    return f"{text} ({number.origin})"


def _inputs(work: Work, rates: Rates, cluster: Cluster) -> dict[str, Number]:
    """What goes in, by the name that people see."""
    place = "core" if rates.on_cores else "device"
    return {
        "pictures": work.images,
        "bytes read a picture": work.read_bytes,
        "bytes kept a picture": work.feature_bytes,
        "pictures/s decoded by a core": rates.decoding,
        f"pictures/s encoded by a {place}": rates.encoding,
        "network, bytes/s a machine": cluster.network,
        "storage, bytes/s in all": cluster.storage,
    }


def _show(inputs: dict[str, Number], found: Estimate, steps: list[Estimate], on_cores: bool) -> None:
    """What goes in with its origin, what comes out, and where the bottleneck moves."""
    show_table(
        [(name, f"{number.value:,.0f}", number.origin, number.reason) for name, number in inputs.items()],
        ("goes in", "", "", "from"),
    )
    print()
    show_table([
        ("hours", _marked(found.hours, _short(found.hours.value))),
        ("disk", _marked(found.disk, f"{_short(found.disk.value / 1e9)} GB")),
        ("read", _marked(found.read, f"{_short(found.read.value / 1e9)} GB")),
        ("network, in", _marked(found.read_rate, f"{found.read_rate.value / 1e6:,.1f} MB/s")),
        ("network, out", _marked(found.write_rate, f"{found.write_rate.value / 1e6:,.1f} MB/s")),
        *((stage, _marked(number, f"{number.value:,.0f} pictures/s")) for stage, number in found.stages.items()),
        ("binds", found.binds),
    ])  # fmt: skip
    print()
    rows = []
    for step in steps:
        count = step.cluster.machines * step.cluster.cores if on_cores else step.cluster.devices
        done = (_marked(step.rate, f"{step.rate.value:,.0f}"), _marked(step.hours, _short(step.hours.value)))
        rows.append((f"{step.cluster.machines}", f"{count}", step.binds, *done))
    show_table(rows, ("machines", "cores" if on_cores else "devices", "binds", "pictures/s", "hours"))


def _short(value: float) -> str:
    """Two decimals, or two digits of what is small."""
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"
