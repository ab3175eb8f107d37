"""`captrain.estimate`: what is known of data, encoder and machine goes into the formulae of `captrain.features.estimate`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from captrain.api.checks import check_choices, check_data, check_models, check_numbers
from captrain.api.features import NumberType, Vectors
from captrain.api.options import READING, Place, how_to_read, place, sort_settings
from captrain.api.process import calling
from captrain.api.settings import ReadingOptions
from captrain.errors import UserError, nearest

if TYPE_CHECKING:
    from captrain.features.estimate import Estimate, Number

STEPS = (1, 8, 64)
DeviceKind = Literal["here", "cpu", "rtx4090", "l4", "a100", "h100", "h200"]


@dataclass(frozen=True)
class EncodingEstimate:
    """Time, disk and network of an encoding.

    `inputs` went in, each number with its origin (`measured` or `assumed`); `result` came out; `scaling` is the same for more
    devices (machines, where cores encode: `on_cores`).
    """

    data: str
    encoder: str
    inputs: Mapping[str, Number]
    result: Estimate
    scaling: tuple[Estimate, ...]
    on_cores: bool

    @property
    def hours(self) -> float:
        """How long it takes."""
        return self.result.hours.value

    @property
    def disk(self) -> float:
        """Bytes that the store takes."""
        return self.result.disk.value

    @property
    def binds(self) -> str:
        """The slowest stage: reading, decoding, encoding or writing."""
        return self.result.binds

    def to_dict(self) -> dict[str, Any]:
        """What `captrain estimate --json` prints."""
        from captrain.features.estimate import number_to_dict, to_dict

        inputs = {name: number_to_dict(number) for name, number in self.inputs.items()}
        steps = [to_dict(step) for step in self.scaling]
        return {"data": self.data, "encoder": self.encoder, "inputs": inputs, **to_dict(self.result), "scaling": steps}

    def __repr__(self) -> str:
        return f"<EncodingEstimate {self.data!r}: {self.hours:.2g} hours, {self.disk / 1e9:.2g} GB, {self.binds} binds>"


def estimate(
    encoder: Place,
    data: Place,
    *,
    machines: int = 1,
    devices: int = 1,
    device: DeviceKind = "here",
    cores: int | None = None,
    network: float = 10.0,
    storage: float = 5.0,
    vectors: Vectors = "all",
    dtype: NumberType = "float16",
    measure: bool = True,
    seconds: float = 4.0,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
    **settings: Unpack[ReadingOptions],
) -> EncodingEstimate:
    """Estimate time, disk and network for encoding a data set on several machines, as `captrain estimate` does.

    Args:
        encoder: Vision encoder (folder or hub id). Known without a download: mobilenet-v1-0.75-224,
            google/vit-base-patch16-224, openai/clip-vit-base-patch32, openai/clip-vit-large-patch14.
        data: Any data set, or one whose size is known: coco, cc3m, cc12m, laion-400m.
        machines: Number of machines, all alike.
        devices: GPUs per machine. Without GPUs, its cores count.
        device: Kind of device. `here` is that of this machine, the others have assumed speeds.
        cores: Cores per machine that decode pictures. Default: as many as this machine has.
        network: Network of each machine in Gbit/s, each way.
        storage: Storage for all machines together in GB/s, each way.
        vectors: All patch vectors, or the pooled vector of the image.
        dtype: Number format of the features.
        measure: Measure this machine. False assumes all speeds.
        seconds: About how long to measure, in seconds.
        trust_remote_code, safetensors_only: As for `captrain.load`.
        settings: How to read the data: `format`, `caption_key` and others.

    >>> found = estimate("openai/clip-vit-large-patch14", "coco", device="a100", devices=8, cores=96, measure=False)
    >>> found.binds, f"{found.disk / 1e9:.0f} GB", found.result.hours.origin
    ('writing', '65 GB', 'assumed')
    """
    how = how_to_read(sort_settings("captrain.estimate", settings, READING)["reading"])
    check_choices(get_args(DeviceKind), device=device)
    check_choices(get_args(Vectors), vectors=vectors)
    check_choices(get_args(NumberType), dtype=dtype)
    check_numbers(machines=machines, devices=devices, cores=cores)
    check_numbers(above=0, network=network, storage=storage, seconds=seconds)
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        from captrain.features import estimate as formulae

        source, name = place(data), place(encoder)
        check_models(_unless_known(name, formulae.KNOWN_ENCODERS))
        check_data([_unless_known(source, formulae.KNOWN_DATA)], how["format"])
        begin()
        from captrain.features.survey import survey

        work, rates = survey(source, name, device, seconds if measure else None, vectors=vectors, dtype=dtype, **how)
        there = cores or os.cpu_count() or 1
        cluster = formulae.cluster_of(machines, devices, there, network, storage, on_cores=rates.on_cores)
        steps = formulae.scaled(work, rates, cluster, 1 if rates.on_cores else devices, STEPS)
        inputs = formulae.inputs_of(work, rates, cluster)
        result = formulae.estimate(work, rates, cluster)
        return EncodingEstimate(source, name, inputs, result, tuple(steps), rates.on_cores)


def _unless_known(name: str, known: Mapping[str, Any]) -> str | None:
    """A name that has to be looked up; None for a known one. Raises `UserError` for a known one that is misspelt."""
    hint = "" if name in known or os.path.exists(name) else nearest(name, known)
    if hint:
        raise UserError(f"{name}: is neither here nor known.{hint} Known: {', '.join(known)}")
    return None if name in known else name
