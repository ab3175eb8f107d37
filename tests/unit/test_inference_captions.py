"""Captions for files, scores of a data set, and the writer in Python, on a captioner that knows what it says."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captrain
from captrain.data.images import prepare, prepare_image
from captrain.disk.locks import locked
from captrain.errors import DataError, ModelError, PictureError, SettingsError, UserError
from captrain.features.stream import Computing
from captrain.inference import caption_files as caption_module
from captrain.inference import captioner as captioner_module
from captrain.inference.caption_files import CaptionOutcome, CaptionOutput, caption_files
from captrain.inference.captioner import Captioner, adjust_decoding
from captrain.inference.evaluate import Evaluation, evaluate
from captrain.inference.evaluation_data import EvaluationData
from captrain.inference.sidecar_captions import Beside
from captrain.models.decoding import Decoding
from captrain.records import Caption, Sample
from captrain.testing import LESSONS, clear_pictures

LIMIT = 1_000_000
COMPUTING = Computing(device="cpu", precision="fp32", max_pixels=LIMIT)


@pytest.fixture(scope="module")
def model(taught_folders: dict[str, Path]) -> str:
    return str(taught_folders["blip"])


@pytest.fixture(scope="module")
def writer(model: str) -> Captioner:
    return Captioner.load(model, device="cpu", precision="fp32")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures that the model has a sentence for; the working folder is elsewhere."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(clear_pictures(8)[:4]):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def _caption(model: str, photos: Path, decoding: dict[str, Any] | None = None, **where: Any) -> CaptionOutcome:
    to = CaptionOutput(**where)
    return caption_files(model, [str(photos)], to, computing=replace(COMPUTING, batch_size=3), decoding=decoding or {})


def _texts(photos: Path, extension: str = ".txt") -> list[str]:
    return [(photos / f"{number}{extension}").read_text(encoding="utf-8") for number in range(4)]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_text_file_beside_each_picture(model: str, photos: Path) -> None:
    assert _caption(model, photos) == CaptionOutcome(4, 0, 0, None)
    assert _texts(photos) == [f"{lesson}\n" for lesson in LESSONS[:4]]
    assert not list(photos.glob("*.tmp"))


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ("skip", "mine\n"),
        ("overwrite", f"{LESSONS[1]}\n"),
        ("append", f"mine\n{LESSONS[1]}\n"),
        ("prepend", f"{LESSONS[1]}\nmine\n"),
    ],
)
def test_existing_text_files(model: str, photos: Path, existing: str, expected: str) -> None:
    (photos / "1.txt").write_text("mine\n", encoding="utf-8")
    outcome = _caption(model, photos, existing=existing)
    assert _texts(photos) == [f"{LESSONS[0]}\n", expected, f"{LESSONS[2]}\n", f"{LESSONS[3]}\n"]
    assert (outcome.written, outcome.skipped) == ((3, 1) if existing == "skip" else (4, 0))


def test_other_extension_leaves_text_files_alone(model: str, photos: Path) -> None:
    (photos / "1.txt").write_text("mine\n")
    _caption(model, photos, extension="caption")
    assert _texts(photos, ".caption")[1] == f"{LESSONS[1]}\n"
    assert (photos / "1.txt").read_text() == "mine\n"


def test_nothing_to_do_loads_no_model(model: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no model has is an error all the same."""
    _caption(model, photos)
    monkeypatch.setattr(Captioner, "load", None)
    assert _caption(model, photos) == CaptionOutcome(0, 4, 0, None)
    with pytest.raises(ModelError, match="no/such-model: can't be loaded: no folder of this name"):
        _caption("no/such-model", photos)


def test_two_pictures_of_one_stem_do_not_share_a_text_file(model: str, photos: Path) -> None:
    Image.fromarray(clear_pictures(8)[4]).save(photos / "1.bmp")
    outcome = _caption(model, photos)
    assert (outcome.written, outcome.skipped, outcome.rejected) == (4, 0, 1)
    assert outcome.rejects_file is not None
    (line,) = _lines(outcome.rejects_file)
    assert "would share 1.txt with" in line["reason"]


