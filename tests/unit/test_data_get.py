"""`captrain data get` against a server that fails now and then: what comes is whole, or it is told on one line."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.cli import main
from captrain.data.dataset import load_splits
from captrain.data.get import catalogue, fetch, transfer
from captrain.data.get.catalogue import CATALOGUE, DataSet, File, PictureList
from captrain.data.get.fetch import unpack
from captrain.data.get.plan import NAME, Ledger
from captrain.data.get.transfer import Limits, TransferError, download
from captrain.errors import CaptrainError, DataError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server:
    """Files by path, and what goes wrong: for each request the next of `faults` ("503", "cut", ...), then nothing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.tags = True
        self.asked: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.handle_error = lambda request, address: None  # type: ignore[method-assign]  # a client that left early
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with server.lock:
                    server.asked.append((self.path, self.headers.get("Range", "")))
                    fault = server.faults.pop(0) if server.faults else ""
                server.answer(self, fault)

            def log_message(self, *words: object) -> None:
                pass

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        content = self.files.get(handler.path)
        if fault.isdecimal() or content is None:
            handler.send_response(int(fault or 404))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if fault.startswith("redirect "):
            handler.send_response(302)
            handler.send_header("Location", fault.removeprefix("redirect "))
            handler.end_headers()
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = self._start(handler, content, tag)
        if start is None:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        said = start + (7 if fault == "wrong range" else 0)
        if start:
            handler.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        if self.tags:
            handler.send_header("ETag", tag)
        if fault == "packed":
            handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        body = content[start:]
        if fault == "damaged":
            body = bytes([body[0] ^ 1]) + body[1:]
        handler.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def _start(self, handler: BaseHTTPRequestHandler, content: bytes, tag: str) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if not asked or handler.headers.get("If-Range") != tag:
            return 0
        start = int(asked[1])
        return start if start < len(content) else None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(transfer, "LONGEST_WAIT", 0.002)
    monkeypatch.setenv("no_proxy", "*")
    made = Server()
    yield made
    made.close()


def get(server: Server, target: Path, **limits: float) -> bytes:
    """Download /file."""
    download(f"{server.url}/file", target, Limits(**{"largest": 10_000_000, **limits}))  # type: ignore[arg-type]
    return target.read_bytes()


# One file


