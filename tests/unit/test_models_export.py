"""Captioners that leave: merged or not, in any precision, as a folder, as one file, on the hub."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import transformers
import yaml
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from captrain.errors import CaptrainError, ModelError
from captrain.models.checkpoint import export as hub
from captrain.models.checkpoint.card import last_name, model_card
from captrain.models.checkpoint.export import cast_weights, export, merge_adapter
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.lora import LoraOptions, add_lora
from captrain.testing import clear_pictures, teach

CLASSES = {"blip": "BlipForConditionalGeneration", "encoder-decoder": "VisionEncoderDecoderModel"}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True, "parts": ("vision", "language")},
    "rsdora": {"rslora": True, "dora": True, "layers": ("attention",)},
    "pissa": {"start": "pissa", "layers": ("all-linear",)},
}
DECODING = Decoding(beams=2, max_new_tokens=8)
SETTINGS = {
    "captrain": {"version": "0.1.0", "torch": "2.13.0"},
    "settings": {"model": {"model": "/home/ada/models/blip", "rank": 4}, "training": {"epochs": 2}},
    "requested": {"source": "/home/ada/secret-photos"},
    "data": {"train_images": 9, "train_captions": 45},
    "parameters": {"language": {"total": 1000, "trainable": 10}},
}


@pytest.fixture(scope="module", params=list(CLASSES))
def lora_run(
    request: pytest.FixtureRequest, tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run folder whose model is an adapter, as a training leaves it. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "cats"
    captioner = load_captioner(str(tiny_folders[request.param]))
    captioner.decoding = DECODING
    add_lora(captioner, LoraOptions(4, 8, 0.1, dora=True, rslora=True))
    teach(captioner, steps=12, learning_rate=1e-2)
    save_captioner(captioner, run / "model")
    (run / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    (run / "scores.json").write_text(json.dumps({"scores": {"cider": 0.81234, "bleu_4": 0.3}, "images": 3}))
    lines = [{"kind": "train", "step": step, "loss": 5 / step} for step in range(1, 41)]
    lines += [{"kind": "validation", "step": step, "cider": step / 100} for step in (20, 40)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CLASSES)
def test_merged_equals_unmerged_through_save_and_load(
    family: str, kind: str, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    captioner = load_captioner(str(tiny_folders[family]))
    add_lora(captioner, LoraOptions(4, 8, 0.1, **KINDS[kind]))
    untaught = _logits(captioner)
    teach(captioner, steps=6, learning_rate=1e-2)
    save_captioner(captioner, tmp_path / "lora")
    expected, captions = _logits(captioner), _captions(captioner)
    assert (untaught - expected).abs().max() > 0.1

    loaded = load_captioner(str(tmp_path / "lora"))
    torch.testing.assert_close(_logits(loaded), expected, rtol=1e-5, atol=1e-5)
    merge_adapter(loaded)
    assert not any("lora" in name for name, _ in loaded.named_modules())
    torch.testing.assert_close(_logits(loaded), expected, rtol=1e-5, atol=1e-5)
    assert _captions(loaded) == captions
    save_captioner(loaded, tmp_path / "merged")
    torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "merged"))), expected, rtol=1e-5, atol=1e-5)


def test_exported_folder_is_a_plain_checkpoint(lora_run: Path, tmp_path: Path) -> None:
    assert export(str(lora_run), tmp_path / "out") == tmp_path / "out"
    captioner = load_captioner(str(lora_run))
    plain_class = getattr(transformers, CLASSES[captioner.family])
    plain, info = plain_class.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    merged = load_captioner(str(tmp_path / "out"))
    assert _captions(merged) == _captions(captioner)
    assert merged.decoding == DECODING
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weight, merged.core().state_dict()[name], msg=name)
    assert not list(tmp_path.glob(".captrain-*"))


def test_kept_adapter_travels_with_its_base(lora_run: Path, tmp_path: Path) -> None:
    export(str(lora_run), tmp_path / "out", merge=False)
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "out")
    config = json.loads((tmp_path / "elsewhere" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    moved, captioner = load_captioner(str(tmp_path / "elsewhere")), load_captioner(str(lora_run))
    torch.testing.assert_close(_logits(moved), _logits(captioner))
    plain = getattr(transformers, CLASSES[captioner.family]).from_pretrained(tmp_path / "elsewhere" / "base")
    PeftModel.from_pretrained(plain, tmp_path / "elsewhere")


def test_base_on_the_hub_stays_a_name(lora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from captrain.models.checkpoint import export as module

    captioner = load_captioner(str(lora_run))
    captioner.core().name_or_path = "ada/blip"
    captioner.model.peft_config["default"].base_model_name_or_path = "ada/blip"
    monkeypatch.setattr(module, "load_captioner", lambda source: captioner)
    export("ada/cats", tmp_path / "out", merge=False)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "ada/blip"
    assert not (tmp_path / "out" / "base").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: ada/blip" in card
    assert 'from_pretrained("ada/blip")' in card


def test_nothing_to_keep_is_said(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no adapter to keep"):
        export(str(taught_folders["blip"]), tmp_path / "out", merge=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_halves_the_weights(
    dtype: Any, kind: torch.dtype, taught_folders: dict[str, Path], tmp_path: Path
) -> None:
    source = taught_folders["blip"]
    export(str(source), tmp_path / "out", dtype=dtype)
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {kind}
    size, full = ((place / "model.safetensors").stat().st_size for place in (tmp_path / "out", source))
    assert size < 0.6 * full
    loaded, original = load_captioner(str(tmp_path / "out")), load_captioner(str(source))
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(_logits(loaded), _logits(original), rtol=0.1, atol=0.3)


def test_weight_too_large_for_fp16_is_refused(taught_folders: dict[str, Path]) -> None:
    captioner = load_captioner(str(taught_folders["blip"]))
    with torch.no_grad():
        captioner.core().vision_model.post_layernorm.weight[0] = 70000.0
    with pytest.raises(ModelError, match=r"post_layernorm\.weight has a weight that is too large for fp16 .*bf16"):
        cast_weights(captioner, "fp16")
    cast_weights(captioner, "bf16")


def test_weights_that_are_no_numbers_are_not_merged(tiny_folders: dict[str, Path]) -> None:
    captioner = load_captioner(str(tiny_folders["blip"]))
    add_lora(captioner, LoraOptions(2, 4, 0.0))
    next(w for name, w in captioner.named_parameters() if "lora_B" in name).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="can't be merged") as error:
        merge_adapter(captioner)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("merge", [True, False])
def test_one_file_loads_anywhere(merge: bool, lora_run: Path, tmp_path: Path) -> None:
    export(str(lora_run), tmp_path / "here.zip", merge=merge)
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(tmp_path / "here.zip", tmp_path / "far" / "away" / "cats.zip")
    place = str(tmp_path / "far" / "away" / "cats.zip")
    loaded, captioner = load_captioner(place), load_captioner(str(lora_run))
    torch.testing.assert_close(_logits(loaded), _logits(captioner), rtol=1e-5, atol=1e-5)
    assert _captions(loaded) == _captions(captioner)
    assert loaded.decoding == DECODING
    if not merge:
        export(place, tmp_path / "again", merge=False)
        torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "again"))), _logits(captioner))
    with zipfile.ZipFile(place) as archive:
        names = archive.namelist()
    assert {"captrain.json", "README.md", "preprocessor_config.json", "tokenizer_config.json"} <= set(names)
    assert not any(name.endswith((".bin", ".pt", ".py")) for name in names)


def test_adapter_trained_on_an_archive_refers_to_it(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    export(str(taught_folders["blip"]), tmp_path / "base.zip")
    captioner = load_captioner(str(tmp_path / "base.zip"))
    add_lora(captioner, LoraOptions(2, 4, 0.0))
    teach(captioner, steps=2)
    save_captioner(captioner, tmp_path / "lora")
    assert _captions(load_captioner(str(tmp_path / "lora"))) == _captions(captioner)


def test_damage_inside_an_archive_names_the_archive(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    from captrain.models.checkpoint.archive import write_archive

    shutil.copytree(taught_folders["blip"], tmp_path / "model")
    (tmp_path / "model" / "captrain.json").write_text("nope")
    write_archive(tmp_path / "model", tmp_path / "model.zip")
    with pytest.raises(ModelError, match=r"model\.zip/captrain\.json: not valid JSON"):
        load_captioner(str(tmp_path / "model.zip"))


def test_nothing_is_overwritten(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for out in ("model.zip", "full", "full/mine.txt"):
        with pytest.raises(ModelError, match="choose"):
            export(str(taught_folders["blip"]), tmp_path / out)
    assert (tmp_path / "model.zip").read_bytes() == b"mine"
    export(str(taught_folders["blip"]), tmp_path / "empty")
    assert load_captioner(str(tmp_path / "empty")).family == "blip"


def test_card_tells_the_run_and_no_secrets(lora_run: Path, tmp_path: Path) -> None:
    export(str(lora_run), tmp_path / "cats")
    card = (tmp_path / "cats" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["pipeline_tag"] == "image-to-text"
    assert head["library_name"] == "transformers"
    assert "base_model" not in head, "a local path names nothing to others"
    for words in (
        "# cats",
        "| CIDEr | 0.8123 |",
        "CIDEr runs from 0 to 10",
        "| trained on | 9 pictures",
        "| 40 | 0.125 |",
        "| model.model | blip |",
        "```bash\ncaptrain train ",
        "<details><summary>All settings of the training</summary>\n\n| setting |",
    ):
        assert words in card, words
    assert "captrain.load" in card
    assert "num_beams=2, max_new_tokens=8" in card
    assert "/home/ada" not in card
    assert "secret" not in card
    shown = re.sub(r"<details>.*?</details>", "", card, flags=re.DOTALL)
    assert len(shown.strip().splitlines()) < 80, "a page, with the long tables folded away"
    assert shown.index("## Use") < shown.index("## Scores") < shown.index("## Training")


def test_code_of_the_card_runs_without_captrain(lora_run: Path, tmp_path: Path) -> None:
    from PIL import Image

    export(str(lora_run), tmp_path / "cats")
    Image.fromarray(clear_pictures(1)[0]).save(tmp_path / "photo.jpg")
    code = (tmp_path / "cats" / "README.md").read_text().split("Without captrain:\n\n```python\n")[1].split("```")[0]
    program = code.replace("PLACE", str(tmp_path / "cats")) + "\nimport sys; assert 'captrain' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.strip().split()) >= 1


def test_card_without_a_run_describes_the_model(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    captioner = load_captioner(str(taught_folders["blip"]))
    captioner.prompt = "a | <b>picture</b> of"
    card = model_card(tmp_path, captioner, "cats", "Salesforce/blip-image-captioning-base")
    assert "base_model: Salesforce/blip-image-captioning-base" in card
    assert "## Scores" not in card
    assert "a \\| &lt;b>picture" in card


def test_last_name_leaves_hub_ids_alone() -> None:
    assert [last_name(name) for name in ("~/photos", "../data/x", "a/b", "cosine", "D:\\x\\y")] == [
        "photos",
        "x",
        "a/b",
        "cosine",
        "y",
    ]


# The hub.


class _Hub:
    """Stands for HfApi; keeps what was asked of it."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    failure: Exception | None = None

    def create_repo(self, repo_id: str, **options: Any) -> str:
        if self.failure is not None:
            raise self.failure
        self.calls.append((repo_id, options))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> None:
        self.calls.append((repo_id, {"files": sorted(path.name for path in Path(folder_path).iterdir())}))


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> type[_Hub]:
    monkeypatch.setattr(_Hub, "calls", [])
    monkeypatch.setattr(_Hub, "failure", None)
    monkeypatch.setattr(hub, "HfApi", _Hub)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_token")
    return _Hub


