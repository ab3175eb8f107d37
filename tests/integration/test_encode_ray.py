"""`captrain encode --engine ray`: on a cluster of two workers, one of which dies on the way; and clusters that are not there."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import killing_node_of, stuck_worker, two_workers
from run_tools import Cli

from captrain.features.encode import EncoderOpening, StoreContent
from captrain.features.encode import encode as encode_data
from captrain.features.engines import EngineOptions
from captrain.features.stream import Batching

pytest.importorskip("ray", reason="Ray is not installed: pip install 'captrain[scale]'")

WORDS = "--device cpu --precision fp32 --shard-images 2 --batch-size 2"


@pytest.fixture
def tars(tmp_path: Path, photos: Path) -> Path:
    """The photos as four tar shards of three, each of which gives two parts of at most two."""
    from captrain.data.convert import FormOptions, convert

    convert(str(photos), tmp_path / "tars", "webdataset", form=FormOptions(shard_size=3))
    return tmp_path / "tars"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores, and two nodes of a core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with two_workers() as made:
        yield made


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_machine_that_dies_leaves_no_trace_in_the_store(
    tars: Path,
    encoder: Path,
    tmp_path: Path,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The store was begun on one machine; the cluster does the other half."""
    opening = EncoderOpening(str(encoder), precision="fp32")
    options: dict[str, Any] = {"content": StoreContent(shard_images=2), "batching": Batching(2)}
    here = EngineOptions(devices=("cpu",))
    encode_data(str(tars), str(tmp_path / "local"), opening, engine=here, **options)
    begun = tmp_path / "begun"
    begun.mkdir()
    for shard in sorted(tars.rglob("*.tar"))[:2]:
        shutil.copy2(shard, begun)
    encode_data(str(begun), str(tmp_path / "ray"), opening, engine=here, **options)
    flag = tmp_path / "stuck"
    stuck = stuck_worker(flag, lambda order, shard: f"{order.writer.folder.place}/shards/{shard.name}.safetensors.tmp")
    monkeypatch.setattr("captrain.features.ray_engine.RayWorker", stuck)
    with killing_node_of(flag, cluster):
        there = EngineOptions("ray", ("cpu",), cluster.address)
        found = encode_data(str(tars), str(tmp_path / "ray"), opening, engine=there, **options)
    assert caplog.text.count("its worker died; another one continues") == 1
    assert found.shards_done == 4 and not found.unread
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")


def test_a_local_ray_does_the_same_for_what_is_no_tar(
    cli: Cli, tars: Path, photos: Path, encoder: Path, tmp_path: Path
) -> None:
    """Paths are relative to the working folder; an encoder that is not there is told as ever."""
    for engine in ("local", "ray"):
        result = cli("encode", photos, Path(engine), "--encoder", encoder, WORDS, "--engine", engine)
        assert result.code == 0, result.err
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    assert len(files_of(tmp_path / "ray")) > 4
    result = cli("encode", photos, Path("ray"), "--encoder", tmp_path / "nothing", WORDS, "--engine ray")
    assert result.code == 2 and "nothing" in result.last_line and "Traceback" not in result.err


def test_a_cluster_that_is_not_there_is_one_clear_line(
    cli: Cli, tars: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` looks for a cluster on this machine, and would find the one of a test beside this one."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", cache(set))
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda folder=None: None)

    def line(*words: str) -> str:
        begun = time.monotonic()
        result = cli("encode", tars, tmp_path / "store", "--encoder", encoder, WORDS, *words)
        assert result.code == 2 and len(result.err.strip().splitlines()) == 1, result.err
        assert time.monotonic() - begun < 20
        assert not (tmp_path / "store").exists()
        return result.last_line

    assert "no Ray cluster answers" in line("--engine ray --address 127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "no Ray cluster answers (timed out)" in line(
            f"--engine ray --address 127.0.0.1:{other.getsockname()[1]}"
        )
    assert "no Ray cluster could be joined" in line("--engine ray --address auto")
    assert "expected auto, or HOST:PORT" in line("--engine ray --address ray://elsewhere")
    assert "goes with --engine ray" in line("--address auto")
    assert "each worker gets one GPU or core" in line("--engine ray --device cuda:0 --device cuda:1")
