"""Tar shards as a data set: what samples are, what is rejected, and where shards are looked for."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, webdataset
from captrain.data.shards.remote import local_copy
from captrain.data.shards.sources import expand, expand_braces
from captrain.errors import DataError
from captrain.records import Rejects, Sample


def write_tar(path: Path, content: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            raw = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def shard(path: Path, *names: str) -> Path:
    return write_tar(path, {f"{name}.{kind}": f"{name} {kind}" for name in names for kind in ("jpg", "txt")})


def read(source: Path | str, captioned: bool = True, **options: str) -> tuple[dict[str, Sample], Rejects]:
    rejects = Rejects()
    splits = webdataset.read(str(source), rejects, ReadOptions(**options), captioned=captioned)  # type: ignore[arg-type]
    return {sample.id: sample for samples in splits.values() for sample in samples}, rejects


def reasons(rejects: Rejects) -> dict[str, str]:
    return {line["id"]: line["reason"] for line in rejects.lines}


def test_a_real_shard(shared_data: Path) -> None:
    path = shared_data / "data" / "cc12m-32" / "00000.tar"
    samples, rejects = read(path)
    assert len(samples) == 32
    assert [line["id"] for line in rejects.lines] == ["cc12m-train-0000.tar"]  # a shard inside the shard
    with tarfile.open(path) as tar:
        for name, sample in samples.items():
            assert sample.read() == tar.extractfile(name).read()  # type: ignore[union-attr]
            text = tar.extractfile(name.replace(".jpg", ".txt")).read().decode()  # type: ignore[union-attr]
            assert sample.captions == (text.strip(),)
    fields, _ = read(path, caption_key="json/caption")
    assert {name: sample.captions for name, sample in fields.items()} == {
        name: sample.captions for name, sample in samples.items()
    }


@pytest.mark.parametrize(
    ("text", "options", "captions"),
    [
        ({"txt": "one\n\ntwo\n"}, {}, ("one", "two")),
        ({"txt": "one\ntwo\n"}, {"caption_lines": "whole"}, ("one\ntwo",)),
        ({"json": json.dumps(["one", "two"])}, {}, ("one", "two")),
        ({"json": json.dumps("one")}, {}, ("one",)),
        ({"json": json.dumps({"caption": "one"}), "txt": "two"}, {}, ("two",)),
        ({"json": json.dumps({"caption": "one"}), "txt": " "}, {}, ("one",)),
        ({"json": json.dumps({"a": {"b": ["one"]}}), "txt": "two"}, {"caption_key": "json/a/b"}, ("one",)),
        ({"json": json.dumps({"a": 1}), "txt": "two"}, {"caption_key": "json/a/b;txt"}, ("two",)),
        ({"meta.json": json.dumps({"caption": "one"})}, {"caption_key": "meta.json/caption"}, ("one",)),
        ({"json": '{"caption": "half \\ud800"}'}, {}, ("half ?",)),
        ({"txt": "猫\n".encode("utf-16")}, {"encoding": "cp932"}, ("猫",)),  # type: ignore[dict-item]
        ({"txt": "猫\n".encode("cp932")}, {"encoding": "cp932"}, ("猫",)),  # type: ignore[dict-item]
    ],
)
def test_where_captions_are(
    tmp_path: Path, text: dict[str, str], options: dict[str, str], captions: tuple[str, ...]
) -> None:
    write_tar(tmp_path / "s.tar", {"x.jpg": b"p", **{f"x.{suffix}": value for suffix, value in text.items()}})
    samples, rejects = read(tmp_path / "s.tar", **options)
    assert samples["x.jpg"].captions == captions
    assert not rejects


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x.txt": "a"}, "no image"),
        ({"x.jpg": b"p"}, "no caption beside"),
        ({"x.jpg": b"p", "x.txt": b"\xff"}, "not UTF-8"),
        ({"x.jpg": b"p", "x.txt": "\n"}, "is empty"),
        ({"x.jpg": b"p", "x.json": "{"}, "not valid JSON"),
        ({"x.jpg": b"p", "x.json": "[" * 100_000}, "not valid JSON"),
        ({"x.jpg": b"p", "x.json": '{"caption": 3}'}, "int"),
        ({"x.jpg": b"p", "x.txt": "a" * (2 << 20)}, "over 100,000 characters"),
        ({"x.left.jpg": b"p", "x.right.jpg": b"p", "x.txt": "a"}, "several images"),
    ],
)
def test_what_can_not_be_used_is_rejected_once(tmp_path: Path, members: dict[str, bytes | str], said: str) -> None:
    write_tar(tmp_path / "s.tar", {"ok.jpg": b"ok", "ok.txt": "fine", **members})
    samples, rejects = read(tmp_path / "s.tar")
    assert list(samples) == ["ok.jpg"]
    ((name, reason),) = reasons(rejects).items()
    assert name.startswith("x.") and said in reason


def test_images_need_no_captions_where_none_are_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"a.jpg": b"a", "b.jpg": b"b", "b.txt": "b", "c.txt": "c"})
    samples, rejects = read(tmp_path / "s.tar", captioned=False)
    assert {name: sample.captions for name, sample in samples.items()} == {"a.jpg": (), "b.jpg": ("b",)}
    assert list(samples) == ["a.jpg", "b.jpg"]
    assert list(reasons(rejects)) == ["c.txt"]


def test_members_of_a_sample_may_lie_apart_and_order_is_that_of_images(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    apart = {f"{name}.txt": name for name in names} | {f"{name}.jpg": f"{name} jpg" for name in reversed(names)}
    samples, rejects = read(write_tar(tmp_path / "s.tar", apart))
    assert [(name, sample.captions, sample.read()) for name, sample in samples.items()] == [
        (f"{name}.jpg", (name,), f"{name} jpg".encode()) for name in reversed(names)
    ]
    assert not rejects


def test_a_name_that_comes_twice_counts_once(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.jpg", "a.txt", "b.jpg", "b.txt", "a.jpg", "a.txt", "a.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"one"))
    samples, rejects = read(tmp_path / "s.tar")
    assert list(samples) == ["a.jpg", "b.jpg"]
    assert reasons(rejects) == {
        "a.txt": "comes twice in its sample",
        "a.jpg": "has the name of an earlier sample of its shard",
    }


def test_the_image_key_chooses(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"x.jpg": b"jpg", "x.left.png": b"left", "x.txt": "a"})
    assert list(read(path)[0]) == ["x.jpg"]
    assert list(read(path, image_key="webp;left.png")[0]) == ["x.left.png"]
    with pytest.raises(DataError, match=r"expected an image \(jpgg\).*Did you mean 'jpg'") as raised:
        read(path, image_key="jpgg")
    assert "\n" not in str(raised.value)


def test_a_cut_shard_is_used_up_to_the_cut(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", "a", "b", "c")
    path.write_bytes(path.read_bytes()[: 4 * 1024 + 100])
    samples, rejects = read(path)
    assert list(samples) == ["a.jpg", "b.jpg"]
    assert rejects.lines == [
        {"id": "s.tar", "where": str(path), "reason": "is cut short in a header, at byte 4196"},
    ]


@pytest.mark.parametrize("names", [("train/0.tar", "val/0.tar"), ("set-train-0.tar", "set-val-0.tar")])
def test_names_of_shards_say_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        shard(tmp_path / "set" / name, "x")
    splits = webdataset.read(str(tmp_path / "set"), Rejects())
    assert {split: [sample.id for sample in samples] for split, samples in splits.items()} == {
        "train": [names[0].replace(".tar", "/x.jpg")],
        "validation": [names[1].replace(".tar", "/x.jpg")],
    }
    shard(tmp_path / "set" / "more.tar", "y")
    assert list(webdataset.read(str(tmp_path / "set"), Rejects())) == ["all"]


def test_patterns_and_lists_name_the_same_shards_as_the_folder(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"{number:03d}.tar", f"x{number}")
    whole = [sample.id for sample in read(tmp_path)[0].values()]
    assert whole == ["000/x0.jpg", "001/x1.jpg", "002/x2.jpg"]
    listed = ",".join(str(tmp_path / f"{number:03d}.tar") for number in range(3))
    for source in (f"{tmp_path}/{{000..002}}.tar", f"{tmp_path}/*.tar", f"{tmp_path}/{{000,001,002}}.tar", listed):
        assert webdataset.recognises(source)
        assert list(read(source)[0]) == whole
    with pytest.raises(DataError, match=r"003.tar: not found \(2 of 5"):
        read(f"{tmp_path}/{{000..004}}.tar")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pipe:cat x.tar", "runs commands"),
        ("x.tar.gz", "compressed"),
        ("x.tgz", "compressed"),
        ("ssh://host/x.tar", "not read"),
        ("nowhere/x.tar", "not found"),
        ("{0..99999999}.tar", "over 1000000"),
        ("{0..9999}{0..9999}.tar", "over 1000000"),
        ("{a..c}.tar", "can't expand"),
        ("https://host/*.tar", "can't be searched"),
        ("memory://nothing/*.tar", "nothing matches"),
        ("memory://nothing/x.tar", "not found"),
    ],
)
def test_sources_that_are_refused_in_one_line(source: str, said: str) -> None:
    assert webdataset.recognises(source)
    with pytest.raises(DataError, match=said) as raised:
        read(source)
    assert "\n" not in str(raised.value)


def test_a_missing_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(DataError, match="pip install s3fs"):
        read("s3://bucket/x.tar")


def test_braces_expand_as_a_shell_does() -> None:
    assert list(expand_braces("{08..10}-{a,b}")) == ["08-a", "08-b", "09-a", "09-b", "10-a", "10-b"]
    assert list(expand_braces("{3..1}")) == ["3", "2", "1"]
    assert [one.url for one in expand("s3://b/{0..1}.tar,gs://b/2.tar")] == [
        "s3://b/0.tar",
        "s3://b/1.tar",
        "gs://b/2.tar",
    ]


def test_shards_that_differ_in_their_queries_alone_have_names_of_their_own() -> None:
    shards = expand("https://a/get/x.tar?id=1,https://a/get/x.tar?id=2")
    assert [one.prefix for one in shards] == ["0/x/", "1/x/"]
    assert [one.label for one in shards] == ["https://a/get/x.tar"] * 2


def test_only_folders_of_shards_are_claimed(tmp_path: Path) -> None:
    shard(tmp_path / "a" / "0.tar", "x")
    assert webdataset.recognises(str(tmp_path / "a"))
    assert detect(str(tmp_path / "a")) == "webdataset"
    (tmp_path / "a" / "0.parquet").write_bytes(b"")
    assert webdataset.recognises(str(tmp_path / "a"))  # as img2dataset writes it
    (tmp_path / "a" / "pictures").mkdir()
    (tmp_path / "a" / "pictures" / "dog.jpg").write_bytes(b"")
    assert not webdataset.recognises(str(tmp_path / "a"))
    for source in ("", "x.jsonl", "hf://datasets/owner/name", "a.tar,b.jsonl", "s3://[bad/x", str(tmp_path / "none")):
        assert not webdataset.recognises(source)


def test_a_link_that_leaves_the_folder_is_rejected(tmp_path: Path) -> None:
    shard(tmp_path / "set" / "0.tar", "x")
    os.symlink(shard(tmp_path / "secret.tar", "y"), tmp_path / "set" / "1.tar")
    samples, rejects = read(tmp_path / "set")
    assert list(samples) == ["0/x.jpg"]
    assert "leaves the folder" in reasons(rejects)["1.tar"]


def test_a_remote_shard_is_copied_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/remote/s.tar", shard(tmp_path / "s.tar", "a").read_bytes())
    samples, _ = read("memory://remote/s.tar")
    assert samples["a.jpg"].read() == b"a jpg"
    assert str(samples["a.jpg"].image) == "memory://remote/s.tar/a.jpg"
    copies = list((tmp_path / "cache" / "shards").iterdir())
    assert copies == [local_copy("memory://remote/s.tar")]
    memory.pipe("/remote/s.tar", shard(tmp_path / "s.tar", "a", "b").read_bytes())
    assert list(read("memory://remote/*.tar")[0]) == ["s/a.jpg", "s/b.jpg"]
    assert not list((tmp_path / "cache" / "shards").glob("*.tmp"))


@given(st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12)), max_size=5), st.integers(0, 10240))
@settings(max_examples=60, deadline=None)
def test_changed_shards_give_samples_rejects_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], end: int
) -> None:
    path = shard(tmp_path_factory.mktemp("changed") / "s.tar", "a", "b", "c")
    data = bytearray(path.read_bytes())
    for at, raw in edits:
        data[at : at + len(raw)] = raw
    path.write_bytes(data[:end])
    try:
        samples, _ = read(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(sample.captions and isinstance(sample.read(), bytes) for sample in samples.values())
