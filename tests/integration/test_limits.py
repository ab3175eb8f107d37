"""Small files that unfold to gigabytes, overlong texts and what takes quadratic time, read by the command line.

Each attack is a function that makes its file in a folder and returns what to read there. A process that reads it must end in
time, stay under a gibibyte, and say what is wrong in one line.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captrain.limits import LONGEST_CAPTION, TOO_LONG, TOO_MANY
from captrain.testing import tiny_photos

MOST_MEMORY = 1024  # MiB
MOST_SECONDS = 20.0  # of a core; most take one or two
LONG = "a dog, " * (LONGEST_CAPTION // 5)  # characters: more than any caption
HUGE = 17 << 20  # characters: more than the longest line

Attack = Callable[[Path], Path]


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **{"compression": "zstd", **options})
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def picture(folder: Path, name: str = "a.png") -> bytes:
    """A picture in a folder, and its bytes."""
    photo = next(tiny_photos(folder / "made", count=1, size=32).glob("*.png"))
    (folder / name).write_bytes(photo.read_bytes())
    return photo.read_bytes()


def padded(png: bytes, count: int) -> bytes:
    """A PNG with so many bytes more, in a chunk that readers pass over."""
    chunk = b"prVt" + bytes(count)
    return png[:-12] + struct.pack(">I", count) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]


def repeated(value: bytes | str, count: int) -> pa.Array:
    """A value that comes many times, and takes memory once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def written_in_parts(path: Path, part: dict[str, Any], times: int, **options: Any) -> Path:
    """A table of one row group, of which only a part is in memory."""
    batch = pa.record_batch(part)
    with pq.ParquetWriter(path, batch.schema, compression="zstd", use_dictionary=False, **options) as writer:
        for _ in range(times):
            writer.write_batch(batch)
    return path


def captions_in_a_dictionary(folder: Path) -> Path:
    columns = {"image": ["a.png"] * 4000, "caption": repeated("x" * 1_000_000, 4000)}
    return table(folder / "t.parquet", columns, store_schema=False)


def captions_in_pages(folder: Path) -> Path:
    part = {"image": ["a.png"] * 100, "caption": [f"{n}" + "x" * 500_000 for n in range(100)]}
    return written_in_parts(folder / "t.parquet", part, 15)


def captions_by_prefix(folder: Path) -> Path:
    part = {"image": ["a.png"] * 100, "caption": ["x" * 500_000] * 100}
    encoding = {"caption": "DELTA_BYTE_ARRAY", "image": "PLAIN"}
    return written_in_parts(folder / "t.parquet", part, 15, column_encoding=encoding)


def one_cell(folder: Path) -> Path:
    return table(
        folder / "t.parquet",
        {"image": ["a.png"], "caption": ["x" * (150 << 20)]},
        use_dictionary=False,
        write_statistics=False,
    )


def lists_of_captions(folder: Path) -> Path:
    part = {"image": ["a.png"], "captions": [["x" * 1_000_000] * 60]}
    return written_in_parts(folder / "t.parquet", part, 10)


def lists_of_nothing(folder: Path) -> Path:
    captions = pa.ListArray.from_arrays([0, 20_000_000], pa.nulls(20_000_000, pa.string()))
    return table(folder / "t.parquet", {"image": ["a.png"], "captions": captions})


def rows_of_nothing(folder: Path) -> Path:
    names = pa.nulls(20_000_000, pa.string())
    return table(folder / "t.parquet", {"image": names, "caption": names}, row_group_size=20_000_000)


def pictures_in_a_dictionary(folder: Path) -> Path:
    columns = {"image": repeated(padded(picture(folder), 12 << 20), 100), "caption": ["a dog"] * 100}
    return table(folder / "t.parquet", columns, store_schema=False)


def pictures_in_one_page(folder: Path) -> Path:
    pictures = [picture(folder) + bytes(1 << 20) + bytes([n]) for n in range(150)]
    columns = {"image": pictures, "caption": ["a dog"] * 150}
    return table(folder / "t.parquet", columns, use_dictionary=False, write_statistics=False)


def wide_values(folder: Path) -> Path:
    return table(folder / "t.parquet", {"image": pa.nulls(40, pa.binary(1 << 20)), "caption": ["a dog"] * 40})


def compressed_buffers(folder: Path) -> Path:
    from datasets import Dataset

    Dataset.from_dict({"image": [b"1"], "caption": ["a dog"]}).save_to_disk(str(folder / "set"))
    rows = pa.table({"image": [bytes(1 << 27)], "caption": ["a dog"]})
    arrow = next((folder / "set").glob("*.arrow"))
    with pa.ipc.new_stream(arrow, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows)
    return folder / "set"