def test_bad_picture_is_listed_and_the_rest_goes_on(model: str, photos: Path) -> None:
    (photos / "2.png").write_bytes(b"")
    outcome = _caption(model, photos)
    assert (outcome.written, outcome.rejected) == (3, 1)
    assert not (photos / "2.txt").exists()
    assert (photos / "3.txt").read_text() == f"{LESSONS[3]}\n"
    assert outcome.rejects_file is not None and outcome.rejects_file.resolve().parent != photos
    assert _lines(outcome.rejects_file)[0]["id"] == "2.png"


def test_two_at_once_in_one_working_folder_keep_both_lists(model: str, photos: Path) -> None:
    (photos / "2.png").write_bytes(b"")
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with locked(Path("captrain-rejected.jsonl")):
            held.set()
            done.wait(60)

    process = threading.Thread(target=other)
    process.start()
    held.wait(60)
    outcome = _caption(model, photos)
    done.set()
    process.join()
    assert outcome.rejects_file == Path("captrain-rejected-2.jsonl")
    assert [path.name for path in Path().iterdir()] == ["captrain-rejected-2.jsonl"]


def test_a_working_folder_that_cannot_be_written_loses_no_reasons(
    model: str, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a person without rights has it; these tests may run as one who has all."""
    (photos / "2.png").write_bytes(b"")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != Path())

    def refused(path: Path, lines: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(caption_module, "write_jsonl", refused)
    outcome = _caption(model, photos)
    assert (outcome.written, outcome.rejected, outcome.rejects_file) == (3, 1, None)
    assert "no list at captrain-rejected.jsonl (Permission denied): 2.png: " in caplog.text


@pytest.mark.parametrize(("existing", "told"), [("skip", "goes on with the rest"), ("overwrite", "begins again")])
def test_who_interrupts_is_told_what_the_same_command_does(
    model: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    existing: str,
    told: str,
) -> None:
    put = Beside.put

    def interrupted(self: Beside, sample: Sample, caption: Caption) -> None:
        if sample.id == "2.png":
            raise KeyboardInterrupt
        put(self, sample, caption)

    monkeypatch.setattr(Beside, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _caption(model, photos, existing=existing)
    assert f"captions that are written stay; the same command {told}" in caplog.text
    monkeypatch.setattr(Beside, "put", put)
    assert _caption(model, photos, existing=existing).written == (2 if existing == "skip" else 4)


def test_one_file_for_all(model: str, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "captions.jsonl"
    assert _caption(model, photos, path=output).written == 4
    lines = _lines(output)
    assert [(line["id"], line["text"]) for line in lines] == [(f"{n}.png", LESSONS[n]) for n in range(4)]
    assert all(-1 < line["score"] < 0 for line in lines)
    assert [path.name for path in output.parent.iterdir()] == ["captions.jsonl"]
    assert not list(photos.glob("*.txt"))


def test_finished_file_is_skipped_extended_or_overwritten(model: str, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    output.write_text('{"id": "0.png", "text": "mine"}\n{"id": "gone.png", "text": "old"}\n')
    outcome = _caption(model, photos, path=output)
    assert (outcome.written, outcome.skipped) == (3, 1)
    assert {line["id"]: line["text"] for line in _lines(output)} == {
        "0.png": "mine", "gone.png": "old", **{f"{n}.png": LESSONS[n] for n in (1, 2, 3)}
    }  # fmt: skip
    _caption(model, photos, path=output, existing="overwrite")
    assert [line["text"] for line in _lines(output)] == list(LESSONS[:4])


def test_interrupted_file_is_continued(model: str, photos: Path, tmp_path: Path) -> None:
    """What a `kill -9` left: whole lines stay as they are, the half one is written again."""
    output = tmp_path / "captions.jsonl"
    partial = tmp_path / "captions.jsonl.partial"
    partial.write_text('{"id": "0.png", "text": "before the crash"}\n{"id": "1.png", "te', encoding="utf-8")
    outcome = _caption(model, photos, path=output)
    assert (outcome.written, outcome.skipped) == (3, 1)
    assert [line["text"] for line in _lines(output)] == ["before the crash", *LESSONS[1:4]]
    assert not partial.exists()


def test_append_to_one_file_is_refused(model: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--existing append is for text files"):
        _caption(model, photos, path=tmp_path / "captions.jsonl", existing="append")


def test_decoding_can_be_changed(model: str, photos: Path) -> None:
    _caption(model, photos, decoding={"max_new_tokens": 2})
    assert _texts(photos)[1] == " ".join(LESSONS[1].split()[:2]) + "\n"
    with pytest.raises(SettingsError, match=r"'beam' is unknown.*Did you mean 'beams'"):
        _caption(model, photos, decoding={"beam": 2}, existing="overwrite")


@pytest.mark.parametrize(
    ("decoding", "found"),
    [
        ({"top_p": 0.5}, "top_p 0.5"),
        ({"top_p": 0.9, "temperature": 2.0}, "top_p 0.9, temperature 2.0"),
        ({"temperature": 0.5, "sample": False}, "temperature 0.5"),
    ],
)
def test_settings_of_sampling_go_with_sampling(writer: Captioner, decoding: dict, found: str) -> None:
    picture = Image.fromarray(clear_pictures(1)[0])
    with pytest.raises(SettingsError, match=f"^found {found}, which means nothing without sampling; expected --sample"):
        writer(picture, **decoding)
    writer(picture, **{**decoding, "sample": True})


def test_a_model_that_samples_takes_settings_of_sampling() -> None:
    samples = Decoding(sample=True)
    assert adjust_decoding(samples, {"top_p": 0.5}).top_p == 0.5
    with pytest.raises(SettingsError, match="means nothing without sampling"):
        adjust_decoding(samples, {"top_p": 0.5, "sample": False})


@pytest.fixture
def references(photos: Path) -> Path:
    """Right references for pictures 0 and 1, wrong ones for 2, none for 3."""
    texts = {0: [LESSONS[0]], 1: [LESSONS[1], "something else"], 2: ["no word of it"], 3: []}
    lines = [json.dumps({"file_name": f"{number}.png", "captions": captions}) for number, captions in texts.items()]
    (photos / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return photos


def _evaluate(model: str, data: Path, output: Path | None = None, limit: int | None = None) -> Evaluation:
    return evaluate(model, EvaluationData(str(data), limit=limit), output=output, computing=COMPUTING)


def test_evaluation_scores_what_can_be_scored(model: str, references: Path, tmp_path: Path) -> None:
    found = _evaluate(model, references, output=tmp_path / "scores")
    predictions = _lines(tmp_path / "scores" / "predictions.jsonl")
    assert [(line["id"], line["text"]) for line in predictions] == [(f"{n}.png", LESSONS[n]) for n in range(3)]
    assert predictions[1]["references"] == [LESSONS[1], "something else"]
    assert (found.images, found.rejected) == (3, 1)
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["images"] == 3
    assert 0 < found.scores["bleu_4"] < 1
    right = _evaluate(model, references, limit=2)
    assert right.scores["bleu_4"] > found.scores["bleu_4"]
    assert right.scores["bleu_1"] == pytest.approx(1.0)
    assert right.predictions == []


def test_evaluation_rejects_bad_pictures(model: str, references: Path, tmp_path: Path) -> None:
    (references / "0.png").write_bytes(b"nonsense")
    found = _evaluate(model, references, output=tmp_path / "scores")
    assert found.images == 2
    assert {line["id"] for line in _lines(tmp_path / "scores" / "rejected.jsonl")} == {"0.png", "3.png"}
    for number in (1, 2):
        (references / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 3 pictures could be captioned"):
        _evaluate(model, references)


def test_evaluation_without_references_is_refused(model: str, photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png"}\n')
    with pytest.raises(DataError):
        _evaluate(model, photos)


def test_writer_takes_paths_bytes_and_images(writer: Captioner, photos: Path) -> None:
    path = photos / "1.png"
    with Image.open(path) as image:
        image.load()
    pictures = [str(path), path, path.read_bytes(), image]
    captions = writer.caption(pictures, batch_size=3)
    assert {caption.text for caption in captions} == {LESSONS[1]}
    assert [caption.id for caption in captions] == [str(path), str(path), "2", "3"]
    assert len({round(caption.score or 0, 5) for caption in captions}) == 1
    assert writer(path) == LESSONS[1]
    assert writer(path, max_new_tokens=1) == LESSONS[1].split()[0]
    assert writer.caption([]) == []


def test_pictures_are_decoded_by_threads_and_images_are_not_encoded_again(
    writer: Captioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def noted(picture: Any, *rest: Any) -> Any:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return prepare_image(picture, *rest) if isinstance(picture, Image.Image) else prepare(picture, *rest)

    monkeypatch.setattr(captioner_module, "prepare", noted)
    monkeypatch.setattr(captioner_module, "prepare_image", noted)
    monkeypatch.setattr(Image.Image, "save", lambda *_: pytest.fail("encoded"))
    images = [Image.open(photos / f"{number}.png") for number in range(4)]
    captions = writer.caption([*images, *(photos / f"{number}.png" for number in range(4))], batch_size=3)
    assert [caption.text for caption in captions] == 2 * list(LESSONS[:4])
    assert writer.map({"image": images})["caption"] == list(LESSONS[:4])
    assert threads == {"captrain-decode"}


def test_captions_are_the_same_in_any_batch_and_in_order(writer: Captioner, tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture) for picture in clear_pictures(8)]
    expected = [writer(picture) for picture in pictures]
    for size in (1, 2, 3, 8):
        assert [caption.text for caption in writer.caption(pictures, batch_size=size)] == expected, size


def test_writer_takes_images_of_every_mode(writer: Captioner, photos: Path) -> None:
    with Image.open(photos / "1.png") as image:
        for mode in ("RGBA", "P", "CMYK", "HSV"):
            assert writer(image.convert(mode)) == LESSONS[1], mode
        with pytest.raises(PictureError, match="0: has floating-point pixels"):
            writer(image.convert("F"))


def test_writer_sets_opened_photos_upright(writer: Captioner, photos: Path) -> None:
    """As a phone stores them: turned, and a note in the EXIF block on how to turn them back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photos / "1.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.jpg", quality=100, exif=exif)
    with Image.open(photos / "turned.jpg") as turned:
        assert writer(turned) == writer(photos / "turned.jpg") == LESSONS[1]


def test_writer_names_a_bad_picture(writer: Captioner, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: no such picture"):
        writer("nowhere.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(PictureError, match=r"bad\.png: is empty"):
        writer(tmp_path / "bad.png")
    with pytest.raises(PictureError, match="can't be read"):
        writer(tmp_path)
    with pytest.raises(SettingsError, match="Did you mean 'beams'"):
        writer(b"", beam=3)


def test_load_is_all_that_a_script_needs(model: str, photos: Path) -> None:
    assert captrain.load(model, device="cpu")(photos / "0.png") == LESSONS[0]
    with pytest.raises(ModelError, match="no such folder"):
        captrain.load("./nowhere")


def test_bf16_writes_what_fp32_writes(model: str, photos: Path) -> None:
    lowered = Captioner.load(model, device="cpu", precision="bf16")
    captions = lowered.caption([photos / f"{number}.png" for number in range(4)])
    assert [caption.text for caption in captions] == list(LESSONS[:4])
