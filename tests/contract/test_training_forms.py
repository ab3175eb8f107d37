"""What is saved is what learned: every family, started from every form of a captioner, trained by every method.

After training, the saved model's logits are those of the model in memory, and plain transformers and peft get the same.
Runs are begun and saved as `captrain train` does it, with few and plain steps between; integration tests have whole runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from captrain.data.recipe_data import load_training_splits
from captrain.models.adapters import is_adapter
from captrain.models.checkpoint.export import export
from captrain.models.checkpoint.folder import (
    load_captioner,
    save_captioner,
)
from captrain.models.contract import CaptionerModel
from captrain.models.families import FAMILIES, family_named, import_object
from captrain.models.lora import LoraOptions, add_lora
from captrain.settings.schema import Settings
from captrain.testing import clear_pictures, teach, tiny_photos, tiny_text_decoder, tiny_vision_encoder
from captrain.training.run import prepare_captioner
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.place import RunRequest

JOINED = {"encoder-decoder": {}, "prefix": {"join": "prefix"}}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "all-linear": {"lora_layers": ("all-linear",), "lora_parts": ("vision", "language")},
    "dora": {"dora": True, "rslora": True, "lora_parts": ("vision",)},
    "pissa": {"lora_init": "pissa"},
    "full": {"method": "full"},
    "frozen": {"method": "full", "freeze": ("vision",)},
    "continued": {"continue_adapter": True},
}
CASES = [
    *((family, "adapter", method) for family in FAMILIES for method in METHODS),
    *((family, "plain", method) for family in FAMILIES for method in ("lora", "full")),
    *((family, "merged", "lora") for family in FAMILIES),
    *((family, "joined", method) for family in JOINED for method in ("lora", "full")),
    *(
        (family, "joined adapter", method)
        for family in JOINED
        for method in ("lora", "all-linear", "full", "continued")
    ),
    *(("blip", "exported adapter", method) for method in ("lora", "continued")),
    *(("blip", "archived adapter", method) for method in ("lora", "full", "continued")),
]
Trained = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_photos(tmp_path_factory.mktemp("photos"), count=4, captions=2)


@pytest.fixture(scope="module")
def forms(
    tiny_folders: dict[str, Path], photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """A captioner of a family in one of the forms that people have, made when first asked for."""
    root = tmp_path_factory.mktemp("forms")

    def form(family: str, kind: str) -> Path:
        place = root / f"{family} {kind}"
        if kind == "plain":
            return tiny_folders[family]
        if kind.startswith("archived"):
            place = place.with_suffix(".zip")
        if place.exists():
            return place
        if kind.startswith("joined"):
            joined = {
                "encoder": str(tiny_vision_encoder(root / "vit")),
                "decoder": str(tiny_text_decoder(root / "gpt2")),
            }
            method = "lora" if kind == "joined adapter" else "full"
            mapper = {"prefix_length": 2} if family == "prefix" else {}
            _train(photos, place, {**joined, **JOINED[family], **mapper, "method": method})
            return place
        if kind == "adapter":
            captioner = load_captioner(str(tiny_folders[family]))
            add_lora(captioner, LoraOptions(4, 8, 0.1, parts=("vision", "language")))
            teach(captioner, steps=3, learning_rate=1e-2)
            save_captioner(captioner, place / "model")
            return place
        return export(str(form(family, "adapter")), place, merge=kind == "merged")

    return form


@pytest.mark.parametrize(("family", "form", "method"), CASES)
def test_what_is_saved_is_what_learned(
    family: str, form: str, method: str, forms: Callable[[str, str], Path], photos: Path, tmp_path: Path
) -> None:
    source = forms(family, form)
    before = _logits(load_captioner(str(source)))
    learned = _train(photos, tmp_path / "run", {"model": str(source), **METHODS[method]})
    assert (learned - before).abs().max() > 1e-3, "nothing was learned"
    loaded = load_captioner(str(tmp_path / "run"))
    torch.testing.assert_close(_logits(loaded), learned, rtol=1e-5, atol=1e-5)
    plain = _by_plain_libraries(loaded, tmp_path / "run" / "model")
    torch.testing.assert_close(_logits(plain), learned, rtol=1e-5, atol=1e-5)
    assert is_adapter(str(tmp_path / "run" / "model")) == ("method" not in METHODS[method])
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    torch.testing.assert_close(_logits(load_captioner(str(tmp_path / "elsewhere"))), learned, rtol=1e-5, atol=1e-5)


def _train(photos: Path, out: Path, model: dict[str, Any]) -> Tensor:
    """A run that begins, learns a little and is saved; the logits of the captioner in memory."""
    settings = Settings.model_validate({"model": {"device": "cpu", "precision": "fp32", **model}})
    run = RunFolder(out)
    run.claim(RunRequest(str(photos), settings.requested()))
    captioner, _ = prepare_captioner(settings, load_training_splits(settings, str(photos)), run)
    teach(captioner, steps=2, learning_rate=1e-2)
    run.save_model(captioner)
    return _logits(captioner)


@torch.no_grad()
def _logits(captioner: CaptionerModel) -> Tensor:
    captioner.eval()
    rows = captioner.pack([[[6, 7], [8]], [[8, 9, 10]]]).to_dict()
    return captioner(**rows, pixels=torch.from_numpy(clear_pictures(2))).logits


def _by_plain_libraries(like: CaptionerModel, folder: Path) -> CaptionerModel:
    """The same captioner, its weights loaded by transformers and peft alone."""
    family = family_named(like.family)
    plain = import_object(next(iter(family.checkpoints.values())))
    config = folder / "adapter_config.json"
    base = json.loads(config.read_text())["base_model_name_or_path"] if config.is_file() else folder
    captioner = family.captioner_class()(plain.from_pretrained(base), like.tokenizer, like.image_spec)
    captioner.prompt = like.prompt
    if config.is_file():
        captioner.model = PeftModel.from_pretrained(captioner.model, folder)
    return captioner
