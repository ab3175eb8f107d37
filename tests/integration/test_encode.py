"""`captrain encode` and training from what it wrote, through the command line, with a tiny encoder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import Mock

import pytest
from run_tools import Cli, holding, losses_of

from captrain.data.feature_store.layout import StoreFolder
from captrain.data.feature_store.store import FeatureStore
from captrain.disk.locks import FOLDER_LOCK
from captrain.features.encode import EncoderOpening, StoreContent
from captrain.features.encode import encode as encode_data
from captrain.features.encoder import Vectors
from captrain.features.engines import EngineOptions
from captrain.features.stream import Batching
from captrain.testing import tiny_vision_encoder

STEPS = (
    "--device cpu --precision fp32 --batch-size 3 --epochs 2 --decoder-layers 1 --decoder-width 16 --decoder-heads 2"
)
QUICK = f"{STEPS} --beams 1 --max-new-tokens 4 --log-every 1 --validation-share 0.2"


class Killed(BaseException):
    """In place of a signal: nothing in the product catches it."""


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The photos as three tar shards; do not write into it."""
    from captrain.data.convert import FormOptions, convert

    folder = tmp_path_factory.mktemp("tars") / "shards"
    convert(str(photos), folder, "webdataset", form=FormOptions(shard_size=4))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def encode(
    data: Path | str, store: Path, encoder: Path, vectors: Vectors = "all", shard_images: int | None = None
) -> None:
    encode_data(
        str(data),
        str(store),
        EncoderOpening(str(encoder), vectors=vectors, precision="fp32"),
        content=StoreContent(shard_images=shard_images),
        batching=Batching(2, 2),
        engine=EngineOptions(devices=("cpu",)),
    )


def test_the_store_gives_the_same_loss_at_each_step_as_the_pictures(
    cli: Cli, tars: Path, encoder: Path, tmp_path: Path
) -> None:
    store, runs = tmp_path / "store", [tmp_path / "of-pictures", tmp_path / "of-store"]
    assert cli("encode", tars, store, "--encoder", encoder, "--dtype float32 --device cpu --precision fp32").code == 0
    for data, run in zip((tars, store), runs, strict=True):
        result = cli("train", data, run, "--encoder", encoder, QUICK)
        assert result.code == 0, result.err
    first, second = (losses_of(run) for run in runs)
    assert len(first) > 4
    assert second == pytest.approx(first, rel=1e-5)


def test_training_from_stores_touches_no_picture(cli: Cli, tars: Path, encoder: Path, tmp_path: Path) -> None:
    """The pictures are gone; two stores, listed with a comma, are one data set."""
    pictures = tmp_path / "pictures"
    shutil.copytree(tars, pictures)
    found = sorted(pictures.rglob("*.tar"))
    for number, shard in enumerate(found[:2]):
        encode(shard, tmp_path / f"store-{number}", encoder)
    shutil.rmtree(pictures)
    stores = f"{tmp_path / 'store-0'},{tmp_path / 'store-1'}"
    result = cli("train", stores, tmp_path / "run", "--encoder", encoder, QUICK)
    assert result.code == 0, result.err
    counts = (tmp_path / "run" / "settings.yaml").read_text()
    assert "train_images: 6" in counts and "validation_images: 2" in counts


def test_killed_anywhere_it_ends_with_the_same_bytes(
    tars: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, write = tmp_path / "whole", StoreFolder.write
    calls: list[str] = []

    def counting(folder: StoreFolder, name: str, chunks: Iterable[bytes]) -> None:
        calls.append(name)
        write(folder, name, chunks)

    monkeypatch.setattr(StoreFolder, "write", counting)
    encode(tars, whole, encoder, shard_images=3)
    wanted, total = files_of(whole), len(calls)
    assert sum(name.endswith(".safetensors") for name in wanted) == 6
    for last in range(0, total, 3):
        store = tmp_path / f"killed-{last}"
        left = [last]

        def killing(folder: StoreFolder, name: str, chunks: Iterable[bytes], left: list[int] = left) -> None:
            if left[0] == 0:
                path = Path(folder.place, f"{name}.tmp")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"half")
                raise Killed
            left[0] -= 1
            write(folder, name, chunks)

        monkeypatch.setattr(StoreFolder, "write", killing)
        with pytest.raises(Killed):
            encode(tars, store, encoder, shard_images=3)
        calls.clear()
        monkeypatch.setattr(StoreFolder, "write", counting)
        encode(tars, store, encoder, shard_images=3)
        assert files_of(store) == wanted, last
        assert sum(name.endswith(".safetensors") for name in calls) <= 6 - max(0, last - 1) // 3


