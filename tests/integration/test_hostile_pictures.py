"""Pictures that would take the machine's memory or time: refused with one line, or read within bounds; the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_pictures import HONEST, MAKERS, png, saved, solid_gif, solid_jpeg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from run_tools import QUICK, Cli, lines_of

from captrain import memory_budget
from captrain.data import decode
from captrain.data import decode as upright
from captrain.data.images import ImageSpec, prepare
from captrain.errors import PictureError, SettingsError
from captrain.memory_budget import Budget, budget, counted, take
from captrain.picture_memory import MAX_PIXELS, bytes_beside, bytes_to_decode, least_length
from captrain.records import LARGEST_PICTURE, Sample
from captrain.report.pictures import thumbnail as small
from captrain.testing import tiny_photos

MB = 1_000_000
MOST = 220  # MB that a hostile picture may take: what is harmless, and a strip
SECONDS = 10
HALF = (0.5, 0.5, 0.5)
SPEC = ImageSpec(384, 384, HALF, HALF)

MEASURE = """
import json, re, sys, time
sys.path.insert(0, sys.argv[1])
from hostile_pictures import HONEST, MAKERS
from captrain.data.images import ImageSpec, prepare
from captrain.errors import PictureError

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6

for name, make in {**MAKERS, **HONEST}.items():
    data = make()
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
    before, start = memory("VmRSS"), time.process_time()
    try:
        prepare(data, ImageSpec(384, 384, (0.5,) * 3, (0.5,) * 3))
        reason = ""
    except PictureError as error:
        reason = str(error)
    line = {"peak": memory("VmHWM") - before, "seconds": time.process_time() - start, "reason": reason, "bytes": len(data)}
    print(json.dumps({"name": name, **line}), flush=True)
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """What each hostile picture takes in a process of its own that has no more than 4 GB of addresses."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a process's memory and forgets it when asked to")
    script = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n{MEASURE}"
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", MAKERS)
def test_no_picture_takes_more_memory_or_time_than_is_bearable(name: str, measured: dict[str, dict[str, Any]]) -> None:
    line = measured[name]
    assert line["peak"] < MOST, line
    assert line["seconds"] < SECONDS, line
    assert "\n" not in line["reason"]


REFUSED = {
    "gif of a large screen": "unfolds to",
    "png palette": "unfolds to",
    "png rgba": "unfolds to",
    "webp lossless solid": "unfolds to",
    "webp of a large canvas": "unfolds to",
    "avif that says a larger size": "unfolds to",
    "tiff one bit of group 4": "unfolds to",
    "jpeg of 631 bytes": "is truncated",
    "jpeg progressive header": "is truncated",
    "gif of 42 bytes": "is truncated",
    "png header": "is truncated",
    "tiff header": "is truncated",
    "webp that promises more bytes": "is truncated",
    "webp behind another chunk": "is broken",
    "png tall": "has an edge of",
    "tiff of overlapping tiles": "has 1000000000000 pixels",
    "jpeg of more exif blocks": "has 26",
    "jpeg of thousands of scans": "has 3006 scans",
    **{name: "is not a JPEG" for name in MAKERS if name.startswith("a ")},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(PictureError, match=f"^{REFUSED[name]}"):
        prepare(MAKERS[name](), SPEC)


@pytest.mark.parametrize("name", MAKERS)
def test_a_report_does_not_wait_for_any(name: str) -> None:
    data, begun = MAKERS[name](), time.process_time()
    small(data)
    assert time.process_time() - begun < SECONDS


@pytest.mark.parametrize(
    "name", ["png just harmless", "webp lossless just harmless", "gif of a screen just harmless", "png rather tall"]
)
def test_what_takes_little_memory_is_read(name: str) -> None:
    assert prepare(MAKERS[name](), SPEC).shape == (384, 384, 3)


def test_what_takes_little_memory_is_read_in_a_crop() -> None:
    """A strip of 1 to 100,000 would be scaled to 150 million pixels before its middle is cut out."""
    spec = ImageSpec(384, 384, HALF, HALF, resize="crop")
    assert prepare(MAKERS["png rather tall"](), spec).shape == (384, 384, 3)


# Honest pictures: one colour is what compresses best.

EDGES = st.one_of(st.integers(1, 60), st.integers(900, 1_800))
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {"compress_level": 9}),
    "png optimized": ("PNG", {"optimize": True}),
    "gif": ("GIF", {}),
    "jpeg": ("JPEG", {"quality": 1, "optimize": True}),
    "jpeg progressive": ("JPEG", {"quality": 1, "progressive": True}),
    "jpeg 4:4:4": ("JPEG", {"quality": 1, "subsampling": 0, "optimize": True, "progressive": True}),
    "tiff": ("TIFF", {}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff packbits": ("TIFF", {"compression": "packbits"}),
    "tiff zstd": ("TIFF", {"compression": "zstd"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {"quality": 0, "method": 0}),
    "webp lossless": ("WEBP", {"lossless": True, "method": 0}),
}
MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "GIF": ("L", "P"), "JPEG": ("L", "RGB", "CMYK"),
         "TIFF": ("1", "L", "RGB", "RGBA", "I;16", "CMYK"), "BMP": ("1", "L", "RGB"), "WEBP": ("RGB", "RGBA")}  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(form=st.sampled_from(sorted(FORMS)), width=EDGES, height=EDGES, choice=st.data())
def test_one_colour_of_any_size_is_read(form: str, width: int, height: int, choice: st.DataObject) -> None:
    format, options = FORMS[form]
    mode = choice.draw(st.sampled_from(MODES[format]))
    if form == "tiff jpeg" and mode not in ("L", "RGB", "CMYK"):
        mode = "RGB"
    colour = choice.draw(st.sampled_from([0, 128, 255]))
    image = Image.new("L", (width, height), colour)
    image = (
        Image.new("I;16", (width, height), colour * 257)
        if mode == "I;16"
        else image.convert(mode, dither=Image.Dither.NONE)
    )
    data = saved(image, format, **options)
    with Image.open(BytesIO(data)) as opened:
        assert least_length(opened) <= len(data)
    assert np.ptp(prepare(data, SPEC)) <= 3  # of a lossy one


@pytest.mark.parametrize("edge", [2_000, 4_100, 6_000, 6_300])
def test_one_colour_is_read_up_to_forty_million_pixels(edge: int) -> None:
    for data in (
        png((edge, edge)),
        png((edge, edge), kind=3),
        png((edge, edge), kind=0, bits=1),
        solid_jpeg(edge, edge),
    ):
        opened = decode._open(decode._decoder_of(data), data, MAX_PIXELS)
        assert least_length(opened) <= len(data)
        decode._check(opened, data, MAX_PIXELS)
    assert len(np.unique(prepare(solid_gif(edge, edge // 2), SPEC))) == 1


def test_who_raises_the_limit_means_it() -> None:
    data = png((15_000, 14_000), kind=0, bits=1)
    with pytest.raises(PictureError, match="over the limit of 200000000"):
        prepare(data, SPEC)
    decode._check(decode._open(decode._decoder_of(data), data, 300_000_000), data, 300_000_000)


def test_readers_with_a_limit_of_pillows_own_follow_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    scene = Image.linear_gradient("L").convert("RGB")
    for format, options in (("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("BMP", {})):
        assert prepare(saved(scene, format, **options), SPEC).shape == (384, 384, 3)
        assert decode.stored_size(saved(scene, format, **options)) == (256, 256)
    assert Image.MAX_IMAGE_PIXELS == 100


# Conversions by strips.


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    orientation=st.integers(1, 8),
    clear=st.booleans(),
    seed=st.integers(0, 9),
)
@example(mode="RGB", width=7, height=5, orientation=7, clear=False, seed=0)
def test_strips_give_the_same_pixels(
    mode: str, width: int, height: int, orientation: int, clear: bool, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA")
    if mode.startswith("I"):
        image = Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0]).convert(mode)
    elif mode != "RGBA":
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert("RGB").convert(mode)
    if clear and mode in ("L", "P", "RGB"):
        image.info["transparency"] = (1, 2, 3) if mode == "RGB" else 3
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = upright.to_rgb(image)
    whole.info["exif"] = exif.tobytes()
    plain = ImageOps.exif_transpose(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upright, "WHOLE", 1)
        patch.setattr(upright, "STRIP", 64)
        strips = upright.to_rgb(image, orientation)
    assert strips.size == plain.size
    assert strips.tobytes() == plain.tobytes()


# The budget.


@pytest.mark.parametrize("name", HONEST)
def test_what_is_counted_is_no_less_than_what_is_taken(name: str, measured: dict[str, dict[str, Any]]) -> None:
    data, line = HONEST[name](), measured[name]
    assert line["reason"] == ""
    image = decode._open(decode._decoder_of(data), data, MAX_PIXELS)
    needed = bytes_to_decode(image, bytes_beside(image), turned=False)
    assert line["peak"] * MB < needed + 45 * MB  # strips, and libraries that are loaded now


def test_shares_never_exceed_the_budget_and_all_get_theirs() -> None:
    shared, seen, lock = Budget(100), [], threading.Lock()
    inside: list[int] = []

    def work(size: int) -> None:
        shared.take(size)
        with lock:
            inside.append(size)
            seen.append((sum(inside), len(inside)))
        time.sleep(0.001)
        with lock:
            inside.remove(size)
        shared.give_back(size)

    sizes = [int(size) for size in np.random.default_rng(0).integers(1, 130, 200)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, sizes))
    assert len(seen) == len(sizes)
    assert shared.taken == 0
    assert all(total <= 100 or count == 1 for total, count in seen)
    assert max(count for _, count in seen) > 1


def test_a_large_share_is_not_passed_by_small_ones_for_ever() -> None:
    shared, order = Budget(100), []
    shared.take(50)
    large = threading.Thread(target=lambda: (shared.take(90), order.append("large"), shared.give_back(90)))
    large.start()
    while not shared._waiting:
        time.sleep(0.001)
    small = threading.Thread(target=lambda: (shared.take(10), order.append("small"), shared.give_back(10)))
    small.start()
    time.sleep(0.02)
    assert order == []
    shared.give_back(50)
    large.join(5)
    small.join(5)
    assert order == ["large", "small"]


def fresh(patch: pytest.MonkeyPatch, **environment: str) -> Budget:
    for name in (memory_budget.SETTING, "LOCAL_WORLD_SIZE"):
        patch.delenv(name, raising=False)
    for name, value in environment.items():
        patch.setenv(name, value)
    budget.cache_clear()
    memory_budget.most_for_one.cache_clear()
    return budget()


@pytest.fixture
def _forgetful() -> Any:
    yield
    budget.cache_clear()
    memory_budget.most_for_one.cache_clear()


@pytest.mark.usefixtures("_forgetful")
def test_the_budget_is_a_share_of_memory_or_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "memory", lambda: 8_000 * MB)
    assert fresh(monkeypatch).size == 2_000 * MB
    assert memory_budget.most_for_one() == 4_000 * MB
    assert fresh(monkeypatch, LOCAL_WORLD_SIZE="4").size == 500 * MB
    memory_budget.share_with(8)
    assert budget().size == 250 * MB
    assert fresh(monkeypatch, CAPTRAIN_PICTURE_MEMORY="6000").size == 6_000 * MB
    assert memory_budget.most_for_one() == 6_000 * MB
    assert fresh(monkeypatch, CAPTRAIN_PICTURE_MEMORY="6000", LOCAL_WORLD_SIZE="2").size == 3_000 * MB
    for wrong in ("0", "-1", "2GB", "1.5"):
        with pytest.raises(SettingsError, match=r"CAPTRAIN_PICTURE_MEMORY=.*: expected a whole number of MB"):
            fresh(monkeypatch, CAPTRAIN_PICTURE_MEMORY=wrong)


@pytest.mark.usefixtures("_forgetful")
def test_a_machine_with_little_memory_refuses_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "memory", lambda: 100 * MB)
    fresh(monkeypatch)
    with pytest.raises(
        PictureError, match=r"^needs more memory to decode \(64 MB\) than a picture may take here \(50 MB\)"
    ):
        prepare(saved(Image.new("RGB", (4_000, 4_000)), "BMP"), SPEC)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("3000\n")
    older = tmp_path / "memory" / "a"
    older.mkdir(parents=True)
    (older / "memory.limit_in_bytes").write_text("2000\n")
    (tmp_path / "of").write_text("12:cpu,memory:/a\n4:cpuset:/b\n0::/outer/inner\n")
    assert list(memory_budget._group_limits(tmp_path, tmp_path / "of")) == [2000, 3000]
    assert list(memory_budget._group_limits(tmp_path, tmp_path / "missing")) == []


@pytest.mark.usefixtures("_forgetful")
def test_pictures_wait_for_each_other_and_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    of_process = fresh(monkeypatch, CAPTRAIN_PICTURE_MEMORY="60")
    data, taken, load = solid_jpeg(3_000, 3_000), [], decode._JpegFile.load

    def spy(image: Any) -> Any:
        if image.tile:
            taken.append(of_process.taken)
        return load(image)

    monkeypatch.setattr(decode._JpegFile, "load", spy)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: prepare(data, SPEC), range(16)))
    assert len(taken) == 16
    assert max(taken) <= 60 * MB  # of 45 each: one at a time
    assert of_process.taken == 0
    for broken in (data[: len(data) // 2], data[:-2]):
        with pytest.raises(PictureError):
            prepare(broken, SPEC)
    assert of_process.taken == 0
    with counted(), counted():
        take(7)
        take(5)
        assert of_process.taken == 5
    assert of_process.taken == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.usefixtures("_forgetful")
def test_a_forked_process_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    of_process = fresh(monkeypatch, CAPTRAIN_PICTURE_MEMORY="10")
    script = (
        "import os; from captrain.memory_budget import budget, take, counted\n"
        "with counted():\n"
        " take(9_000_000)\n"
        " child = os.fork()\n"
        " if child == 0:\n"
        "  free = budget().taken == 0\n"
        "  os._exit(0 if free else 1)\n"
        " assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    assert of_process.taken == 0
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# Commands: what is refused is listed, all else is done.

FEW = (
    "gif of a large screen",
    "png palette",
    "jpeg of 631 bytes",
    "webp lossless solid",
    "png tall",
    "jpeg of thousands of scans",
)
ENDINGS = {"gif": ".gif", "png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def test_a_file_of_gigabytes_that_holds_nothing_is_not_read(tmp_path: Path) -> None:
    place = tmp_path / "hollow.png"
    with place.open("wb") as file:
        file.truncate(LARGEST_PICTURE + 1)
    with pytest.raises(OSError, match=f"over {LARGEST_PICTURE} bytes"):
        Sample("hollow.png", place, (), "").read()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six good pictures, and hostile ones, all with captions."""
    folder = tmp_path / "photos"
    tiny_photos(folder, count=6)
    with (folder / "metadata.jsonl").open("a") as file:
        for name in FEW:
            path = folder / (name.replace(" ", "-") + ENDINGS[name.split()[0]])
            path.write_bytes(MAKERS[name]())
            file.write(json.dumps({"file_name": path.name, "captions": ["a trap"]}) + "\n")
    return folder


