"""Data sets of each form: read for training and for captioning, their pictures opened, their captions written out."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from captrain.data.dataset import list_images, read_splits
from captrain.data.images import encode_thumbnail
from captrain.data.readers import READERS
from captrain.errors import CaptrainError, PictureError
from captrain.records import Caption, Rejects, Sample, write_jsonl
from fuzz.inputs import Parser
from fuzz.workplace import work_folder

FORMS = Path(__file__).parents[2] / "contract" / "forms"
CONTENT = {
    "a dog.jpg": ("a dog runs", "a brown dog on grass"),
    "nested/cat.jpg": ("a cat sleeps",),
    "naïve 猫.jpg": ("ein Kätzchen", "猫が寝ている"),
}
MOST = 200  # samples that are looked at
LOOSE = (".jpg", ".md")
NEEDS = tuple(form.module for form in READERS.values())

Write = Callable[[Path], object]


def picture() -> bytes:
    """A small JPEG."""
    file = BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "JPEG")
    return file.getvalue()


def contract(name: str) -> Write:
    """A data set as the contract test of the readers writes it."""
    spec = importlib.util.spec_from_file_location(f"fuzz_forms_{name}", FORMS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    most = getattr(module, "MOST_CAPTIONS", None)
    return lambda folder: module.write(folder, {name: texts[:most] for name, texts in CONTENT.items()}, picture())


def pictures(folder: Path, names: Sequence[str] = tuple(CONTENT)) -> None:
    """The pictures of a data set."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture())


def file(name: str, text: str | bytes, encoding: str = "utf-8") -> Write:
    """Pictures, and one file beside them."""

    def write(folder: Path) -> None:
        pictures(folder)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))

    return write


def read_data(folder: Path, inner: str = "") -> None:
    """A data set, its form found by looking: for training, else for captioning; then all that its samples are used for."""
    rejects = Rejects()
    source = str(folder / inner)
    try:
        named: Mapping[str, Sequence[Sample]] = read_splits(source, rejects)
    except CaptrainError:
        named = {"": list_images([source], rejects)}
        if not len(named[""]):
            raise
    samples = list(itertools.islice(itertools.chain(*named.values()), MOST))
    for sample in samples:
        assert isinstance(sample.captions, tuple) and all(isinstance(text, str) for text in sample.captions), sample
        assert isinstance(sample.id, str), sample
    for sample in samples[:4]:
        _open(sample)
    with work_folder() as out:  # as predictions and lists of rejects are written
        write_jsonl(
            out / "samples.jsonl", [Caption.of(sample, " ".join(sample.captions)).to_dict() for sample in samples]
        )
        write_jsonl(out / "rejected.jsonl", [*rejects.lines, *rejects.remarks])
    if not samples:
        raise CaptrainError("nothing there")


def _open(sample: Sample) -> None:
    """As pictures are read for training: one that can't be is rejected."""
    try:
        data = sample.read()
    except OSError:
        return
    assert isinstance(data, bytes), f"{sample.id}: {type(data)}"
    try:
        encode_thumbnail(data, 16)
    except PictureError:
        return


def _preview(folder: Path) -> None:
    """A page for people; nothing of a data set becomes a tag in it. `data check` looks at the same."""
    from captrain.data.preview import write_preview

    with work_folder() as out:
        write_preview(str(folder), out / "page.html", problems=True, workers=1)
        page = (out / "page.html").read_text(encoding="utf-8").lower()
    assert page.count("<script") == page.count("</script") == 1 and "<!--" not in page, (
        "a tag of the data is in the page"
    )


def _csv(mark: str) -> str:
    rows = [
        ("file_name", "text", "split"),
        ("a dog.jpg", "a dog runs", "train"),
        ("nested/cat.jpg", "a cat, asleep", "val"),
    ]
    return "".join(mark.join(f'"{cell}"' if mark in cell else cell for cell in row) + "\n" for row in rows)


def _lavis() -> str:
    rows = [
        {"image": name, "caption": texts[0], "image_id": f"coco_{at}"}
        for at, (name, texts) in enumerate(CONTENT.items())
    ]
    return json.dumps(rows)


