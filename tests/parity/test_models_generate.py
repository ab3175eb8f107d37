"""Captions written on shared features against plain `generate` of transformers, and against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from parity_tools import features_of, normalised
from torch import Tensor
from transformers import PreTrainedModel

from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.layers.attention import attend
from captrain.testing import LESSONS

FAMILIES = ("blip", "encoder-decoder")
LENGTH = 14


@pytest.fixture(scope="module", params=[f"{family}, {state}" for family in FAMILIES for state in ("taught", "random")])
def folder(request: pytest.FixtureRequest, taught_folders: dict[str, Path], tiny_folders: dict[str, Path]) -> Path:
    """Taught captioners write captions that end; random ones waver, so that beams change places all the time."""
    family, state = request.param.split(", ")
    return (taught_folders if state == "taught" else tiny_folders)[family]


@pytest.fixture(scope="module")
def captioner(folder: Path) -> CaptionerModel:
    return load_captioner(str(folder)).eval()


@pytest.fixture(scope="module")
def plain(folder: Path) -> PreTrainedModel:
    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_captions_equal_those_of_plain_transformers(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, beams: int
) -> None:
    decoding = Decoding(beams=beams, max_new_tokens=LENGTH)
    features = features_of(captioner, pixels)
    expected = _plain_captions(plain, captioner, pixels, decoding)
    assert len({tuple(tokens) for tokens in expected}) > 2, "captions are too alike to tell anything"
    for size in (1, 3, 8):
        batches = [captioner.generate(part, decoding) for part in features.split(size)]
        assert [line.tokens for batch in batches for line in batch] == expected, f"batches of {size}"


def test_length_penalty_and_repetition_penalty_reach_the_search(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor
) -> None:
    for changes in ({"length_penalty": -2.0}, {"repetition_penalty": 3.0}, {"min_new_tokens": 9}):
        decoding = replace(Decoding(beams=3, max_new_tokens=LENGTH), **changes)
        ours = [line.tokens for line in captioner.generate(features_of(captioner, pixels), decoding)]
        assert ours == _plain_captions(plain, captioner, pixels, decoding), changes


def test_batched_scores_equal_single_ones(captioner: CaptionerModel, pixels: Tensor) -> None:
    features = features_of(captioner, pixels)
    batched = captioner.generate(features, Decoding(max_new_tokens=LENGTH))
    single = [captioner.generate(part, Decoding(max_new_tokens=LENGTH))[0] for part in features.split(1)]
    assert [line.text for line in batched] == [line.text for line in single]
    assert [line.score for line in batched] == pytest.approx([line.score for line in single], abs=1e-5)


@pytest.mark.parametrize("prompt", ["", "a small"])
@pytest.mark.parametrize("longest", [4, LENGTH])
def test_score_is_the_mean_log_probability_a_token(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, prompt: str, longest: int
) -> None:
    """By hand, from plain transformers' logits; the end token counts if the caption came to its end."""
    captioner.prompt = prompt
    try:
        written = captioner.generate(features_of(captioner, pixels), Decoding(beams=2, max_new_tokens=longest))
        head = [captioner.start_id, *captioner.prompt_ids()]
    finally:
        captioner.prompt = ""
    for image, line in enumerate(written):
        learned = [*line.tokens, *([captioner.end_id] if len(line.tokens) < longest else [])]
        logits = _plain_logits(plain, normalised(captioner, pixels[[image]]), [*head, *line.tokens])[len(head) - 1 :]
        each = logits.log_softmax(-1)[torch.arange(len(learned)), torch.tensor(learned)]
        assert line.score == pytest.approx(float(each.mean()), abs=1e-5)


def test_prompt_is_read_and_not_repeated_in_the_caption(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor
) -> None:
    decoding = Decoding(beams=3, max_new_tokens=LENGTH)
    without = [line.tokens for line in captioner.generate(features_of(captioner, pixels), decoding)]
    captioner.prompt = "the large"
    try:
        ours = [line.tokens for line in captioner.generate(features_of(captioner, pixels), decoding)]
        assert ours == _plain_captions(plain, captioner, pixels, decoding)
    finally:
        captioner.prompt = ""
    assert ours != without