def hostile(lines: list[dict[str, Any]]) -> list[str]:
    return sorted(Path(line["id"]).stem.replace("-", " ") for line in lines)


def test_captions_of_the_others_are_written(photos: Path, blip: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("caption", blip, photos, "--device cpu --precision fp32 --output captions.jsonl --max-new-tokens 4")
    assert done.code == 3, done.err
    assert "Traceback" not in done.err and "Warning" not in done.err
    assert len(lines_of(tmp_path / "captions.jsonl")) == 6
    for name in FEW:
        assert name.replace(" ", "-") in done.err + "".join(path.read_text() for path in tmp_path.glob("*rejected*"))


def test_training_goes_on_without_them(photos: Path, blip: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("train", photos, "run --model", blip, QUICK, "--epochs 1")
    assert done.code in (0, 3), done.err
    assert "Traceback" not in done.err
    assert hostile(lines_of(tmp_path / "run" / "rejected.jsonl")) == sorted(FEW)


def test_check_names_them_and_preview_shows_the_others(photos: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("data check", photos)
    assert "Traceback" not in done.err
    found = {
        line["id"]: line["problem"] for line in lines_of(tmp_path / "check-rejected.jsonl") if line["grade"] == "wrong"
    }
    assert sorted(Path(name).stem.replace("-", " ") for name in found) == sorted(FEW)
    assert found["png-palette.png"] == "too-large" and found["jpeg-of-631-bytes.jpg"] == "truncated"
    shown = cli("data preview", photos, "page.html")
    assert "Traceback" not in shown.err, shown.err
    assert (tmp_path / "page.html").read_text().count("data:image") >= 6


def test_conversion_leaves_them_out(photos: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("data convert", photos, "out --to coco --images encode --max-side 64")
    assert done.code == 3, done.err
    assert hostile(lines_of(tmp_path / "out" / "rejected.jsonl")) == sorted(FEW)
    copied = cli("data convert", photos, "copied --to coco")
    assert "Traceback" not in copied.err