def _zip_beside(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in CONTENT:
            archive.writestr(name, picture())
    rows = [{"file_name": name, "text": texts[0]} for name, texts in CONTENT.items()]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _tar_beside(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "images.tar", "w") as tar:
        for name in CONTENT:
            info = tarfile.TarInfo(name)
            info.size = len(picture())
            tar.addfile(info, BytesIO(picture()))
    rows = [{"file_name": name, "text": texts[0]} for name, texts in CONTENT.items()]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _tar_texts(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, texts in CONTENT.items():
            for member, data in ((name, picture()), (name.replace(".jpg", ".txt"), texts[0].encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))


def _machine(folder: Path) -> None:
    from captrain.data.machine_captions import CaptionChange, CaptionLedger, CaptionMaker

    contract("sidecar")(folder)
    maker = CaptionMaker("runs/album", "3f9a", "2026-12-01T08:30:00Z")
    ledger = CaptionLedger(folder)
    ledger.add(CaptionChange.of("a dog.txt", "a dog.jpg", "append", "a brown dog on grass", b"a dog runs\n", maker))
    ledger.add(CaptionChange.of("b.txt", "b.jpg", "write", "x", b"\xff", maker))


def _urls(folder: Path) -> None:
    pictures(folder, ("dog.jpg", "cat.jpg"))
    (folder / "captions.tsv").write_text("caption\turl\na dog\thttp://x.org/dog.jpg\na cat\thttp://x.org/y?z=1\n")
    (folder / "map.tsv").write_text("http://x.org/y?z=1\tcat.jpg\n")


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures(folder)
    rows = {
        "file_name": list(CONTENT),
        "caption": [list(texts) for texts in CONTENT.values()],
        "split": ["train", "val", "test"],
    }
    pq.write_table(pa.table(rows), folder / "captions.parquet")


def _image_list(folder: Path) -> None:
    pictures(folder)
    (folder / "pictures.txt").write_text("\n".join(CONTENT) + "\n", encoding="utf-8")


def _read_list(folder: Path) -> None:
    """A list of pictures to caption."""
    rejects = Rejects()
    samples = list_images([str(folder / "pictures.txt")], rejects)
    for sample in itertools.islice(samples, MOST):
        _open(sample)


def _parser(name: str, read: Callable[[Path], object] = read_data, quick: int = 80, **seeds: Write) -> Parser:
    return Parser(f"data {name}", read, seeds, LOOSE, quick, NEEDS)


PAIRS = [("a dog.jpg", "a dog runs"), ("nested/cat.jpg", "a cat sleeps")]
TOKENS = "".join(f"{name}#0\t{text}\n" for name, text in PAIRS)

PARSERS = (
    _parser("jsonl", jsonl=contract("jsonl")),
    _parser("json list", lavis=contract("json"), coco_lavis=file("coco_karpathy_train.json", _lavis())),
    _parser("json objects", grouped=contract("grouped"), names=contract("names")),
    _parser("coco", coco=contract("coco")),
    _parser("karpathy", karpathy=contract("karpathy")),
    _parser("conversations", llava=contract("conversations")),
    _parser(
        "csv",
        csv=contract("csv"),
        tsv=file("metadata.tsv", _csv("\t")),
        semicolons=file("captions.csv", _csv(";")),
        pipes=file("results.csv", _csv("|")),
        utf_16=file("metadata.csv", _csv(","), "utf-16"),
        gb18030=file("metadata.csv", "\ufefffile_name,text\na dog.jpg,狗\n", "gb18030"),
    ),
    _parser("headerless", tabs=contract("headerless"), commas=file("a.csv", "a dog.jpg,a dog\nnested/cat.jpg,a cat\n")),
    _parser(
        "flickr", header=contract("flickr"), token=file("results.token", TOKENS), txt=file("Flickr8k.token.txt", TOKENS)
    ),
    _parser("addresses", tsv=_urls),
    _parser(
        "sidecar",
        txt=contract("sidecar"),
        own=file("a dog.jpg.txt", "a dog\n"),
        utf_16=file("a dog.txt", "a dog\n", "utf-16"),
    ),
    _parser("machine ledger", ledger=_machine),
    _parser("kohya json", meta=contract("kohya")),
    _parser("kohya toml", partial(read_data, inner="dataset.toml"), toml=contract("kohya-toml")),
    _parser("image list", _read_list, list=_image_list),
    _parser("tar shards", quick=60, json=contract("webdataset"), pax=_tar_texts),
    _parser("zip of pictures", zip=_zip_beside),
    _parser("tar of pictures", tar=_tar_beside),
    _parser("parquet", quick=60, pictures=contract("parquet"), names=_parquet),
    _parser("preview", _preview, 25, jsonl=contract("jsonl"), sidecar=contract("sidecar")),
    Parser(
        "data arrow",
        partial(read_data, inner="saved"),
        {"datasets": contract("datasets")},
        LOOSE,
        30,
        ("datasets",),
        True,
    ),
)
