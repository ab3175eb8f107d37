"""Streams over shards: every sample once over all readers, the same order for the same seed, and exact resume."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from captrain.data.options import ReadOptions
from captrain.data.shards.stream import SampleStream, stream_samples
from captrain.errors import DataError
from captrain.records import Rejects

COUNTS = (7, 0, 12, 1, 5, 9)  # samples of the shards


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    for number, count in enumerate(COUNTS):
        write(folder / f"{number}.tar", [f"{number}-{sample:02d}" for sample in range(count)])
    return f"{folder}/{{0..{len(COUNTS) - 1}}}.tar"


def write(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for name in names:
            for kind in ("jpg", "txt"):
                member = tarfile.TarInfo(f"{name}.{kind}")
                data = f"{name} {kind}".encode() * (1 + len(name) * 100 * (kind == "jpg"))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def ids(stream: SampleStream) -> list[str]:
    return [sample.id for sample in stream]


@pytest.mark.parametrize("shuffle_buffer", [0, 1, 4, 100])
@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 1), (2, 2), (3, 3), (1, 40)])
def test_every_sample_comes_once_over_all_readers(pattern: str, world: int, workers: int, shuffle_buffer: int) -> None:
    found: list[str] = []
    for rank in range(world):
        for worker in range(workers):
            stream = stream_samples(
                pattern, shuffle_buffer=shuffle_buffer, rank=rank, world=world, worker=worker, workers=workers
            )
            found += ids(stream)
    assert len(found) == len(set(found)) == sum(COUNTS)


def test_few_shards_are_shared_out_evenly(pattern: str) -> None:
    counts = [len(ids(stream_samples(pattern, shuffle_buffer=3, rank=rank, world=8))) for rank in range(8)]
    assert max(counts) - min(counts) <= 1


def test_samples_are_whole_and_in_order_without_a_buffer(pattern: str) -> None:
    samples = list(stream_samples(pattern, shuffle_buffer=0))
    assert [sample.id for sample in samples] == [
        f"{shard}/{shard}-{number:02d}.jpg" for shard, count in enumerate(COUNTS) for number in range(count)
    ]
    assert samples[0].read() == b"0-00 jpg" * 401
    assert samples[0].captions == ("0-00 txt",)


def test_seed_and_epoch_decide_the_order(pattern: str) -> None:
    first = ids(stream_samples(pattern, shuffle_buffer=5, seed=1))
    assert first == ids(stream_samples(pattern, shuffle_buffer=5, seed=1))
    for other in ({"seed": 2}, {"seed": 1, "epoch": 1}):
        assert first != ids(stream_samples(pattern, shuffle_buffer=5, **other))
    assert first != sorted(first)


@pytest.mark.parametrize("shuffle_buffer", [0, 5, 100])
@pytest.mark.parametrize("world", [1, 2, 8])
def test_a_resumed_stream_goes_on_at_the_very_next_sample(pattern: str, world: int, shuffle_buffer: int) -> None:
    def stream(start: dict[str, object] | None = None) -> SampleStream:
        return stream_samples(pattern, shuffle_buffer=shuffle_buffer, seed=3, rank=world - 1, world=world, start=start)

    whole = list(stream())
    for stop in range(len(whole) + 1):
        first = stream()
        for _ in range(stop):
            next(first)
        state = json.loads(json.dumps(first.state_dict()))
        assert list(stream(state)) == whole[stop:]
        assert list(first) == whole[stop:]


def test_a_state_of_another_stream_is_refused(pattern: str) -> None:
    state = stream_samples(pattern, seed=1).state_dict()
    for other in ({"seed": 2}, {"seed": 1, "epoch": 1}, {"seed": 1, "world": 2}, {"seed": 1, "captioned": False}):
        with pytest.raises(DataError, match="the state of a stream has"):
            stream_samples(pattern, start=state, **other)  # type: ignore[arg-type]
    for broken in ({}, {**state, "next": "x"}, {**state, "buffer": [[99, 0, 0]]}, {**state, "buffer": [[0, 7, 0]]}):
        with pytest.raises(DataError) as raised:
            stream_samples(pattern, seed=1, start=broken)
        assert "\n" not in str(raised.value)


def test_memory_holds_the_buffer_and_no_more(pattern: str) -> None:
    stream = stream_samples(pattern, shuffle_buffer=4)
    for _ in stream:
        assert len(stream.state_dict()["buffer"]) <= 4


def test_what_can_not_be_used_is_rejected_once_over_readers(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", ["a", "b", "c"])
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("bare.jpg"))
        link = tarfile.TarInfo("link.jpg")
        link.type = tarfile.SYMTYPE
        tar.addfile(link)
    (tmp_path / "1.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:3500])
    lines = []
    for rank in range(4):
        rejects = Rejects()
        ids(stream_samples(str(tmp_path), rank=rank, world=4, rejects=rejects))
        lines += rejects.lines
    assert sorted(line["id"] for line in lines) == ["0/bare.jpg", "0/link.jpg", "1.tar", "1/b.jpg"]
    assert all(line["reason"] for line in lines)
    rejects = Rejects()
    found = list(stream_samples(str(tmp_path / "0.tar"), shuffle_buffer=0, rejects=rejects, captioned=False))
    assert [(sample.id, sample.captions) for sample in found][-1] == ("bare.jpg", ())


def test_remote_shards_are_streamed_and_resumed_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "0.tar", ["a", "b", "c", "d"])
    fsspec.filesystem("memory").pipe("/streamed/0.tar", (tmp_path / "0.tar").read_bytes())
    here = [(sample.captions, sample.read()) for sample in stream_samples(str(tmp_path / "0.tar"), shuffle_buffer=0)]
    stream = stream_samples("memory://streamed/0.tar", shuffle_buffer=0)
    there = [(sample.captions, sample.read()) for sample in (next(stream), next(stream))]
    rest = stream_samples("memory://streamed/0.tar", shuffle_buffer=0, start=stream.state_dict())
    assert there + [(sample.captions, sample.read()) for sample in rest] == here
    assert not (tmp_path / "cache").exists()


def test_a_store_that_can_not_seek_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFile

    write(tmp_path / "0.tar", ["a", "b", "c"])
    fsspec.filesystem("memory").pipe("/forward/0.tar", (tmp_path / "0.tar").read_bytes())
    monkeypatch.setattr(MemoryFile, "seekable", lambda self: False)
    rejects = Rejects()
    stream = stream_samples("memory://forward/0.tar", shuffle_buffer=0, rejects=rejects)
    first = next(stream)
    rest = stream_samples("memory://forward/0.tar", shuffle_buffer=0, start=stream.state_dict())
    assert [first.id, *ids(rest)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert not rejects


def test_options_choose_members(pattern: str) -> None:
    rejects = Rejects()
    assert not ids(stream_samples(pattern, ReadOptions(caption_key="json/caption"), rejects=rejects))
    assert len(rejects) == sum(COUNTS)


def test_readers_are_numbered_from_zero(pattern: str) -> None:
    with pytest.raises(DataError, match="expected numbers from 0"):
        stream_samples(pattern, rank=1, world=1)
