"""Engines: which one a name makes, what workers of a cluster get, what they take over, and who gets a dead one's work."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captrain.data.feature_store.layout import ShardNote, StoreFolder, record_file
from captrain.errors import CaptrainError, ModelError, SettingsError, UserError
from captrain.features.encode import EncoderOpening, Encoding
from captrain.features.engines import ENGINES, EngineOptions, EngineWork, make_engine
from captrain.features.pipeline import Pipeline
from captrain.features.ray_engine import (
    MOST_DEATHS,
    RayWorker,
    Share,
    _Pool,
    alone,
    finished,
    known_of,
    share_of,
)
from captrain.features.sources import BlockSource
from captrain.models.checkpoint.located import Trust, current_trust, set_trust
from captrain.records import Sample

NOTE = ShardNote(
    name="all-00000.000", split="all", source="all[0:2]", fingerprint="f", part=0, last=False, images=0, captions=0, bare=0,
    rejected=0, bytes=0, features="", index="",
)  # fmt: skip


def block(number: int = 0, start: int = 0, stop: int = 2) -> BlockSource:
    samples = [Sample(f"s{index}", b"picture", ("a dog",), "x") for index in range(10)]
    return BlockSource(samples, "all", number, start, stop)


def test_other_names_and_addresses_without_a_cluster_are_refused() -> None:
    assert sorted(ENGINES) == ["local", "ray"]
    with pytest.raises(SettingsError, match=r"--engine: found 'rya', expected one of local, ray\. Did you mean 'ray'"):
        make_engine(EngineOptions("rya"), EncoderOpening("e"))
    with pytest.raises(SettingsError, match="goes with --engine ray"):
        make_engine(EngineOptions("local", address="auto"), EncoderOpening("e"))


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'captrain\[scale\]'"):
        make_engine(EngineOptions("ray", ["cpu"]), EncoderOpening("e"))


def test_each_worker_gets_a_gpu_and_its_share_of_cores_or_one_core() -> None:
    assert share_of({"CPU": 4.0, "GPU": 2.0}, "cpu") == Share(1, 0, "cpu")
    assert share_of({"CPU": 3.0, "GPU": 8.0}, "cuda") == Share(1, 1, "cuda")
    assert share_of({"CPU": 3.0}, "auto") == Share(1, 0, "cpu")
    for resources, device in (({"CPU": 4.0}, "cuda"), ({}, "auto")):
        with pytest.raises(ModelError, match="the cluster has"):
            share_of(resources, device)
    with pytest.raises(SettingsError, match="expected auto, cpu or cuda"):
        share_of({"CPU": 4.0}, "mps")


def test_a_block_travels_with_its_own_samples_and_stays_what_it_was() -> None:
    whole = block(3, 6, 8)
    sent = pickle.loads(pickle.dumps(alone(whole)))
    assert [sample.id for sample in sent.samples] == ["s6", "s7"]
    assert (sent.name, sent.label, sent.fingerprint) == (whole.name, whole.label, whole.fingerprint)
    assert [getattr(event, "id", "end") for event in sent.parts(9)] == ["s6", "s7", "end"]
    assert len(whole.samples) == 10


def test_what_a_dead_worker_finished_is_taken_over_unless_the_source_changed(tmp_path: Path) -> None:
    folder, source = StoreFolder(str(tmp_path)), block()
    for part, fingerprint in enumerate((source.fingerprint, source.fingerprint, "another")):
        name = f"{source.name}.{part:03d}"
        note = NOTE.model_copy(update={"name": name, "part": part, "fingerprint": fingerprint})
        folder.write(record_file(name), [note.model_dump_json().encode()])
    order = Encoding(SimpleNamespace(folder=folder), Pipeline("float32"), 2)  # type: ignore[arg-type]
    assert [note.part for note in finished(order, source, frozenset())] == [0, 1]
    known = known_of(source, lambda source, part: part < 1)
    assert known == {f"{source.name}.000"}
    assert [note.part for note in finished(order, source, known)] == [1]


class FakeRay:
    """Calls are done when they are waited for; an actor may be dead."""

    class RayError(Exception):
        pass

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))

    def put(self, value: Any) -> Any:
        return value

    def wait(self, promises: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return promises[:num_returns], promises[num_returns:]

    def get(self, promise: Any) -> Any:
        return promise()


class FakeActor:
    """Dies over sources that are in `deadly`; those are taken out `times` times."""

    def __init__(self, deadly: dict[str, int]) -> None:
        self.deadly = deadly
        self.do = SimpleNamespace(remote=self._do)

    def _do(self, order: Any, source: BlockSource, known: Any) -> Any:
        def result() -> list[ShardNote]:
            if self.deadly.get(source.name, 0):
                self.deadly[source.name] -= 1
                raise FakeRay.RayError("it died\nlong story")
            return [note_of(source)]

        return result


def note_of(source: BlockSource) -> ShardNote:
    return NOTE.model_copy(update={"name": f"{source.name}.000", "last": True})


def pool_of(deadly: dict[str, int]) -> tuple[_Pool, dict[str, ShardNote], list[Any]]:
    done: dict[str, ShardNote] = {}
    dismissed: list[Any] = []
    engine = SimpleNamespace(
        ray=FakeRay(), share=Share(1, 0, "cpu"), first=FakeActor(deadly), dismiss=dismissed.append,
        hire=lambda: (FakeActor(deadly), lambda: None),
    )  # fmt: skip
    sources = [block(number) for number in range(5)]
    order = SimpleNamespace(done=done, for_worker=lambda cores: None)
    work = EngineWork(order, sources, skip=lambda source, part: False, tell=lambda source, made: None)  # type: ignore[arg-type]
    return _Pool(engine, work), done, dismissed  # type: ignore[arg-type]


def test_the_work_of_dead_workers_goes_to_others() -> None:
    pool, done, dismissed = pool_of({"all-00000": MOST_DEATHS - 1, "all-00003": 1})
    pool.run()
    assert sorted(done) == [f"all-0000{number}.000" for number in range(5)]
    assert len(dismissed) == MOST_DEATHS


def test_a_source_that_kills_every_worker_ends_the_run_with_its_name() -> None:
    pool, _, _ = pool_of({"all-00002": 99})
    with pytest.raises(CaptrainError, match=r"3 workers died over all\[0:2\] \(it died\); see the cluster's logs"):
        pool.run()


@pytest.mark.parametrize("told", [Trust(remote_code=True), Trust(safetensors_only=True), Trust()])
def test_a_worker_elsewhere_trusts_what_the_command_was_told_to(told: Trust, tmp_path: Path) -> None:
    try:
        RayWorker(EncoderOpening("e"), "cpu", str(tmp_path / "not here"), trust=pickle.loads(pickle.dumps(told)))
        assert current_trust() == told
    finally:
        set_trust()
