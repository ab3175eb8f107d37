"""Lengths of an imported file of LAVIS against LAVIS's own call of `generate`, whose lengths count what is given.

BLIP (`blip_caption.py`): `max_length` and `min_length` behind [DEC] and the prompt. BLIP-2 with T5 (`blip2_t5.py`):
`max_new_tokens`, and a `min_length` that counts the decoder's start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from parity_tools import features_of, normalised
from torch import Tensor

from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding, until
from captrain.settings.lavis.convert import import_lavis
from captrain.settings.load import resolve
from captrain.testing import tiny_blip, tiny_blip2

PROMPT = "the large square"
LENGTHS = [(20, 5), (9, 9), (12, 4), (6, 1)]


def imported(folder: Path, place: Path, arch: str, longest: int, shortest: int) -> CaptionerModel:
    """A captioner that writes as the imported file says."""
    kind = {"blip_caption": "base_coco", "blip2_t5": "caption_coco_flant5xl"}[arch]
    content: dict[str, Any] = {
        "model": {"arch": arch, "model_type": kind, "prompt": f"{PROMPT} "},
        "run": {"task": "captioning", "max_len": longest, "min_len": shortest, "num_beams": 3, "evaluate": True},
    }
    place.write_text(yaml.safe_dump(content))
    settings = resolve(import_lavis(place, str(folder)).recipe)
    captioner = load_captioner(str(folder)).eval()
    captioner.prompt, captioner.decoding = str(settings.data.prompt), Decoding(**settings.generation.model_dump())
    return captioner


@pytest.mark.parametrize(("longest", "shortest"), LENGTHS)
def test_blip_writes_as_long_as_lavis_lets_it(longest: int, shortest: int, pixels: Tensor, tmp_path: Path) -> None:
    folder = tiny_blip(tmp_path / "blip")
    captioner = imported(folder, tmp_path / "lavis.yaml", "blip_caption", longest, shortest)
    plain = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()
    given = [captioner.start_id, *captioner.prompt_ids()]
    with torch.no_grad():
        vectors = plain.vision_model(pixel_values=normalised(captioner, pixels)).last_hidden_state
        rows = plain.text_decoder.generate(
            input_ids=torch.tensor([given] * len(pixels)), encoder_hidden_states=vectors, max_length=longest,
            min_length=shortest, num_beams=3, eos_token_id=captioner.end_id, pad_token_id=captioner.pad_id,
        )  # fmt: skip
    expected = [until(row[len(given) :], captioner.end_id) for row in rows.tolist()]
    assert [line.tokens for line in captioner.generate(features_of(captioner, pixels))] == expected


@pytest.mark.parametrize(("longest", "shortest"), LENGTHS)
def test_t5_writes_as_long_as_lavis_lets_it(longest: int, shortest: int, pixels: Tensor, tmp_path: Path) -> None:
    folder = tiny_blip2(tmp_path / "t5", language="t5")
    captioner = imported(folder, tmp_path / "lavis.yaml", "blip2_t5", longest, shortest)
    plain = transformers.Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    placeholder = plain.config.image_token_index
    words = captioner.tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    given = [*[placeholder] * plain.config.num_query_tokens, *words, captioner.end_id]
    rows = plain.generate(
        pixel_values=normalised(captioner, pixels), input_ids=torch.tensor([given] * len(pixels)),
        max_new_tokens=longest, min_length=shortest, num_beams=3, suppress_tokens=[placeholder],
        eos_token_id=captioner.end_id, pad_token_id=captioner.pad_id,
    )  # fmt: skip
    expected = [until(row[1:], captioner.end_id) for row in rows.tolist()]
    assert [line.tokens for line in captioner.generate(features_of(captioner, pixels))] == expected
