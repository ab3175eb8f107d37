"""How long a collection takes to encode, and with what machines: arithmetic on rates, each marked measured or assumed.

Four stages work at the same time, as in `captrain encode`: reading (network), decoding (cores), encoding (devices), writing
(network). The slowest of them binds. Decimal units throughout: 1 MB is 10^6 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from captrain.errors import SettingsError

MB, TB = 1e6, 1e12
STAGES = ("reading", "decoding", "encoding", "writing")


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its origin: measured on this machine, or assumed for a reason."""

    value: float
    measured: bool
    reason: str

    @property
    def origin(self) -> str:
        """The word to show beside it."""
        return "measured" if self.measured else "assumed"


def measured(value: float, reason: str) -> Number:
    """A number that was measured."""
    return Number(value, True, reason)


def assumed(value: float, reason: str) -> Number:
    """A number that was not."""
    return Number(value, False, reason)


def computed(value: float, *sources: Number) -> Number:
    """A number computed from others: measured only if all of them are.

    >>> computed(6.0, measured(2.0, "a clock"), assumed(3.0, "a data sheet")).origin
    'assumed'
    """
    return Number(value, all(source.measured for source in sources), "computed")


@dataclass(frozen=True, slots=True)
class KnownData:
    """A data set by its published size. `edge`: shorter side of its pictures in pixels, for a stand-in to decode."""

    images: float
    image_bytes: float
    edge: int
    source: str


IMG2DATASET = "github.com/rom1504/img2dataset, dataset_examples"
KNOWN_DATA = {
    #                        images       bytes   edge  source
    "coco":       KnownData(123_287,      154e3,  480, "COCO 2017: train 18 GB, val 1 GB (cocodataset.org)"),
    "cc3m":       KnownData(3_318_333,     27e3,  256, f"Sharma et al. 2018; 256 px, as cc12m ({IMG2DATASET})"),
    "cc12m":      KnownData(12_423_374,    27e3,  256, f"Changpinyo et al. 2021; 331 GB at 256 px ({IMG2DATASET})"),
    "laion-400m": KnownData(413_000_000,   27e3,  256, "Schuhmann et al. 2021; 41,455 tars of 270 MB (laion-prepro)"),
}  # fmt: skip
"""Upper bounds: links of cc3m, cc12m and laion-400m die, so that fewer pictures can be fetched than were published."""


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """An encoder by its shape: multiply-adds of a picture (in 10^9), N vectors of D numbers, and where that is from."""

    macs: float
    tokens: int
    width: int
    source: str