def arrow_rows_of_nothing(folder: Path) -> Path:
    from datasets import Dataset

    Dataset.from_dict({"image": [b"1"], "caption": ["a dog"]}).save_to_disk(str(folder / "set"))
    nothing = pa.Array.from_buffers(pa.null(), (1 << 31) - 1, [None])
    rows = pa.table({"image": nothing, "caption": nothing})
    arrow = next((folder / "set").glob("*.arrow"))
    with pa.ipc.new_stream(arrow, rows.schema) as writer:
        writer.write_table(rows)
    return folder / "set"


def a_line_of_json(folder: Path) -> Path:
    return text(
        folder / "t.jsonl",
        '{"file_name": "a.png", "text": "a dog"}\n' + '{"file_name": "b.png", "note": [' + "[]," * (HUGE // 3),
    )


def deep_json(folder: Path) -> Path:
    return text(folder / "t.jsonl", '{"file_name": "a.png", "text": ' + "[" * 1_000_000)


def deep_coco(folder: Path) -> Path:
    return text(folder / "t.json", '{"images": ' + "[" * 1_000_000)


def digits(folder: Path) -> Path:
    return text(folder / "t.jsonl", '{"file_name": "a.png", "text": "a dog", "id": ' + "1" * 100_000 + "}\n")


def wide_rows(folder: Path) -> Path:
    return text(folder / "t.csv", "file_name,text" + ",x" * 500_000 + "\na.png,a dog\n")


def wide_row(folder: Path) -> Path:
    return text(folder / "t.csv", "file_name,text\na.png" + ",x" * 10_000_000 + "\n")


def marks_without_end(folder: Path) -> Path:
    return text(folder / "t.csv", 'file_name,text\na.png,"x\n' + 'b"c\n' * 100_000)


def separators(folder: Path) -> Path:
    return text(folder / "t.txt", ",." * 500_000 + "\n")


def pictures_in_text(folder: Path) -> Path:
    messages = [{"role": "user", "content": "<img>" * 200_000}, {"role": "assistant", "content": "a dog"}]
    return text(folder / "t.jsonl", json.dumps({"messages": messages, "images": ["a.png"]}) + "\n")


def a_list_in_a_cell(folder: Path) -> Path:
    return text(folder / "t.jsonl", json.dumps({"file_name": "a.png", "text": "['x'" + " " * 90_000 + "y]"}) + "\n")


def a_header_of_gigabytes(folder: Path) -> Path:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 3 << 30
    (folder / "t.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    return folder / "t.tar"


def a_picture_that_unfolds(folder: Path) -> Path:
    text(folder / "t.csv", "file_name,text\nz/a.png,a dog\n")
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as member:
        for _ in range(600):
            member.write(bytes(1 << 20))
    return folder / "t.csv"


def captions_without_end(folder: Path) -> Path:
    captions = '"a dog",' * 300_000
    return text(folder / "t.jsonl", f'{{"file_name": "a.png", "text": [{captions} "a cat"]}}\n')


def rows_of_one_picture(folder: Path) -> Path:
    """Each is a problem of its own, and tells of all."""
    return text(folder / "t.csv", "file_name,text\n" + "a.png,a dog that runs\n" * 3000)


def brackets_in_coco(folder: Path) -> Path:
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    return text(folder / "coco.json", json.dumps(coco)[:-1] + f', "x": [{"[]," * 9_000_000} []]}}')


def dots_in_toml(folder: Path) -> Path:
    return text(folder / "t.toml", "[[datasets]]\n" + ".".join("a" * 200_000) + "=1\n[[datasets.subsets]]\n")


DATA_ATTACKS: dict[Attack, str] = {
    captions_without_end: TOO_MANY,
    rows_of_one_picture: "",
    brackets_in_coco: "lists and objects",
    dots_in_toml: "dots",
    captions_in_a_dictionary: TOO_LONG,
    captions_in_pages: TOO_LONG,
    captions_by_prefix: TOO_LONG,
    one_cell: "unpacks to",
    lists_of_captions: TOO_LONG,
    lists_of_nothing: "",
    rows_of_nothing: "which is impossible",
    pictures_in_a_dictionary: "the same picture twice",
    pictures_in_one_page: "unpacks to",
    wide_values: "values of",
    compressed_buffers: "buffers are compressed",
    arrow_rows_of_nothing: "",
    a_line_of_json: "not valid JSON",
    deep_json: "not valid JSON",
    deep_coco: "",
    digits: "not valid JSON",
    wide_rows: "is a row of 2 cells",
    wide_row: "characters long",
    marks_without_end: "",
    separators: "",
    pictures_in_text: "",
    a_list_in_a_cell: "",
    a_header_of_gigabytes: "",
    a_picture_that_unfolds: "",
}
"""What makes an attack, and what is said of it."""


def long_in_jsonl(folder: Path, caption: str) -> Path:
    return text(folder / "t.jsonl", "".join(json.dumps({"file_name": n, "text": t}) + "\n" for n, t in pairs(caption)))


def long_in_json(folder: Path, caption: str) -> Path:
    return text(folder / "t.json", json.dumps([{"image": n, "caption": t} for n, t in pairs(caption)]))


def long_in_csv(folder: Path, caption: str) -> Path:
    return text(folder / "t.csv", "file_name,text\n" + "".join(f'{n},"{t}"\n' for n, t in pairs(caption)))


def long_in_tsv(folder: Path, caption: str) -> Path:
    return text(folder / "t.tsv", "file_name\ttext\n" + "".join(f"{n}\t{t}\n" for n, t in pairs(caption)))


def long_in_a_list(folder: Path, caption: str) -> Path:
    return text(folder / "t.txt", "".join(f"{n}\t{t}\n" for n, t in pairs(caption)))


def long_in_coco(folder: Path, caption: str) -> Path:
    images = [{"id": number, "file_name": name} for number, (name, _) in enumerate(pairs(caption))]
    texts = [{"id": n, "image_id": n, "caption": t} for n, (_, t) in enumerate(pairs(caption))]
    return text(folder / "t.json", json.dumps({"images": images, "annotations": texts}))


def long_in_flickr(folder: Path, caption: str) -> Path:
    return text(folder / "captions.txt", "image,caption\n" + "".join(f"{n},{t}\n" for n, t in pairs(caption)))


def long_in_parquet(folder: Path, caption: str) -> Path:
    names, texts = zip(*pairs(caption), strict=True)
    return table(folder / "t.parquet", {"image": names, "caption": texts})


def long_beside(folder: Path, caption: str) -> Path:
    for name, words in pairs(caption):
        text(folder / name.replace(".png", ".txt"), words)
    return folder


def long_in_a_tar(folder: Path, caption: str) -> Path:
    with tarfile.open(folder / "t.tar", "w") as tar:
        for name, words in pairs(caption):
            for member, data in ((name, (folder / name).read_bytes()), (name.replace(".png", ".txt"), words.encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder / "t.tar"


def long_in_a_hub_table(folder: Path, caption: str) -> Path:
    from datasets import Dataset

    names, texts = zip(*pairs(caption), strict=True)
    rows = {"image": [(folder / name).read_bytes() for name in names], "caption": texts, "file_name": names}
    Dataset.from_dict(rows).save_to_disk(str(folder / "set"))
    return folder / "set"


def pairs(caption: str) -> list[tuple[str, str]]:
    return [("a.png", "a dog runs"), ("b.png", caption), ("c.png", "a cat")]


FORMS = (
    *(long_in_jsonl, long_in_json, long_in_csv, long_in_tsv, long_in_a_list, long_in_coco, long_in_flickr),
    *(long_in_parquet, long_beside, long_in_a_tar, long_in_a_hub_table),
)


Bounded = Callable[[list[list[str]], Path], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    """What command lines do in a folder: exit code, seconds, peak MiB and what they say."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("bounded.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def run(commands: list[list[str]], folder: Path) -> list[dict[str, Any]]:
            found = []
            for words in commands:
                print(json.dumps([str(folder), words]), file=asked, flush=True)
                found.append(json.loads(answers.readline()))
            return found

        yield run
        asked.close()


def check(found: dict[str, Any], codes: tuple[int, ...], words: str = "") -> None:
    """Fail unless a command line ended with one of the codes, in time and memory, and without a traceback."""
    assert found["code"] in codes, found
    assert "Traceback" not in found["said"] and "did not expect" not in found["said"], found["said"][-2000:]
    assert words in " ".join(found["said"].split()), found["said"][-2000:]
    assert found["peak"] < MOST_MEMORY and found["seconds"] < MOST_SECONDS, (found["peak"], found["seconds"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("attack", DATA_ATTACKS, ids=lambda attack: attack.__name__)
def test_a_small_file_takes_little_memory_and_time(attack: Attack, bounded: Bounded, tmp_path: Path) -> None:
    folder = tmp_path / attack.__name__
    folder.mkdir()
    picture(folder)
    place = str(attack(folder))
    words = [["data", "check", place], ["data", "convert", place, str(folder / "out"), "--to", "csv"]]
    checked, converted = bounded(words, tmp_path)
    check(checked, (0, 2, 3), DATA_ATTACKS[attack])
    check(converted, (0, 2, 3))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("kind", ["long", "huge"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_an_overlong_caption_is_rejected_alike_in_all_forms(
    form: Callable[[Path, str], Path], kind: str, bounded: Bounded, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "abc":
        picture(folder, f"{name}.png")
    (folder / "made").rename(tmp_path / "made")
    place = form(folder, {"long": LONG, "huge": "x" * HUGE}[kind])
    [found] = bounded([["data", "check", str(place), "--rejects", str(tmp_path / "rejects.jsonl")]], tmp_path)
    check(found, (3,))
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(Path(line["id"]).stem, line["reason"]) for line in lines if line["reason"] == TOO_LONG] == [
        ("b", TOO_LONG)
    ]


def settings_that_take_long(run: Path) -> None:
    text(run / "settings.yaml", "settings: " + "1:" * 200_000 + "1\n")


def settings_that_merge(run: Path) -> None:
    lines = "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(40))
    text(run / "settings.yaml", f"a0: &a0 {{x: 1}}\n{lines}")


def settings_of_flow(run: Path) -> None:
    text(run / "settings.yaml", "[" + "1," * 200_000 + "]")


def metrics_of_lists(run: Path) -> None:
    line = '{"kind": "train", "step": %d, "loss": 1, "more": [' + "[]," * 100_000 + "[]]}\n"
    text(run / "metrics.jsonl", "".join(line % step for step in range(60)))


def a_caption_of_halves(run: Path) -> None:
    text(run / "predictions.jsonl", '{"id": "\\ud83d", "text": "a dog \\ud800", "references": ["\\udfff"]}\n')


def metrics_of_many_values(run: Path) -> None:
    values = ", ".join(f'"k{number}": [{"[]," * 20} 1]' for number in range(4000))
    text(run / "metrics.jsonl", "".join(f'{{"kind": "train", "step": {step}, {values}}}\n' for step in range(40)))
    samples = (f'{{"id": "a", "step": {step}, "text": "{"x" * 900_000}"}}\n' for step in range(60))
    text(run / "samples.jsonl", "".join(samples))


RUN_ATTACKS = (metrics_of_many_values,)
RUN_ATTACKS += (settings_that_take_long, settings_that_merge, settings_of_flow, metrics_of_lists, a_caption_of_halves)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_report_of_a_strangers_run_is_written(bounded: Bounded, tmp_path: Path) -> None:
    commands = []
    for attack in RUN_ATTACKS:
        run = tmp_path / attack.__name__
        run.mkdir()
        text(run / "metrics.jsonl", '{"kind": "train", "step": 1, "loss": 2.0}\n')
        attack(run)
        commands.append(["report", str(run)])
    for result in bounded(commands, tmp_path):
        check(result, (0,))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_what_is_scored_is_bounded(bounded: Bounded, tmp_path: Path) -> None:
    references = text(tmp_path / "r.json", json.dumps({"1": ["a dog runs"], "2": ["a cat"]}))
    predictions = {
        "long": json.dumps({"1": "x" * HUGE, "2": "a cat"}),
        "halves": '{"1": "a dog \\ud800", "2": "\\udfff a cat"}',
        "deep": "[" * 1_000_000,
        "digits": '{"1": ' + "1" * 100_000 + "}",
        "infinite": '{"1": 1e400, "2": NaN}',
    }
    commands = [
        ["score", str(text(tmp_path / f"{name}.json", content)), str(references)]
        for name, content in predictions.items()
    ]
    results = bounded(commands, tmp_path)
    for name, result in zip(predictions, results, strict=True):
        check(result, (0,) if name == "halves" else (2,))


def test_a_gzipped_log_of_a_stranger_unfolds_to_little(tmp_path: Path) -> None:
    from captrain.data.splits import FILE, read_kept_splits
    from captrain.errors import DataError

    bombs = {
        "line": b'{"split": "train", "ids": ["' + b"x" * (17 << 20),
        "lines": b'{"split": "train", "ids": ["x"], "contents": null}\n' * 400_000,
    }
    for content in bombs.values():
        (tmp_path / FILE).write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match="can't be read as the splits of a run"):
            read_kept_splits(tmp_path)


def test_a_broken_header_of_a_page_is_one_line(tmp_path: Path) -> None:
    """What a page states of its size is not believed further than the file goes."""
    from captrain.data.readers.parquet import read
    from captrain.errors import DataError
    from captrain.records import Rejects

    file = table(tmp_path / "t.parquet", {"image": ["a.png"], "caption": ["a dog"]})
    content = bytearray(file.read_bytes())
    for at in range(4, 60):
        damaged = content[:at] + struct.pack("<I", 0x7FFFFFFF) + content[at + 4 :]
        file.write_bytes(damaged)
        try:
            read(str(file), Rejects())
        except DataError as error:
            assert "\n" not in str(error)
