"""What captrain writes is theirs: plain transformers and plain peft load it and write the same captions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.lora import LoraOptions, add_lora
from captrain.testing import LESSONS, clear_pictures, teach

CLASSES = {"blip": "BlipForConditionalGeneration", "encoder-decoder": "VisionEncoderDecoderModel"}
DECODING = Decoding(beams=3, max_new_tokens=12)


@pytest.mark.parametrize("family", CLASSES)
def test_full_run_is_a_plain_checkpoint(family: str, taught_folders: dict[str, Path]) -> None:
    folder = taught_folders[family]
    assert json.loads((folder / "config.json").read_text())["architectures"] == [CLASSES[family]]
    plain = getattr(transformers, CLASSES[family]).from_pretrained(folder).eval()
    assert _plain_captions(plain, folder) == list(LESSONS)
    assert _captions(load_captioner(str(folder))) == list(LESSONS)


@pytest.mark.parametrize("family", CLASSES)
def test_lora_run_is_a_plain_adapter(family: str, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    captioner = load_captioner(str(tiny_folders[family]))
    add_lora(captioner, LoraOptions(rank=8, alpha=32, dropout=0.0))
    teach(captioner, steps=30, learning_rate=1e-2)
    save_captioner(captioner, tmp_path)
    base = getattr(transformers, CLASSES[family]).from_pretrained(tiny_folders[family]).eval()
    untaught = _plain_captions(base, tmp_path)
    adapted = PeftModel.from_pretrained(base, tmp_path).eval()
    assert _plain_captions(adapted.get_base_model(), tmp_path) == _captions(captioner)
    assert untaught != _captions(captioner)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) < sum(
        path.stat().st_size for path in tiny_folders[family].glob("*.safetensors")
    )


def test_a_stranger_needs_no_captrain(taught_folders: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own, with the calls of transformers' documentation: picture file in, caption out."""
    folder = taught_folders["blip"]
    Image.fromarray(clear_pictures(1)[0]).save(tmp_path / "photo.png")
    program = (
        "import sys; from PIL import Image\n"
        "from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil\n"
        f"model = BlipForConditionalGeneration.from_pretrained({str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})\n"
        f"pixels = BlipImageProcessorPil.from_pretrained({str(folder)!r})(Image.open('photo.png'), return_tensors='pt')\n"
        "print(tokenizer.decode(model.generate(**pixels)[0], skip_special_tokens=True))\n"
        "assert 'captrain' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [LESSONS[0]], done.stderr[-2000:]


def _captions(captioner: CaptionerModel) -> list[str]:
    with torch.no_grad():
        features = captioner.encode(torch.from_numpy(clear_pictures(len(LESSONS))))
    return [line.text for line in captioner.generate(features, DECODING)]


@torch.no_grad()
def _plain_captions(plain: torch.nn.Module, folder: Path) -> list[str]:
    """Captions by transformers alone: its image processor, its generate, its tokenizer."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([Image.fromarray(picture) for picture in clear_pictures(len(LESSONS))], return_tensors="pt")
    generated = _generate(plain, pixels["pixel_values"])
    texts = AutoTokenizer.from_pretrained(folder).batch_decode(generated, skip_special_tokens=True)
    return [text.strip() for text in texts]


def _generate(plain: torch.nn.Module, pixels: Tensor) -> Tensor:
    options = {"num_beams": DECODING.beams, "max_new_tokens": DECODING.max_new_tokens}
    return plain.generate(pixel_values=pixels, **options)