TIMM = "timm's results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv"
KNOWN_ENCODERS = {
    #                               10^9 macs    N      D
    "mobilenet-v1-0.75-224": KnownEncoder(0.325, 49, 768, "Howard et al. 2017, table 6"),
    "google/vit-base-patch16-224": KnownEncoder(17.58, 197, 768, TIMM),
    "openai/clip-vit-base-patch32": KnownEncoder(4.41, 50, 768, TIMM),
    "openai/clip-vit-large-patch14": KnownEncoder(81.08, 257, 1024, TIMM),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device: what it computes at best in 10^12 operations a second, the share of it that is reached, and why."""

    peak: float
    share: float
    reason: str


FED = "data sheet, dense bf16; 0.4 of it assumed: the RTX 4090 reaches 0.6, larger devices are harder to feed"
DEVICES = {
    "rtx4090": Device(165, 0.6, f"data sheet; 0.6 of it, as ViT-B/16 and ViT-L/14 reach in {TIMM}"),
    "l4": Device(121, 0.4, FED),
    "a100": Device(312, 0.4, FED),
    "h100": Device(989, 0.4, FED),
    "h200": Device(989, 0.4, FED),
    "cpu": Device(0.08, 0.5, "a core of AVX-512 at 2.5 GHz, fp32; half of it assumed"),
}
"""`cpu` is one core, the others are one whole device."""
MOST_IMAGES_A_DEVICE = 13_000.0
"""Images a second of small networks, which arithmetic does not bind: MobileNet 1.0 reaches 13,760 on the RTX 4090 (timm)."""

DECODE_REFERENCE = 270.0
"""Images of 480 x 640 pixels that a core decodes a second, assumed where nothing is measured; see `decoding_rate`."""
LINEAR = assumed(1.0, "cores, devices and machines add up")
INDEX_BYTES = assumed(300, "id, caption, source and keys of a picture in the index")
NETWORK = assumed(1250 * MB, "10 Gbit/s a machine, each way")
STORAGE = assumed(5000 * MB, "what the storage gives to all machines together, each way")


def encoding_rate(macs: float, kind: str) -> Number:
    """Images a second of a device: peak x share / (2 x multiply-adds), on a GPU at most `MOST_IMAGES_A_DEVICE`.

    >>> round(encoding_rate(81.08, "a100").value)  # 312e12 * 0.4 / (2 * 81.08e9)
    770
    """
    device = DEVICES[kind]
    rate = device.peak * 1e12 * device.share / (2 * macs * 1e9)
    if kind != "cpu" and rate > MOST_IMAGES_A_DEVICE:
        return assumed(MOST_IMAGES_A_DEVICE, "a small network, as fast as MobileNet 1.0 on an RTX 4090 (timm)")
    return assumed(rate, device.reason)


def decoding_rate(edge: int) -> Number:
    """Images a second that a core decodes, by their pixels: as many fewer as they are larger than 480 x 640.

    >>> decoding_rate(480).value, decoding_rate(240).value
    (270.0, 1080.0)
    """
    return assumed(
        DECODE_REFERENCE * (480 / edge) ** 2, "a core of an AMD EPYC decodes 83 million pixels of JPEG a second"
    )


@dataclass(frozen=True, slots=True)
class EncodingWork:
    """What is to be done. Bytes are those of one picture: as it is read, and of its vectors as they are kept."""

    images: Number
    read_bytes: Number
    feature_bytes: Number

    @property
    def written_bytes(self) -> Number:
        """Bytes that a picture takes in the store: its vectors and its line of the index."""
        value = self.feature_bytes.value + INDEX_BYTES.value
        return computed(value, self.feature_bytes, INDEX_BYTES)


@dataclass(frozen=True, slots=True)
class Rates:
    """Images a second of one core that decodes, and of one device that encodes (of one core where `on_cores`)."""

    decoding: Number
    encoding: Number
    on_cores: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines alike, `devices` of all machines together; bytes a second of a machine's network and of the storage, each way."""

    machines: int
    devices: int
    cores: int
    network: Number = NETWORK
    storage: Number = STORAGE

    def __post_init__(self) -> None:
        if min(self.machines, self.devices, self.cores) < 1 or min(self.network.value, self.storage.value) <= 0:
            raise SettingsError(
                "a cluster needs at least one machine, device and core, and a network; give larger numbers"
            )

    @property
    def bandwidth(self) -> Number:
        """Bytes a second, each way: min(machines x network, storage)."""
        machines = self.machines * self.network.value
        if machines <= self.storage.value:
            return computed(machines, self.network)
        return self.storage

    def of(self, devices: int, a_machine: int) -> Cluster:
        """As many such machines as are needed for `devices`; one that is not full has all its cores."""
        return replace(self, machines=math.ceil(devices / a_machine), devices=devices)


def cluster_of(machines: int, devices: int, cores: int, network: float, storage: float, *, on_cores: bool) -> Cluster:
    """Machines as people describe them.

    Args:
        machines, devices, cores: how many machines, and devices and cores of each. Without devices the cores encode (`on_cores`).
        network: Gbit/s of each machine. storage: GB/s for all machines together.
    """
    return Cluster(
        machines, machines if on_cores else machines * devices, cores,
        assumed(network * 1e9 / 8, f"{network:g} Gbit/s a machine, --network"),
        assumed(storage * 1e9, f"{storage:g} GB/s for all machines, --storage"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate. `stages` are images a second that each stage could do alone, `rate` what all do together."""

    cluster: Cluster
    stages: dict[str, Number]
    binds: str
    rate: Number
    hours: Number
    disk: Number
    read: Number
    read_rate: Number
    write_rate: Number


def estimate(work: EncodingWork, rates: Rates, cluster: Cluster) -> Estimate:
    """The formulae, in images a second:

        reading  = min(machines x network, storage) / bytes read
        decoding = machines x cores x decoding of a core
        encoding = devices x encoding of a device
        writing  = min(machines x network, storage) / bytes written

    The rate is the least of them. Without a GPU, decoding and encoding share the cores: encoding = machines x cores x encoding
    of a core, and both together reach 1 / (1 / decoding + 1 / encoding).
    hours = images / rate / 3600; disk = images x bytes written; read = images x bytes read.
    """
    band, cores = cluster.bandwidth, cluster.machines * cluster.cores
    at_work = cores if rates.on_cores else cluster.devices
    stages = {
        "reading": computed(band.value / work.read_bytes.value, band, work.read_bytes),
        "decoding": times(cores, rates.decoding),
        "encoding": times(at_work, rates.encoding),
        "writing": computed(band.value / work.written_bytes.value, band, work.written_bytes),
    }
    binds, rate = slowest(stages, rates.on_cores)
    total = work.images
    return Estimate(
        cluster=cluster, stages=stages, binds=binds, rate=rate,
        hours=computed(total.value / rate.value / 3600, total, rate),
        disk=computed(total.value * work.written_bytes.value, total, work.written_bytes),
        read=computed(total.value * work.read_bytes.value, total, work.read_bytes),
        read_rate=computed(rate.value * work.read_bytes.value, rate, work.read_bytes),
        write_rate=computed(rate.value * work.written_bytes.value, rate, work.written_bytes),
    )  # fmt: skip


def inputs_of(work: EncodingWork, rates: Rates, cluster: Cluster) -> dict[str, Number]:
    """What an estimate starts from, each number by the name that people see."""
    return {
        "pictures": work.images,
        "bytes read a picture": work.read_bytes,
        "bytes kept a picture": work.feature_bytes,
        "pictures/s decoded by a core": rates.decoding,
        f"pictures/s encoded by a {'core' if rates.on_cores else 'device'}": rates.encoding,
        "network, bytes/s a machine": cluster.network,
        "storage, bytes/s in all": cluster.storage,
    }


def times(count: int, rate: Number) -> Number:
    """The rate of several alike: that they add up is assumed.

    >>> times(4, measured(100.0, "a clock")).value, times(4, measured(100.0, "a clock")).origin
    (400.0, 'assumed')
    """
    return rate if count == 1 else computed(count * rate.value, rate, LINEAR)


def slowest(stages: dict[str, Number], shared: bool) -> tuple[str, Number]:
    """The stage that binds and the rate of all; where the cores are shared, the slower of decoding and encoding is named.

    Which stage is slowest depends on every stage's number, so that a rate is measured only if all are.
    """
    together = dict(stages)
    if shared:
        decoding, encoding = stages["decoding"], stages["encoding"]
        slower = min(("decoding", "encoding"), key=lambda stage: stages[stage].value)
        both = computed(1 / (1 / decoding.value + 1 / encoding.value), decoding, encoding)
        together = {"reading": stages["reading"], slower: both, "writing": stages["writing"]}
    binds = min(together, key=lambda stage: together[stage].value)
    return binds, computed(together[binds].value, *stages.values())


def scaled(
    work: EncodingWork, rates: Rates, cluster: Cluster, a_machine: int, devices: Sequence[int]
) -> list[Estimate]:
    """The estimate for several numbers of devices (of machines where cores encode): where the bottleneck moves."""
    return [estimate(work, rates, cluster.of(count, a_machine)) for count in devices]


def to_dict(found: Estimate) -> dict[str, object]:
    """An estimate as JSON can hold it; each number has `value` and `origin`."""
    numbers = {name: getattr(found, name) for name in ("rate", "hours", "disk", "read", "read_rate", "write_rate")}
    return {
        "machines": found.cluster.machines,
        "devices": found.cluster.devices,
        "cores_a_machine": found.cluster.cores,
        "binds": found.binds,
        "stages": {name: number_to_dict(number) for name, number in found.stages.items()},
        **{name: number_to_dict(number) for name, number in numbers.items()},
    }


def number_to_dict(number: Number) -> dict[str, object]:
    """A number as JSON can hold it."""
    content = asdict(number)
    content["origin"] = number.origin
    del content["measured"]
    return content
