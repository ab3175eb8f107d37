"""`captrain estimate`: the arithmetic against cases computed by hand, and what the command says of real and known data."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from captrain.cli import main
from captrain.errors import SettingsError
from captrain.features.estimate import (
    INDEX_BYTES,
    KNOWN_DATA,
    KNOWN_ENCODERS,
    Cluster,
    EncodingWork,
    Rates,
    assumed,
    computed,
    encoding_rate,
    estimate,
    measured,
    scaled,
    to_dict,
)

GB = 1e9
WORK = EncodingWork(
    measured(3_600_000, "counted"), measured(100_000, "mean"), measured(200_000 - INDEX_BYTES.value, "shape")
)


def cluster(machines: int = 1, devices: int = 1, cores: int = 8, network: float = 1.0, storage: float = 5.0) -> Cluster:
    """A cluster of so many GB/s."""
    return Cluster(machines, devices, cores, assumed(network * GB, "given"), assumed(storage * GB, "given"))


def rates(decoding: float = 200, encoding: float = 500, on_cores: bool = False) -> Rates:
    return Rates(measured(decoding, "a clock"), measured(encoding, "a clock"), on_cores)


def test_one_gpu_by_hand() -> None:
    """1 GB/s over 0.1 MB and 0.2 MB; 8 cores of 200/s; one device of 500/s: 3.6 million pictures in two hours."""
    found = estimate(WORK, rates(), cluster())
    assert {name: number.value for name, number in found.stages.items()} == {
        "reading": 10_000, "decoding": 1_600, "encoding": 500, "writing": 5_000,
    }  # fmt: skip
    assert (found.binds, found.rate.value, found.hours.value) == ("encoding", 500, 2.0)
    assert found.disk.value == 720e9
    assert found.read.value == 360e9
    assert (found.read_rate.value, found.write_rate.value) == (50e6, 100e6)


def test_the_bottleneck_moves_by_hand() -> None:
    """1 GPU of 8: encoding (500). 8: the machine's 8 cores (1,600). 64 on 8 machines: cores still (12,800).

    With 64 cores a machine decodes 12,800, and what binds is writing: 5,000 a machine, 25,000 for the storage of 5 GB/s.
    """
    few = scaled(WORK, rates(), cluster(), 8, (1, 8, 64))
    assert [(step.binds, step.rate.value) for step in few] == [
        ("encoding", 500),
        ("decoding", 1600),
        ("decoding", 12800),
    ]
    assert [step.cluster.machines for step in few] == [1, 1, 8]
    many = scaled(WORK, rates(encoding=5000), cluster(cores=64), 8, (1, 8, 64))
    assert many[1].binds == many[2].binds == "writing"
    assert [step.rate.value for step in many] == [5000, 5000, 25000]


def test_reading_binds_where_pictures_are_large() -> None:
    """1 GB/s over 5 MB is 200/s."""
    large = EncodingWork(WORK.images, measured(5e6, "mean"), WORK.feature_bytes)
    found = estimate(large, rates(), cluster())
    assert (found.binds, found.rate.value) == ("reading", 200)


def test_decoding_and_encoding_share_the_cores() -> None:
    """4 cores: 800/s decoded, 200/s encoded, together 1 / (1/800 + 1/200) = 160/s. The slower one is named."""
    found = estimate(WORK, rates(200, 50, on_cores=True), cluster(cores=4))
    assert (found.stages["decoding"].value, found.stages["encoding"].value) == (800, 200)
    assert found.rate.value == pytest.approx(160)
    assert found.binds == "encoding"
    assert estimate(WORK, rates(50, 200, on_cores=True), cluster(cores=4)).binds == "decoding"


def test_sharing_the_cores_counts_before_the_network() -> None:
    """Writing of 5,000/s does not bind 160/s; one of 100/s does, though each stage of the cores alone is faster."""
    slow = cluster(cores=4, network=0.02)
    found = estimate(WORK, rates(200, 50, on_cores=True), slow)
    assert (found.binds, found.rate.value) == ("writing", 100)


def test_storage_is_shared_by_all_machines() -> None:
    assert cluster(machines=4).bandwidth.value == 4 * GB
    assert cluster(machines=64, devices=64).bandwidth.value == 5 * GB


def test_a_number_is_measured_only_if_all_it_comes_from_is() -> None:
    assert computed(1, measured(1, ""), measured(2, "")).origin == "measured"
    assert computed(1, measured(1, ""), assumed(2, "")).origin == "assumed"
    found = estimate(WORK, rates(), cluster())
    assert found.read.origin == "measured"  # counted pictures times their measured size
    assert found.stages["encoding"].origin == "measured"  # of one device
    assert found.stages["decoding"].origin == "assumed"  # that eight cores add up
    assert found.hours.origin == "assumed"  # that the network does not bind


@pytest.mark.parametrize(("kind", "expected"), [("a100", 769.6), ("h100", 2439.6), ("cpu", 0.2467)])
def test_a_rate_from_multiply_adds(kind: str, expected: float) -> None:
    """CLIP ViT-L/14, 162.16 GFLOP a picture: 312e12 * 0.4, 989e12 * 0.4, and 0.08e12 * 0.5 of a core."""
    assert encoding_rate(81.08, kind).value == pytest.approx(expected, rel=1e-3)


def test_small_networks_are_not_faster_than_any_was_seen() -> None:
    assert encoding_rate(0.325, "h100").value == 13_000


def test_the_rate_of_an_rtx_4090_is_near_what_timm_measured() -> None:
    """timm: ViT-B/16 2,787 and CLIP ViT-L/14 658 pictures a second."""
    for name, seen in (("google/vit-base-patch16-224", 2787), ("openai/clip-vit-large-patch14", 658)):
        assert encoding_rate(KNOWN_ENCODERS[name].macs, "rtx4090").value == pytest.approx(seen, rel=0.1)


@pytest.mark.parametrize("change", [{"machines": 0}, {"devices": 0}, {"cores": 0}, {"network": 0.0}, {"storage": -1.0}])
def test_a_cluster_of_nothing_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="at least one"):
        cluster(**change)


def test_an_estimate_as_json_marks_every_number() -> None:
    content = to_dict(estimate(WORK, rates(), cluster()))
    for name in ("rate", "hours", "disk", "read", "read_rate", "write_rate"):
        assert content[name]["origin"] in ("measured", "assumed"), name


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """The JSON of a run of the command."""
    assert main(["estimate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", sorted(KNOWN_DATA))
def test_known_data_and_encoder_need_nothing_on_disk(name: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--encoder", "openai/clip-vit-large-patch14", "--vectors", "pooled", "--device", "a100", "--no-measure")
    found = run(capsys, name, *words, "--cores", "64", "--devices", "8", "--machines", "8")
    assert found["inputs"]["pictures"]["value"] == KNOWN_DATA[name].images
    assert {number["origin"] for number in found["inputs"].values()} == {"assumed"}
    assert found["disk"]["value"] == KNOWN_DATA[name].images * (2 * 1024 + 300)
    assert [(step["machines"], step["devices"]) for step in found["scaling"]] == [(1, 1), (1, 8), (8, 64)]


@pytest.mark.parametrize(
    ("dtype", "size"), [("int8", 257 * (1024 + 4)), ("float16", 257 * 2048), ("float32", 257 * 4096)]
)
def test_the_dtype_decides_the_bytes_of_known_encoders(dtype: str, size: int, capsys) -> None:
    words = ("--encoder", "openai/clip-vit-large-patch14", "--device", "l4", "--no-measure", "--dtype", dtype)
    found = run(capsys, "coco", *words)
    assert found["inputs"]["bytes kept a picture"]["value"] == size
    assert dtype in found["inputs"]["bytes kept a picture"]["reason"]
    assert found["disk"]["value"] == KNOWN_DATA["coco"].images * (size + INDEX_BYTES.value)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from captrain.testing import tiny_vision_encoder

    return str(tiny_vision_encoder(tmp_path_factory.mktemp("models") / "vit"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from captrain.testing import tiny_photos

    return tiny_photos(tmp_path_factory.mktemp("data") / "photos", count=12)


def tar_of(photos: Path, path: Path, copies: int) -> Path:
    """All photos some times over, each a sample."""
    with tarfile.open(path, "w") as tar:
        for copy in range(copies):
            for photo in sorted(photos.rglob("*.png")):
                tar.add(photo, f"{copy}-{photo.name}")
    return path


def test_a_folder_is_counted_and_its_rates_measured(photos: Path, encoder: str, capsys) -> None:
    found = run(capsys, str(photos), "--encoder", encoder, "--seconds", "0.1", "--cores", "1")
    files = list(photos.rglob("*.png"))
    inputs = found["inputs"]
    assert inputs["pictures"]["value"] == len(files) == 12
    assert inputs["bytes read a picture"]["value"] == pytest.approx(sum(file.stat().st_size for file in files) / 12)
    assert inputs["bytes kept a picture"]["value"] == 17 * 24 * 2  # 32 / 8 squared and one, of 24 numbers, fp16
    named = ("pictures", "bytes read a picture", "pictures/s decoded by a core", "pictures/s encoded by a core")
    assert {inputs[name]["origin"] for name in named} == {"measured"}


def test_the_dtype_decides_the_bytes_of_a_measured_encoder(photos: Path, encoder: str, capsys) -> None:
    found = run(capsys, str(photos), "--encoder", encoder, "--no-measure", "--device", "l4", "--dtype", "int8")
    assert found["inputs"]["bytes kept a picture"]["value"] == 17 * (24 + 4)


def test_tars_are_counted_by_their_bytes(photos: Path, encoder: str, tmp_path: Path, capsys) -> None:
    """The first shard alone has more than are looked at; the second is only weighed."""
    for number in range(2):
        tar_of(photos, tmp_path / f"{number}.tar", copies=30)
    found = run(capsys, str(tmp_path / "{0..1}.tar"), "--encoder", encoder, "--no-measure", "--device", "l4")
    pictures = found["inputs"]["pictures"]
    assert pictures["origin"] == "assumed"
    assert pictures["value"] == pytest.approx(720, rel=0.02)
    small = tar_of(photos, tmp_path / "small.tar", copies=1)
    found = run(capsys, str(small), "--encoder", encoder, "--no-measure", "--device", "l4")
    assert (found["inputs"]["pictures"]["value"], found["inputs"]["pictures"]["origin"]) == (12, "measured")
    assert found["read"]["value"] == small.stat().st_size


def test_the_table_marks_its_numbers(photos: Path, encoder: str, capsys) -> None:
    assert main(["estimate", str(photos), "--encoder", encoder, "--seconds", "0.1"]) == 0
    out = capsys.readouterr().out
    for line in ("hours", "disk", "read", "network, in", "network, out", "reading", "decoding", "encoding", "writing"):
        (found,) = [row for row in out.splitlines() if row.startswith(line + " ")]
        assert "(measured)" in found or "(assumed)" in found
    assert "binds" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nowhere --encoder openai/clip-vit-large-patch14 --no-measure", "nowhere"),
        ("coco --encoder nowhere/no-encoder --no-measure", "nowhere/no-encoder"),
        ("coco --encoder openai/clip-vit-large-patch14 --machines 0", "--machines: found 0, which must be >= 1"),
        ("coco --encoder openai/clip-vit-large-patch14 --device h1000", "Did you mean 'h100'?"),
    ],
)
def test_one_line_and_exit_code_2(words: str, expected: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