@pytest.mark.parametrize("public", [False, True])
def test_push_is_private_unless_asked(public: bool, fake_hub: type[_Hub], taught_folders: dict[str, Path]) -> None:
    assert hub.push(str(taught_folders["blip"]), "ada/cats", public=public) == "https://huggingface.co/ada/cats"
    created, uploaded = fake_hub.calls
    assert created == ("ada/cats", {"private": not public, "exist_ok": True})
    assert {"README.md", "config.json", "model.safetensors", "captrain.json"} <= set(uploaded[1]["files"])


def test_push_without_a_token_or_a_name_begins_nothing(
    fake_hub: type[_Hub], monkeypatch: pytest.MonkeyPatch, taught_folders: dict[str, Path]
) -> None:
    with pytest.raises(ModelError, match="is not a valid hub id; expected owner/name"):
        hub.push(str(taught_folders["blip"]), "ada/cats/too/deep")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(ModelError, match="no token for the model hub; run 'hf auth login'"):
        hub.push(str(taught_folders["blip"]), "ada/cats")
    assert not fake_hub.calls


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ConnectionError("no route\nto host"), "can't be reached"),
        (RuntimeError("name resolution"), "can't be reached"),
        (HfHubHTTPError("403 Forbidden", response=SimpleNamespace(headers={}, request=None)), "refused"),  # type: ignore[arg-type]
    ],
)
def test_failed_push_is_one_line(
    failure: Exception,
    message: str,
    fake_hub: type[_Hub],
    monkeypatch: pytest.MonkeyPatch,
    taught_folders: dict[str, Path],
) -> None:
    monkeypatch.setattr(fake_hub, "failure", failure)
    with pytest.raises(CaptrainError, match=message) as error:
        hub.push(str(taught_folders["blip"]), "ada/cats")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_download_takes_no_code_and_says_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def snapshot(hub_id: str, cache_dir: Path, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert hub.download_model("ada/cats", tmp_path) == str(tmp_path)
    assert len(asked) == 2, "old weights only where there are no others"
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked[0])
    (tmp_path / "model.safetensors").touch()
    hub.download_model("ada/cats", tmp_path)
    assert len(asked) == 3
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"ada/cats: can't be fetched") as error:
        hub.download_model("ada/cats", tmp_path)
    assert "\n" not in str(error.value)


def _rows(captioner: CaptionerModel) -> dict[str, Tensor]:
    return captioner.pack([[[6, 7], [8]], [[8, 9, 10]], [[7, 8]]]).to_dict()


@torch.no_grad()
def _logits(captioner: CaptionerModel) -> Tensor:
    return captioner.eval()(**_rows(captioner), pixels=torch.from_numpy(clear_pictures(3))).logits


@torch.no_grad()
def _captions(captioner: CaptionerModel) -> list[str]:
    features = captioner.eval().encode(torch.from_numpy(clear_pictures(3)))
    return [line.text for line in captioner.generate(features, DECODING)]
