"""GIT in fp32 against plain transformers: loss, logits, gradients, captions, scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
from captrain.models.families.git import attend_beside_image
from captrain.models.layers.attention import attend
from captrain.models.layers.packing import IGNORED
from captrain.testing import LESSONS, teach, tiny_git

CAPTIONS = [
    ["a red dog runs", "the dog", "one large red circle in the snow"],
    ["a blue cat sits"],
    ["two small green square with a cat and a dog", "grass"],
]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
LENGTH = 14


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_git(tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="module")
def taught_folder(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    captioner = load_captioner(str(random_folder))
    teach(captioner)
    save_captioner(captioner, folder)
    return folder


@pytest.fixture(params=["random", "taught"])
def folder(request: pytest.FixtureRequest, random_folder: Path, taught_folder: Path) -> Path:
    """Taught captioners write captions that end; random ones waver, so that beams change places all the time."""
    return taught_folder if request.param == "taught" else random_folder


@pytest.fixture
def plain(folder: Path) -> PreTrainedModel:
    """The same weights in a model that nothing of captrain has touched."""
    return transformers.GitForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("folder", ["random"], indirect=True)
@pytest.mark.parametrize("prompt", ["", "a small"])
def test_packed_rows_equal_one_caption_a_row(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, prompt: str
) -> None:
    captioner.prompt = prompt
    rows = [captioner.tokenize(texts, 30)[0] for texts in CAPTIONS]
    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels[:3])
    ours.loss.backward()

    captions = [(image, caption) for image, row in enumerate(rows) for caption in row]
    inputs, labels, seen = _padded(captioner, [caption for _, caption in captions])
    pictures = normalised(captioner, pixels)[torch.tensor([image for image, _ in captions])]
    logits = plain(pixel_values=pictures, input_ids=inputs, attention_mask=seen).logits[:, -inputs.shape[1] : -1]
    learned = labels[:, 1:] != IGNORED
    loss = cross_entropy(logits[learned], labels[:, 1:][learned])
    loss.backward()

    assert loss.item() > 1
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    torch.testing.assert_close(ours.logits, logits[learned], **TOLERANCE)
    for (name, weight), (twin, expected) in zip(
        captioner.model.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert name == twin
        torch.testing.assert_close(weight.grad, expected.grad, **TOLERANCE)


def test_loss_is_the_one_transformers_computes_itself(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor
) -> None:
    """No arithmetic of this file in between: labels in, loss out."""
    rows = [captioner.tokenize([text], 20)[0] for text in ("a red dog runs", "the cat")]
    inputs, labels, seen = _padded(captioner, [row[0] for row in rows])
    expected = plain(
        pixel_values=normalised(captioner, pixels[:2]), input_ids=inputs, attention_mask=seen, labels=labels
    )
    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels[:2])
    torch.testing.assert_close(ours.loss, expected.loss, **TOLERANCE)


def test_fused_model_is_transformers_model(captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor) -> None:
    """Its own forward, mask, cache and generate are plain transformers' too."""
    pictures = normalised(captioner, pixels)
    inputs, _, seen = _padded(captioner, [[7, 8, 9]] * 8)
    ours, expected = (
        model(pixel_values=pictures, input_ids=inputs, attention_mask=seen).logits
        for model in (captioner.core(), plain)
    )
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    options = {"pixel_values": pictures, "num_beams": 3, "max_new_tokens": 8}
    assert captioner.core().generate(**options).tolist() == plain.generate(**options).tolist()


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


def test_prompt_and_penalties_reach_the_search(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor
) -> None:
    features, decoding = features_of(captioner, pixels), Decoding(beams=3, max_new_tokens=LENGTH)
    changes: list[dict[str, float]] = [{}, {"length_penalty": -2.0}, {"repetition_penalty": 3.0}, {"min_new_tokens": 9}]
    for prompt in ("", "the large"):
        captioner.prompt = prompt
        for change in changes:
            changed = replace(decoding, **change)
            ours = [line.tokens for line in captioner.generate(features, changed)]
            assert ours == _plain_captions(plain, captioner, pixels, changed), (prompt, change)


@pytest.mark.parametrize("longest", [4, LENGTH])
def test_score_is_the_mean_log_probability_a_token(
    captioner: CaptionerModel, plain: PreTrainedModel, pixels: Tensor, longest: int
) -> None:
    captioner.prompt = "a small"
    written = captioner.generate(features_of(captioner, pixels), Decoding(beams=2, max_new_tokens=longest))
    head = [captioner.start_id, *captioner.prompt_ids()]
    for image, line in enumerate(written):
        learned = [*line.tokens, *([captioner.end_id] if len(line.tokens) < longest else [])]
        inputs = torch.tensor([[*head, *line.tokens]])
        with torch.no_grad():
            logits = plain(pixel_values=normalised(captioner, pixels[[image]]), input_ids=inputs).logits[0]
        each = logits[-len(line.tokens) - 1 :].log_softmax(-1)[torch.arange(len(learned)), torch.tensor(learned)]
        assert line.score == pytest.approx(float(each.mean()), abs=1e-5)


def test_taught_captions_come_back_word_for_word(taught_folder: Path, pixels: Tensor) -> None:
    captioner = load_captioner(str(taught_folder))
    written = captioner.generate(features_of(captioner, pixels), Decoding(beams=3))
    assert [line.text for line in written] == list(LESSONS)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("length", [1, 4])
def test_attention_beside_a_shared_image_equals_attention_to_copies(beams: int, length: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2 * beams, 4, length, 8)
    key, value = torch.randn(2, 2 * beams, 4, length + 3, 8)
    image_key, image_value = torch.randn(2, 2, 4, 5, 8)
    keys = torch.cat([image_key.repeat_interleave(beams, 0), key], 2)
    values = torch.cat([image_value.repeat_interleave(beams, 0), value], 2)
    mask = torch.ones(length, length + 8, dtype=torch.bool).tril(8)
    shared = attend_beside_image(query, key, value, image_key, image_value)
    torch.testing.assert_close(shared, attend(query, keys, values, mask))


def _padded(captioner: CaptionerModel, captions: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, labels of the same places and attention mask (captions, longest), padded behind."""
    head = [captioner.start_id, *captioner.prompt_ids()]
    longest = max(len(caption) for caption in captions) + len(head) + 1
    inputs = torch.full((len(captions), longest), captioner.pad_id)
    labels, seen = torch.full_like(inputs, IGNORED), torch.zeros_like(inputs)
    for row, caption in enumerate(captions):
        learned = torch.tensor([*caption, captioner.end_id])
        stop = len(head) + len(learned)
        inputs[row, :stop] = torch.cat([torch.tensor(head), learned])
        labels[row, len(head) : stop] = learned
        seen[row, :stop] = 1
    return inputs, labels, seen


def _plain_captions(
    plain: PreTrainedModel, captioner: CaptionerModel, pixels: Tensor, decoding: Decoding
) -> list[list[int]]:
    """Token ids of plain `generate`, without start, prompt, end and padding."""
    prompt = [captioner.start_id, *captioner.prompt_ids()]
    rows = plain.generate(
        pixel_values=normalised(captioner, pixels),
        input_ids=torch.tensor([prompt] * len(pixels)),
        generation_config=decoding.generation_config(captioner.start_id, captioner.end_id, captioner.pad_id),
    )
    captions = [row[len(prompt) :] for row in rows.tolist()]
    end = captioner.end_id
    return [row[: row.index(end)] if end in row else row for row in captions]