def test_sampling_follows_the_seed_and_the_nucleus(captioner: CaptionerModel, pixels: Tensor) -> None:
    features = features_of(captioner, pixels)

    def sample(seed: int, **changes: float) -> list[list[int]]:
        torch.manual_seed(seed)
        decoding = Decoding(sample=True, max_new_tokens=LENGTH, **{"temperature": 3.0, "top_p": 1.0, **changes})
        return [line.tokens for line in captioner.generate(features, decoding)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    greedy = [line.tokens for line in captioner.generate(features, Decoding(beams=1, max_new_tokens=LENGTH))]
    assert sample(3, top_p=1e-4) == greedy


def test_sharing_features_among_beams_changes_nothing(captioner: CaptionerModel, pixels: Tensor) -> None:
    decoding, features = Decoding(beams=4, max_new_tokens=LENGTH), features_of(captioner, pixels)
    shared = captioner.generate(features, decoding)
    captioner.shares_features = False
    try:
        repeated = captioner.generate(features, decoding)
    finally:
        captioner.shares_features = True
    assert [line.tokens for line in shared] == [line.tokens for line in repeated]


def test_taught_captions_come_back_word_for_word(taught_folders: dict[str, Path], pixels: Tensor) -> None:
    """From loss to caption and back: what was learned is what is written, end token and all."""
    for family, folder in taught_folders.items():
        captioner = load_captioner(str(folder))
        written = captioner.generate(features_of(captioner, pixels), Decoding(beams=3))
        assert [line.text for line in written] == list(LESSONS), family
        assert all(captioner.end_id not in line.tokens for line in written)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("length", [1, 4])
def test_shared_attention_equals_repeated_keys(beams: int, length: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2 * beams, 4, length, 8)
    key, value = torch.randn(2, 2, 4, 5, 8)
    repeated = attend(query, key.repeat_interleave(beams, 0), value.repeat_interleave(beams, 0))
    torch.testing.assert_close(attend(query, key, value), repeated)
    by_hand = (query @ key.repeat_interleave(beams, 0).mT / 8**0.5).softmax(-1) @ value.repeat_interleave(beams, 0)
    torch.testing.assert_close(repeated, by_hand)


def _plain_captions(
    plain: PreTrainedModel, captioner: CaptionerModel, pixels: Tensor, decoding: Decoding
) -> list[list[int]]:
    """Token ids of plain `generate`, without start, prompt, end and padding."""
    config = decoding.generation_config(captioner.start_id, captioner.end_id, captioner.pad_id)
    prompt = [captioner.start_id, *captioner.prompt_ids()]
    start = torch.tensor([prompt] * len(pixels))
    images = normalised(captioner, pixels)
    if captioner.family == "blip":
        vectors = plain.vision_model(pixel_values=images).last_hidden_state
        rows = plain.text_decoder.generate(input_ids=start, encoder_hidden_states=vectors, generation_config=config)
    else:
        rows = plain.generate(pixel_values=images, decoder_input_ids=start, generation_config=config)
    captions = [row[len(prompt) :] for row in rows.tolist()]
    end = captioner.end_id
    return [row[: row.index(end)] if end in row else row for row in captions]


@torch.no_grad()
def _plain_logits(plain: PreTrainedModel, images: Tensor, tokens: list[int]) -> Tensor:
    """Logits (tokens, V) of one picture's tokens."""
    inputs = torch.tensor([tokens])
    if hasattr(plain, "vision_model"):
        vectors = plain.vision_model(pixel_values=images).last_hidden_state
        return plain.text_decoder(input_ids=inputs, encoder_hidden_states=vectors).logits[0]
    return plain(pixel_values=images, decoder_input_ids=inputs).logits[0]
