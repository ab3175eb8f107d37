"""Three steps of captrain against three steps of LAVIS's arithmetic, written out here: the same weights to 1e-6.

LAVIS's rules (Li et al. 2022; salesforce/LAVIS: `blip_caption.py`, `base_model.py`, `optims.py`, `base_task.py`): one caption a
row behind the prompt, whose tokens and the start token are not learned; label smoothing 0.1; the mean over the tokens of all
pairs; AdamW without decay on biases and vectors; the rate set anew before each batch. All in double precision: in single
precision Adam turns the rounding of gradients that are zero into steps of full size.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BertTokenizer, BlipForConditionalGeneration

from captrain.cli import main
from captrain.models.checkpoint.folder import load_captioner
from captrain.testing import tiny_blip, tiny_photos
from captrain.training import run as training_run
from captrain.training.loop.trainer import CaptionTrainer

PROMPT = "a picture of"
INIT_LR, MIN_LR, WARMUP_LR, WEIGHT_DECAY = 1e-3, 1e-4, 2e-4, 0.05
COMMON = (
    "--method full --no-validation-split --captions-per-image all --device cpu --precision fp32 --keep memory --beams 1 "
    f"--schedule linear_warmup_cosine_lr --learning-rate {INIT_LR} --min-learning-rate {MIN_LR} "
    f"--warmup-learning-rate {WARMUP_LR} --weight-decay {WEIGHT_DECAY} --label-smoothing 0.1 --max-gradient-norm 0"
)
CASES = {
    "an epoch a step": (3, 6, 0),
    "a warm-up inside of an epoch": (1, 2, 2),
    "more batches than warm-up": (2, 3, 1),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The pictures of each step of captrain, which computes in double precision."""
    pictures: list[Tensor] = []
    original_place, original_step = training_run.place, CaptionTrainer.training_step

    def place(captioner, settings) -> None:
        original_place(captioner, settings)
        captioner.double()

    def training_step(self, model, inputs, *rest):
        pictures.append(inputs["pixels"].clone())
        return original_step(self, model, inputs, *rest)

    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # what captrain takes the logits to before the loss
    monkeypatch.setattr(training_run, "place", place)
    monkeypatch.setattr(CaptionTrainer, "training_step", training_step)
    return pictures


@pytest.mark.parametrize(("epochs", "batch", "warmup"), CASES.values(), ids=CASES)
def test_three_steps_are_lavis_steps(
    epochs: int, batch: int, warmup: int, seen: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "cache"))
    model = tiny_blip(tmp_path / "blip")
    photos = tiny_photos(tmp_path / "photos", count=6)
    for path in photos.glob("*.png"):  # in the model's own size nothing is resized
        Image.open(path).resize((32, 32)).save(path)
    words = f"{COMMON} --epochs {epochs} --batch-size {batch} --warmup-steps {warmup}".split()
    out = tmp_path / "run"
    assert main(["-q", "train", str(photos), str(out), "--model", str(model), "--prompt", PROMPT, *words]) == 0
    trained = load_captioner(str(out / "model")).core()

    pixels, captions = read(photos)
    order = [[int((pixels == picture).all((1, 2, 3)).nonzero()) for picture in batch] for batch in seen]
    assert sorted(index for batch in order for index in batch) == sorted([*range(6)] * epochs)
    original = lavis_steps(model, pixels, captions, order, epochs, warmup)

    before = dict(BlipForConditionalGeneration.from_pretrained(model).named_parameters())
    found = dict(trained.named_parameters())
    for name, weight in original.named_parameters():
        assert float((found[name] - weight).abs().max()) < 1e-6, name
    moved = [float((weight - before[name]).abs().max()) for name, weight in original.named_parameters()]
    assert sum(distance > 1e-4 for distance in moved) > 0.9 * len(moved)


def read(photos: Path) -> tuple[Tensor, list[list[str]]]:
    """Pixels (I, height, width, 3) and captions of the pictures, by nothing of captrain."""
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    arrays = [np.asarray(Image.open(photos / line["file_name"]).convert("RGB")) for line in lines]
    return torch.from_numpy(np.stack(arrays)), [line.get("captions") or line["caption"] for line in lines]


def lavis_steps(
    folder: Path, pixels: Tensor, captions: list[list[str]], order: list[list[int]], epochs: int, warmup: int
) -> nn.Module:
    """LAVIS's training of the checkpoint on the batches; each has all captions of its pictures, a pair a row."""
    model = BlipForConditionalGeneration.from_pretrained(folder).double().train()
    tokenizer = BertTokenizer.from_pretrained(folder)
    decayed, spared = [], []
    for name, weight in model.named_parameters():
        exempt = weight.ndim < 2 or "bias" in name or "ln" in name or "bn" in name
        (spared if exempt else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": spared, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=INIT_LR, betas=(0.9, 0.999))
    batches = len(order) // epochs
    for step, images in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lavis_rate(step // batches, step % batches, epochs, warmup)
        pairs = [(image, text) for image in images for text in captions[image]]
        lavis_loss(model, tokenizer, pixels, pairs).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def lavis_rate(epoch: int, batch: int, epochs: int, warmup: int) -> float:
    """`linear_warmup_cosine_lr`."""
    if epoch == 0:
        return min(INIT_LR, WARMUP_LR + (INIT_LR - WARMUP_LR) * batch / max(warmup, 1))
    return (INIT_LR - MIN_LR) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)) + MIN_LR


def lavis_loss(
    model: BlipForConditionalGeneration, tokenizer: BertTokenizer, pixels: Tensor, pairs: list[tuple[int, str]]
) -> Tensor:
    """`BlipCaption.forward`: pictures repeated, captions padded behind, the prompt masked, tokens shifted by one."""
    prompt = PROMPT + " "
    text = tokenizer([prompt + caption for _, caption in pairs], padding="longest", return_tensors="pt")
    text.input_ids[:, 0] = model.config.text_config.bos_token_id
    targets = text.input_ids.masked_fill(text.input_ids == tokenizer.pad_token_id, -100)
    targets[:, : len(tokenizer(prompt).input_ids) - 1] = -100
    scaled = (pixels[[image for image, _ in pairs]].permute(0, 3, 1, 2).to(torch.float32) / 255).double()
    vectors = model.vision_model(pixel_values=(scaled - 0.5) / 0.5).last_hidden_state
    logits = model.text_decoder(
        input_ids=text.input_ids, attention_mask=text.attention_mask, encoder_hidden_states=vectors
    ).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), targets[:, 1:].reshape(-1), label_smoothing=0.1
    )