@pytest.mark.parametrize(
    "faults",
    [[], ["503"], ["cut"], ["cut", "wrong range"], ["cut", "503", "cut", "429", "cut"], ["500"] * 5, ["cut", "206"]],
)
def test_what_comes_is_whole(server: Server, tmp_path: Path, faults: list[str]) -> None:
    server.files["/file"] = CONTENT
    server.faults = faults
    assert get(server, tmp_path / "file") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cut_file_is_gone_on_with_by_the_next_call(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    server.faults = ["cut", "404"]
    with pytest.raises(TransferError, match="404"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    have = (tmp_path / "file.part").stat().st_size
    assert have == len(CONTENT) // 2
    assert get(server, tmp_path / "file") == CONTENT
    assert server.asked[-1] == ("/file", f"bytes={have}-")


def test_a_file_that_changed_meanwhile_comes_anew(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    server.faults = ["cut", "404"]
    with pytest.raises(TransferError):
        get(server, tmp_path / "file")
    server.files["/file"] = CONTENT[::-1]
    assert get(server, tmp_path / "file") == CONTENT[::-1]


def test_without_a_mark_of_the_version_nothing_is_put_together(server: Server, tmp_path: Path) -> None:
    server.tags = False
    server.files["/file"] = CONTENT
    server.faults = ["cut"]
    assert get(server, tmp_path / "file") == CONTENT
    assert [range for _, range in server.asked] == ["", ""]


def test_a_part_that_is_whole_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.json").write_text(json.dumps({"mark": f'"{hashlib.md5(CONTENT).hexdigest()}"'}))
    assert get(server, tmp_path / "file") == CONTENT
    assert len(server.asked) == 1


def test_bytes_are_counted_once(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    server.faults = ["cut", "wrong range", "cut", "503"]
    counted: list[int] = []
    download(f"{server.url}/file", tmp_path / "file", Limits(10_000_000), counted.append)
    assert sum(counted) == len(CONTENT)


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["503"] * 9, "503 (6 attempts)"),
        (["404"], "404"),
        (["packed"], "packed as gzip"),
        (["redirect ftp://example.org/file"], "ftp://example.org"),
        (["redirect file:///etc/passwd"], "file:///etc/passwd"),
    ],
)
def test_what_cannot_be_fetched_says_why(server: Server, tmp_path: Path, faults: list[str], said: str) -> None:
    server.files["/file"] = CONTENT
    server.faults = faults
    with pytest.raises(TransferError, match=re.escape(said)):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_redirects_to_the_web_are_followed_and_circles_end(server: Server, tmp_path: Path) -> None:
    server.files |= {"/file": b"", "/other": CONTENT}
    server.faults = [f"redirect {server.url}/other"]
    assert get(server, tmp_path / "file") == CONTENT
    server.faults = [f"redirect {server.url}/file?{number}" for number in range(100)]
    server.files |= {f"/file?{number}": b"" for number in range(100)}
    with pytest.raises(TransferError):
        get(server, tmp_path / "again")


def test_a_file_larger_than_expected_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    with pytest.raises(TransferError, match="expected at most 1000"):
        get(server, tmp_path / "file", largest=1000)


def test_nobody_listens(tmp_path: Path, server: Server) -> None:
    with pytest.raises(TransferError, match="no connection"):
        download("http://127.0.0.1:9/file", tmp_path / "file", Limits(10, attempts=2))


# Archives


def zipped(members: dict[str, bytes], link: str = "") -> bytes:
    """A zip with these members, and perhaps a link."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped({"a/../../out.jpg": b"x"}), "not safe"),
        (zipped({"/out.jpg": b"x"}), "not safe"),
        (zipped({"a\\..\\out.jpg": b"x"}), "not safe"),
        (zipped({"C:/out.jpg": b"x"}), "not safe"),
        (zipped({}, link="a/link.jpg"), "is a link"),
        (zipped({"a/zeros.jpg": bytes(2_000_000)}), "expected at most 1000000"),
        (zipped({"readme.txt": b"x"}), "holds no *.jpg"),
        (b"PK not a zip", "broken archive"),
        (zipped({"a/a.jpg": CONTENT})[:-200_000], "broken archive"),
    ],
)
def test_unsafe_archives_leave_nothing_outside(tmp_path: Path, content: bytes, said: str) -> None:
    archive = tmp_path / "in" / "archive.zip"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(said)):
        unpack(archive, tmp_path / "in" / "out", "*.jpg", 1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_damaged_member_does_not_appear(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.jpg": CONTENT, "b.jpg": CONTENT}))
    content[1_500_000] ^= 1
    archive = tmp_path / "archive.zip"
    archive.write_bytes(content)
    with pytest.raises(DataError, match="broken archive"):
        unpack(archive, tmp_path / "out", "*.jpg", 10_000_000)
    assert list((tmp_path / "out").iterdir()) == []


# Whole data sets


def jpeg(seed: int = 0) -> bytes:
    """A small photo."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file, "jpeg")
    return file.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The catalogue's data sets with small files of the true forms, on the server at /source and /mirror."""
    coco = {f"coco_karpathy_{split}.json": json.dumps(_coco_rows(split)).encode() for split in ("train", "val", "test")}
    archives = {
        "train2014.zip": zipped({f"train2014/{n}.jpg": jpeg(n) for n in range(4)}),
        "val2014.zip": zipped({f"val2014/{n}.jpg": jpeg(n) for n in range(4)}),
    }
    karpathy = {"caption_datasets.zip": zipped({"dataset_flickr8k.json": _flickr(), "dataset_coco.json": b"{}"})}
    nocaps = {"nocaps_val_4500_captions.json": json.dumps(_nocaps(server.url)).encode()}
    tables = {
        "GCC-training.tsv": _tsv(server.url, range(6)),
        "GCC-1.1.0-Validation.tsv": _tsv(server.url, range(6, 9)),
    }
    files = coco | archives | karpathy | nocaps | tables
    for where in ("/source", "/mirror"):
        server.files |= {f"{where}/{name}": content for name, content in files.items()}
    server.files |= {f"/pictures/{number}": jpeg(number) for number in range(9)}
    server.files["/mirror/0.jpg"] = jpeg(77)
    for name, data_set in list(CATALOGUE.items()):
        monkeypatch.setitem(CATALOGUE, name, _smaller(data_set, files, server.url))
    return server


def _smaller(data_set: DataSet, files: dict[str, bytes], url: str) -> DataSet:
    def smaller(file: File) -> File:
        content = files[file.name]
        return dataclasses.replace(
            file,
            url=f"{url}/source/{file.name}",
            size=len(content),
            checksum=md5(content) if file.checksum else "",
        )

    lists = tuple(dataclasses.replace(listed, size=1000, count=9) for listed in data_set.lists)
    return dataclasses.replace(data_set, files=tuple(map(smaller, data_set.files)), lists=lists)


def _coco_rows(split: str) -> list[dict[str, object]]:
    if split == "train":
        return [{"image": f"train2014/{n}.jpg", "caption": f"a dog {n}", "image_id": str(n)} for n in range(4)]
    return [{"image": f"val2014/{n}.jpg", "caption": ["a cat", "cats"]} for n in ((0, 1) if split == "val" else (2, 3))]


def _flickr() -> bytes:
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": f"a dog {n}"}]}
        for n, split in enumerate(("train", "train", "val", "test"))
    ]
    return json.dumps({"images": images, "dataset": "flickr8k"}).encode()