def test_done_shards_are_not_done_again_and_added_ones_are(tars: Path, encoder: Path, tmp_path: Path) -> None:
    grown, store = tmp_path / "grown", tmp_path / "store"
    grown.mkdir()
    shards = sorted(tars.rglob("*.tar"))
    for shard in shards[:2]:
        shutil.copy2(shard, grown)
    encode(grown, store, encoder)
    times = {path: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    shutil.copy2(shards[2], grown)
    encode(grown, store, encoder)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert sum(part.images for part in FeatureStore(str(store)).parts) == 12


def test_a_changed_shard_is_noticed(cli: Cli, tars: Path, encoder: Path, tmp_path: Path) -> None:
    shard, store = tmp_path / "a.tar", tmp_path / "store"
    first, second = sorted(tars.rglob("*.tar"))[:2]
    shutil.copy(first, shard)
    encode(shard, store, encoder)
    shutil.copy(second, shard)
    os.utime(shard, ns=(1, 1))
    words = ("encode", shard, store, "--encoder", encoder, "--device cpu --precision fp32")
    result = cli(*words)
    assert result.code == 2
    assert "a.tar: changed since" in result.last_line and "--redo-changed" in result.last_line
    assert cli(*words, "--redo-changed").code == 0
    assert "photo-004" in FeatureStore(str(store)).index(0).entry(0).id


def test_a_broken_tar_costs_its_own_rest(cli: Cli, tars: Path, encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tars, broken)
    victim = sorted(broken.rglob("*.tar"))[1]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    result = cli("encode", broken, tmp_path / "store", "--encoder", encoder, "--device cpu")
    assert result.code == 3
    store = FeatureStore(str(tmp_path / "store"))
    assert [shard.rejected for shard in store.manifest.shards] == [0, 1, 0]
    assert "cut short" in (tmp_path / "store" / "rejected.jsonl").read_text()
    assert 8 < sum(part.images for part in store.parts) < 12


def test_only_one_may_write(cli: Cli, tars: Path, encoder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    words = ("encode", tars, store, "--encoder", encoder, "--device cpu")
    with holding(store) as pid:
        result = cli(*words)
        assert result.code == 2 and f"(process {pid}, for " in result.last_line
    assert (store / FOLDER_LOCK).exists()
    assert cli(*words).code == 0
    assert not (store / FOLDER_LOCK).exists()


def test_another_encoder_or_preparation_is_refused_and_both_are_named(
    cli: Cli, tars: Path, encoder: Path, tmp_path: Path
) -> None:
    store, other = tmp_path / "store", tiny_vision_encoder(tmp_path / "other", seed=7)
    encode(tars, store, encoder)
    result = cli("train", store, tmp_path / "run", "--encoder", other, QUICK)
    assert result.code == 2
    assert f"holds features of {encoder} (vit, weights " in result.last_line
    assert f"not of the encoder of {other} (weights " in result.last_line
    result = cli("train", store, tmp_path / "run2", "--encoder", encoder, QUICK, "--resize crop")
    assert result.code == 2 and "resize squash" in result.last_line and "crop" in result.last_line
    result = cli("train", store, tmp_path / "run2", "--encoder", encoder, QUICK, "--decode fast")
    assert (
        result.code == 2 and "decode exact" in result.last_line and "--decode as in captrain encode" in result.last_line
    )
    result = cli("train", store, tmp_path / "run3", "--encoder", encoder, QUICK, "--freeze language")
    assert result.code == 2 and "--freeze vision" in result.last_line
    result = cli("train", store, tmp_path / "run4", "--encoder", encoder, QUICK, "--flip 0.5")
    assert result.code == 2 and "features" in result.last_line
    result = cli("encode", tars, store, "--encoder", other, "--device cpu --precision fp32")
    assert result.code == 2 and "choose another folder" in result.last_line
    assert f"of {encoder} (vit," in result.last_line and f"not of {other} (vit," in result.last_line


def test_a_full_disk_leaves_nothing_half_written(
    cli: Cli, tars: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captrain.data.feature_store.layout.os.fsync", full)
    result = cli("encode", tars, tmp_path / "store", "--encoder", encoder, "--device cpu")
    assert result.code == 1 and "the disk is full" in result.last_line
    assert files_of(tmp_path / "store") == {}


def test_info_verify_search_merge_and_convert(
    cli: Cli, tars: Path, encoder: Path, photos: Path, tmp_path: Path
) -> None:
    store, shards = tmp_path / "store", sorted(tars.rglob("*.tar"))
    encode(tars, store, encoder, vectors="pooled")
    found = json.loads(cli("features info", store, "--json").out)
    assert (found["images"], found["captions"], found["shards"]) == (12, 60, 3)
    assert cli("features verify", store).code == 0
    near = cli("features search", store, photos / "photo-003.png", "--count 1").out
    assert "photo-003" in near and near.split("\n")[1].startswith("1.000")
    for number, shard in enumerate(shards):
        encode(f"{shard},{shard}", tmp_path / f"part-{number}", encoder, vectors="pooled")
    parts = [tmp_path / f"part-{number}" for number in range(3)]
    assert cli("features merge", tmp_path / "merged", *parts).code == 0
    assert sum(part.images for part in FeatureStore(str(tmp_path / "merged")).parts) == 12
    whole = files_of(tmp_path / "merged")
    assert "is a store already" in cli("features merge", tmp_path / "merged", *parts).last_line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captrain.features.manage.StoreWriter.finish", Mock(side_effect=KeyboardInterrupt))
        assert cli("features merge", tmp_path / "again", *parts).code == 130
    assert cli("features merge", tmp_path / "again", *parts).code == 0
    assert files_of(tmp_path / "again") == whole
    assert cli("features convert", store, tmp_path / "emb").code == 0
    back = cli("features convert", tmp_path / "emb", tmp_path / "back", "--encoder", encoder)
    assert back.code == 0, back.err
    assert json.loads(cli("features info", tmp_path / "back", "--json").out)["images"] == 12
    assert (
        cli("train", tmp_path / "emb", tmp_path / "run", "--encoder", encoder, QUICK, "--image-vectors pooled").code
        == 0
    )
    damaged = next((store / "shards").glob("*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    result = cli("features verify", store)
    assert result.code == 1 and damaged.name in result.out


def test_pipe_urls_missing_shards_and_foreign_folders_are_one_clear_line(
    cli: Cli, tars: Path, encoder: Path, tmp_path: Path
) -> None:
    def line(data: str | Path) -> str:
        result = cli("encode", data, tmp_path / "store", "--encoder", encoder, "--device cpu")
        assert result.code == 2 and len(result.err.strip().splitlines()) == 1, result.err
        return result.last_line

    assert "pipe:" in line(Path("pipe:cat x.tar"))
    assert "not found" in line(tmp_path / "{00000..00002}.tar")
    assert not (tmp_path / "store" / "shards").exists()
    (tmp_path / "store").mkdir(exist_ok=True)
    (tmp_path / "store" / "letter.txt").write_text("mine")
    assert "holds other files" in line(tars)


def test_fp16_is_for_gpus(cli: Cli, tars: Path, encoder: Path, tmp_path: Path) -> None:
    result = cli("encode", tars, tmp_path / "store", "--encoder", encoder, "--device cpu --precision fp16")
    assert result.code == 2 and "precision fp16: needs a GPU, found a CPU" in result.last_line
    assert not (tmp_path / "store").exists()
