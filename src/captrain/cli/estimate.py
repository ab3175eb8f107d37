"""`captrain estimate`: what is known of data, encoder and machine goes into the formulae of `captrain.features.estimate`."""

from __future__ import annotations

import json as json_format
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from captrain.api.checks import check_data, check_models
from captrain.api.options import how_to_read
from captrain.cli.arguments import AboveZero, AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import show_table
from captrain.errors import UserError, nearest

if TYPE_CHECKING:
    from captrain.features.estimate import Cluster, EncodingWork, Estimate, Number, Rates

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
    dtype: Literal["bfloat16", "float16", "float32", "int8"] = "float16",
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
        dtype: Number format of the features.
        no_measure: Measure nothing; assume all speeds.
        seconds: About how long to measure, in seconds.
        json: Print one JSON object instead of tables.
    """
    trust(model_files)
    from captrain.features import estimate as formulae

    check_models(_unless_known(encoder, formulae.KNOWN_ENCODERS))
    check_data([_unless_known(data, formulae.KNOWN_DATA)], how_to_read(reading)["format"])
    quiet_libraries()
    from captrain.features.survey import survey

    look = None if no_measure else seconds
    work, rates = survey(data, encoder, device, look, vectors=vectors, dtype=dtype, **how_to_read(reading))
    cluster = formulae.cluster_of(
        machines, devices, cores or os.cpu_count() or 1, network, storage, on_cores=rates.on_cores
    )
    found = formulae.estimate(work, rates, cluster)
    steps = formulae.scaled(work, rates, cluster, 1 if rates.on_cores else devices, STEPS)
    inputs = _inputs(work, rates, found.cluster)
    if json:
        print(_as_json({"data": data, "encoder": encoder}, inputs, found, steps))
    else:
        _show(inputs, found, steps, rates.on_cores)
    return 0


def _unless_known(name: str, known: Mapping[str, Any]) -> str | None:
    """A name that has to be looked up; None for a known one. Raises `UserError` for a known one that is misspelt."""
    hint = "" if name in known or os.path.exists(name) else nearest(name, known)
    if hint:
        raise UserError(f"{name}: is neither here nor known.{hint} Known: {', '.join(known)}")
    return None if name in known else name


def _as_json(asked: dict[str, str], inputs: dict[str, Number], found: Estimate, steps: list[Estimate]) -> str:
    """One JSON object on one line."""
    from captrain.features.estimate import number_to_dict, to_dict

    marked = {name: number_to_dict(number) for name, number in inputs.items()}
    content = {**asked, "inputs": marked, **to_dict(found), "scaling": [to_dict(step) for step in steps]}
    return json_format.dumps(content, ensure_ascii=False)


def _marked(number: Number, text: str) -> str:
    """A number's text with its origin."""
    return f"{text} ({number.origin})"


def _inputs(work: EncodingWork, rates: Rates, cluster: Cluster) -> dict[str, Number]:
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
