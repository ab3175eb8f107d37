"""`captrain estimate`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from captrain.api.estimating import DeviceKind
from captrain.api.estimating import estimate as estimate_encoding
from captrain.api.features import Vectors
from captrain.cli.arguments import AboveZero, AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, given, trusted
from captrain.cli.show import show_table

if TYPE_CHECKING:
    from captrain.features.estimate import Estimate, Number


def estimate(
    data: str,
    /,
    *,
    encoder: str,
    machines: AtLeastOne = 1,
    devices: AtLeastOne = 1,
    device: DeviceKind = "here",
    cores: AtLeastOne | None = None,
    network: AboveZero = 10.0,
    storage: AboveZero = 5.0,
    vectors: Vectors = "all",
    no_measure: Switch = False,
    seconds: AboveZero = 4.0,
    json: Switch = False,
    reading: ReadingFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Estimate time, disk and network for encoding a data set on several machines, and find the slowest stage.

    Every number says whether it was measured on this machine or assumed.

    Args:
        data: Any data set, or one whose size is known: coco, cc3m, cc12m, laion-400m.
        encoder: Vision encoder (folder or hub id). Known without a download: mobilenet-v1-0.75-224,
            google/vit-base-patch16-224, openai/clip-vit-base-patch32, openai/clip-vit-large-patch14.
        machines: Number of machines, all alike.
        devices: GPUs per machine; without GPUs, its cores count.
        device: Kind of device. `here` measures this machine; the others have assumed speeds.
        cores: Cores per machine that decode pictures. Default: as many as this machine has.
        network: Network of each machine in Gbit/s, each way.
        storage: Storage for all machines together in GB/s, each way.
        vectors: All patch vectors, or the pooled vector of the image.
        no_measure: Measure nothing; assume all speeds.
        seconds: About how long to measure, in seconds.
        json: Print one JSON object instead of tables.
    """
    found = estimate_encoding(
        encoder, data, machines=machines, devices=devices, device=device, cores=cores, network=network, storage=storage,
        vectors=vectors, measure=not no_measure, seconds=seconds, **given(reading=reading)["reading"], **trusted(model_files),
    )  # fmt: skip
    if json:
        print(json_format.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _show(found.inputs, found.result, found.scaling, found.on_cores)
    return 0


def _marked(number: Number, text: str) -> str:
    """A number's text with its origin."""
    return f"{text} ({number.origin})"


def _show(inputs: Mapping[str, Number], found: Estimate, steps: Sequence[Estimate], on_cores: bool) -> None:
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