def _nocaps(url: str) -> dict[str, object]:
    images = [{"id": n, "coco_url": f"{url}/pictures/{n}", "file_name": f"{n}.jpg"} for n in range(3)]
    return {"images": images, "annotations": [{"image_id": n, "id": n, "caption": f"a dog {n}"} for n in range(3)]}


def _tsv(url: str, numbers: range) -> bytes:
    return "".join(f"a dog {number}\t{url}/pictures/{number}\n" for number in numbers).encode()


Get = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Get:
    """`captrain data get WORDS --yes`."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["data", "get", *map(str, words), "--yes"])
        return code, *capfd.readouterr()

    return run


def counts(folder: Path, root: Path | None = None) -> dict[str, int]:
    """Samples of each split as a training would read them."""
    from captrain.data.options import ReadOptions

    splits = load_splits(str(folder), validation_share=0.5, seed=0, options=ReadOptions(image_root=root))
    assert not [line for line in splits.rejects.lines if "captrain-get" in str(line)]
    return {"train": len(splits.train), "validation": len(splits.validation)}


def test_coco_comes_through_faults_and_is_not_fetched_twice(small: Server, tmp_path: Path, run: Get) -> None:
    small.faults = ["503", "cut", "cut", "503", "429"]
    out = tmp_path / "coco"
    code, printed, errors = run("coco-karpathy", out)
    assert code == 0, errors
    assert "CC BY 4.0" in printed
    assert f"{small.url}/source/train2014.zip" in printed
    assert counts(out) == {"train": 4, "validation": 2}
    assert not list(out.glob("*.zip")) and not list(out.glob("*.part*"))
    before = len(small.asked)
    code, printed, _ = run("coco-karpathy", out)
    assert (code, len(small.asked)) == (0, before)
    assert printed.count("is here already") == 5


def test_a_lost_picture_or_table_is_fetched_again(small: Server, tmp_path: Path, run: Get) -> None:
    out = tmp_path / "coco"
    run("coco-karpathy", out)
    (out / "train2014" / "0.jpg").unlink()
    (out / "coco_karpathy_val.json").write_text("[]")
    before = len(small.asked)
    assert run("coco-karpathy", out)[0] == 0
    assert {path for path, _ in small.asked[before:]} == {"/source/train2014.zip", "/source/coco_karpathy_val.json"}
    assert counts(out) == {"train": 4, "validation": 2}


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(small: Server, tmp_path: Path, run: Get) -> None:
    small.files["/mirror/coco_karpathy_val.json"] = b"[]"
    out = tmp_path / "coco"
    code, _, errors = run("coco-karpathy", out, "--mirror", f"{small.url}/mirror/", "--annotations-only")
    line = errors.strip().splitlines()[-1]
    assert code == 2
    assert "/mirror/coco_karpathy_val.json: wrong checksum: md5" in line
    assert "another --mirror" in line
    assert not (out / "coco_karpathy_val.json").exists()
    assert run("coco-karpathy", out, "--annotations-only")[0] == 0


def test_a_file_without_checksum_is_noted_and_compared(small: Server, tmp_path: Path, run: Get) -> None:
    out = tmp_path / "nocaps"
    code, printed, _ = run("nocaps", out, "--annotations-only")
    assert code == 0
    assert "noted when it comes first" in printed
    assert Ledger(out).entries["nocaps_val_4500_captions.json"].bytes
    (out / "nocaps_val_4500_captions.json").unlink()
    small.files["/source/nocaps_val_4500_captions.json"] += b" "
    code, _, errors = run("nocaps", out, "--annotations-only")
    assert code == 2
    assert "not the file that came the first time" in errors
    assert NAME in errors


def test_a_server_that_is_down_fails_with_one_line_and_goes_on_later(small: Server, tmp_path: Path, run: Get) -> None:
    del small.files["/source/coco_karpathy_test.json"]
    out = tmp_path / "coco"
    code, _, errors = run("coco-karpathy", out)
    assert code == 1
    assert "coco_karpathy_test.json: the server answers 404" in errors.strip().splitlines()[-1]
    assert "--mirror" in errors
    assert run("coco-karpathy", out, "--mirror", f"{small.url}/mirror")[0] == 0
    assert counts(out) == {"train": 4, "validation": 2}


def test_pictures_by_address_are_counted_listed_and_gone_on_with(small: Server, tmp_path: Path, run: Get) -> None:
    small.files["/pictures/1"] = b"<html>gone</html>"
    missing = small.files.pop("/pictures/2")
    silent = small.files.pop("/pictures/7")
    out = tmp_path / "cc3m"
    code, printed, errors = run("cc3m", out, "--workers", "3")
    assert code == 3, errors
    failed = (out / "train.failed.log").read_text().splitlines()
    assert sorted(line.split("\t")[1:] for line in failed) == [
        ["for good", "is no picture"],
        ["for good", "the server answers 404 Not Found"],
    ]
    assert "train.failed.log" in printed
    assert counts(out) == {"train": 4, "validation": 2}
    small.files |= {"/pictures/2": missing, "/pictures/7": silent}
    before = len(small.asked)
    assert run("cc3m", out)[0] == 3
    assert len(small.asked) == before


def test_what_failed_for_now_is_tried_again(small: Server, tmp_path: Path, run: Get) -> None:
    out = tmp_path / "nocaps"
    run("nocaps", out, "--annotations-only")
    small.faults = ["503"] * 6
    code, _, errors = run("nocaps", out, "--workers", "1")
    assert code == 3, errors
    assert (out / "nocaps_val_4500_captions.failed.log").read_text().count("this time") == 3
    assert run("nocaps", out)[0] == 0
    assert (out / "nocaps_val_4500_captions.failed.log").read_text() == ""
    assert len(list((out / "images").glob("*.jpg"))) == 3
    before = len(small.asked)
    assert run("nocaps", out)[0] == 0
    assert len(small.asked) == before


def test_a_half_written_map_is_gone_on_with(small: Server, tmp_path: Path, run: Get) -> None:
    out = tmp_path / "cc3m"
    run("cc3m", out)
    table = out / "train.map.tsv"
    table.write_text(table.read_text()[:-5])
    before = len(small.asked)
    assert run("cc3m", out)[0] == 0
    assert len(small.asked) == before + 1
    assert counts(out) == {"train": 6, "validation": 3}


def test_own_pictures_stay_where_they_are(small: Server, tmp_path: Path, run: Get) -> None:
    own = tmp_path / "own"
    (own / "Flicker8k_Dataset").mkdir(parents=True)
    for number in range(4):
        (own / "Flicker8k_Dataset" / f"{number}.jpg").write_bytes(jpeg(number))
    out = tmp_path / "flickr8k"
    code, printed, errors = run("flickr8k", out, "--from", own)
    assert code == 0, errors
    assert f"--image-root {own}" in printed
    assert sorted(path.name for path in out.iterdir()) == [NAME, "dataset_flickr8k.json"]
    assert counts(out, own) == {"train": 2, "validation": 1}


def test_flickr_without_pictures_says_where_to_ask(small: Server, tmp_path: Path, run: Get) -> None:
    code, printed, _ = run("flickr8k", tmp_path / "flickr8k")
    assert code == 0
    assert "ask at https://forms.illinois.edu" in printed


def test_a_local_copy_of_the_files_needs_no_network(small: Server, tmp_path: Path, run: Get) -> None:
    copy = tmp_path / "copy"
    (copy / "annotations").mkdir(parents=True)
    for path, content in small.files.items():
        if path.startswith("/source/") and ("coco" in path or "2014" in path):
            where = copy / "annotations" if path.endswith(".json") else copy
            (where / path.rpartition("/")[2]).write_bytes(content)
    out = tmp_path / "coco"
    code, printed, errors = run("coco-karpathy", out, "--from", copy)
    assert code == 0, errors
    assert not small.asked
    assert re.search("to fetch +nothing", printed)
    assert counts(out) == {"train": 4, "validation": 2}
    assert (copy / "train2014.zip").is_file()


def test_a_damaged_local_copy_is_told(small: Server, tmp_path: Path, run: Get) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "val2014.zip").write_bytes(b"PK")
    code, _, errors = run("coco-karpathy", tmp_path / "coco", "--from", copy)
    assert code == 2
    assert f"{copy / 'val2014.zip'}: wrong checksum" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["coco"], "expected one of coco-karpathy"),
        (["nocaps", "--mirror", "ftp://host"], "expected an address that begins with https://"),
        (["nocaps", "--mirror", "shared/mirror"], "expected an address that begins with https://"),
        (["nocaps", "--from", "nowhere"], "nowhere: not found"),
        (
            ["flickr8k", "--from", "."],
            "nothing of flickr8k is there; expected caption_datasets.zip or Flicker8k_Dataset/",
        ),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], said: str, run: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(*words)
    assert code == 2
    assert said in errors.strip().splitlines()[-1]


def test_nothing_is_fetched_without_a_yes(small: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "nocaps", str(tmp_path / "out")]) == 2
    printed, errors = capfd.readouterr()
    assert "4500_captions.json" in printed
    assert "expected --yes" in errors
    assert not small.asked
    assert not (tmp_path / "out").exists()


def test_a_disk_without_room_is_told_before(
    small: Server, tmp_path: Path, run: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    code, _, errors = run("nocaps", tmp_path / "out")
    assert code == 2
    assert "make room" in errors
    assert not small.asked


def test_names_in_a_table_stay_in_the_folder(small: Server, tmp_path: Path, run: Get) -> None:
    bad = {
        "images": [{"id": 1, "coco_url": f"{small.url}/pictures/1", "file_name": "../../out.jpg"}],
        "annotations": [],
    }
    small.files["/source/nocaps_val_4500_captions.json"] = json.dumps(bad).encode()
    code, _, errors = run("nocaps", tmp_path / "nocaps")
    assert code == 2
    assert "is no plain file name" in errors


def test_the_catalogue_is_sound() -> None:
    for data_set in CATALOGUE.values():
        for file in data_set.files:
            transfer.check_address(file.url)
            assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|)", file.checksum)
            assert "/" not in file.name
        assert all(isinstance(listed, PictureList) for listed in data_set.lists)
    assert catalogue.CATALOGUE["coco-karpathy"].files[3].size == 13_510_573_713
    assert issubclass(DataError, CaptrainError)
