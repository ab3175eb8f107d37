"""BLIP-2 with OPT and with T5 in fp32 against plain transformers: loss, logits, gradients, captions, scores.

What plain transformers is given is what `Blip2Processor` makes: placeholders for the image, then OPT's </s>, prompt and
caption; for T5 placeholders, prompt and </s>, and the caption for its decoder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity_tools import features_of, normalised
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.layers.packing import IGNORED
from captrain.testing import LESSONS, teach, tiny_blip2

CAPTIONS = [
    ["a red dog runs", "the dog", "one large red circle in the snow"],
    ["a blue cat sits"],
    ["two small green square with a cat and a dog", "grass"],
]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
LENGTH = 14
LANGUAGES = ("opt", "t5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By language model: random ones, and the same after some steps of training."""
    root = tmp_path_factory.mktemp("blip2")
    made = {}
    for language in LANGUAGES:
        made[language] = tiny_blip2(root / language, language=language)
        captioner = load_captioner(str(made[language]))
        teach(captioner)
        made[f"taught {language}"] = root / f"taught-{language}"
        save_captioner(captioner, made[f"taught {language}"])
    return made


@pytest.fixture(params=["opt", "taught opt", "t5", "taught t5"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def plain(folder: Path) -> PreTrainedModel:
    """The same weights in a model that nothing of captrain has touched."""
    return transformers.Blip2ForConditionalGeneration.from_pretrained(folder).eval()


@pytest.mark.parametrize("folder", ["opt", "taught t5"], indirect=True)
@pytest.mark.parametrize("prompt", ["", "a small"])
def test_packed_rows_equal_one_caption_a_row(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, prompt: str
) -> None:
    captioner.double()  # in fp32 T5's unscaled attention rounds differently in packed rows, by more than 1e-5
    plain.double()
    captioner.prompt = prompt
    rows = [captioner.tokenize(texts, 30)[0] for texts in CAPTIONS]
    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels[:3])
    ours.loss.backward()

    captions = [(image, caption) for image, row in enumerate(rows) for caption in row]
    pictures = normalised(captioner, pixels)[torch.tensor([image for image, _ in captions])]
    inputs = _inputs(captioner, [caption for _, caption in captions])
    labels = inputs.pop("labels")
    if _seq2seq(captioner):
        start = torch.full((len(labels), 1), captioner.start_id)
        given = torch.cat([start, labels[:, :-1].clamp(min=0)], 1)
        logits = plain(pixel_values=pictures, **inputs, decoder_input_ids=given).logits
    else:
        logits, labels = plain(pixel_values=pictures, **inputs).logits[:, :-1], labels[:, 1:]
    learned = labels != IGNORED
    loss = cross_entropy(logits[learned], labels[learned])
    loss.backward()

    assert loss.item() > 0.3
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    torch.testing.assert_close(ours.logits, logits[learned], **TOLERANCE)
    for (name, weight), (twin, expected) in zip(
        captioner.model.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert name == twin
        largest = float(_gradient(expected).abs().max())
        torch.testing.assert_close(_gradient(weight), _gradient(expected), rtol=1e-4, atol=1e-4 * largest + 1e-6)


def test_loss_is_the_one_transformers_computes_itself(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor
) -> None:
    """No arithmetic of this file in between: labels in, loss out."""
    captioner.prompt = "a small"
    rows = [captioner.tokenize([text], 20)[0] for text in ("red dog runs", "cat")]
    inputs = _inputs(captioner, [row[0] for row in rows])
    expected = plain(pixel_values=normalised(captioner, pixels[:2]), **inputs).loss
    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels[:2])
    torch.testing.assert_close(ours.loss, expected, **TOLERANCE)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_captions_equal_those_of_plain_transformers(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, beams: int
) -> None:
    decoding = Decoding(beams=beams, max_new_tokens=LENGTH)
    features = features_of(captioner, pixels)
    expected = _plain_captions(plain, captioner, pixels, decoding)
    for size in (1, 3, 8):
        batches = [captioner.generate(part, decoding) for part in features.split(size)]
        assert [line.tokens for batch in batches for line in batch] == expected, f"batches of {size}"


@pytest.mark.parametrize("folder", ["taught opt", "taught t5"], indirect=True)
def test_prompt_and_lengths_reach_the_search(captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor) -> None:
    features, seen = features_of(captioner, pixels), []
    changes: list[dict[str, float]] = [{}, {"length_penalty": -2.0}, {"min_new_tokens": 9}]
    for prompt in ("", "the large"):
        captioner.prompt = prompt
        for change in changes:
            changed = replace(Decoding(beams=3, max_new_tokens=LENGTH), **change)
            seen.append([line.tokens for line in captioner.generate(features, changed)])
            assert seen[-1] == _plain_captions(plain, captioner, pixels, changed), (prompt, change)
    assert len({str(captions) for captions in seen}) > 2


@pytest.mark.parametrize("longest", [4, LENGTH])
def test_score_is_the_mean_log_probability_a_token(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, longest: int
) -> None:
    captioner.prompt = "a small"
    written = captioner.generate(features_of(captioner, pixels), Decoding(beams=2, max_new_tokens=longest))
    for image, line in enumerate(written):
        inputs = _inputs(captioner, [line.tokens])
        labels = inputs.pop("labels")[0]
        if _seq2seq(captioner):
            inputs["decoder_input_ids"] = torch.tensor([[captioner.start_id, *line.tokens]])
        with torch.no_grad():
            logits = plain(pixel_values=normalised(captioner, pixels[[image]]), **inputs).logits[0]
        if not _seq2seq(captioner):
            logits, labels = logits[:-1], labels[1:]
        each = -cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")[labels != IGNORED]
        count = len(line.tokens) + (len(line.tokens) < longest)
        assert line.score == pytest.approx(float(each[:count].mean()), abs=1e-5)


def test_taught_captions_come_back_word_for_word(folders: dict[str, Path], pixels: Tensor) -> None:
    captioner = load_captioner(str(folders["taught opt"]))
    written = captioner.generate(features_of(captioner, pixels), Decoding(beams=3))
    assert [line.text for line in written] == list(LESSONS)


def _seq2seq(captioner: CaptionerModel) -> bool:
    return bool(captioner.decoder.config.is_encoder_decoder)


def _prompt(captioner: CaptionerModel) -> list[int]:
    """What plain transformers reads before a caption: placeholders for the image and the prompt."""
    core = captioner.core().config
    words = captioner.tokenizer(captioner.prompt, add_special_tokens=False)["input_ids"] if captioner.prompt else []
    start = [core.image_token_index] * core.num_query_tokens
    return [*start, *words, captioner.end_id] if _seq2seq(captioner) else [*start, captioner.start_id, *words]


def _inputs(captioner: CaptionerModel, captions: list[list[int]]) -> dict[str, Any]:
    """`input_ids`, `attention_mask` and `labels` (captions, longest), padded behind."""
    head = _prompt(captioner)
    longest = max(len(caption) for caption in captions) + 1
    labels = torch.full((len(captions), longest), IGNORED)
    for row, caption in enumerate(captions):
        labels[row, : len(caption) + 1] = torch.tensor([*caption, captioner.end_id])
    heads = torch.tensor([head] * len(captions))
    if _seq2seq(captioner):
        return {"input_ids": heads, "attention_mask": torch.ones_like(heads), "labels": labels}
    return {
        "input_ids": torch.cat([heads, labels.where(labels >= 0, captioner.pad_id)], 1),
        "attention_mask": torch.cat([torch.ones_like(heads), (labels >= 0).long()], 1),
        "labels": torch.cat([torch.full_like(heads, IGNORED), labels], 1),
    }


def _plain_captions(
    plain: PreTrainedModel, captioner: CaptionerModel, pixels: Tensor, decoding: Decoding
) -> list[list[int]]:
    """Token ids of plain `generate`, without placeholders, start, prompt, end and padding."""
    head = _prompt(captioner)
    rows = plain.generate(
        pixel_values=normalised(captioner, pixels),
        input_ids=torch.tensor([head] * len(pixels)),
        generation_config=captioner.generation_config(decoding),
    )
    captions = [row[1 if _seq2seq(captioner) else len(head) :] for row in rows.tolist()]
    end = captioner.end_id
    return [row[: row.index(end)] if end in row else row for row in captions]


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
