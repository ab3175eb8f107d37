"""Packed rows on shared features against plain transformers, one caption a row: loss, logits and gradients in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from parity_tools import normalised
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from captrain.models.build import NewDecoder, build_encoder_decoder
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.layers.packing import IGNORED
from captrain.testing import clear_pictures, tiny_text_decoder, tiny_vision_encoder

KINDS = ("blip", "loaded", "pretrained decoder", "new decoder")
CAPTIONS = [
    ["a red dog runs", "the dog", "one large red circle in the snow"],
    ["a blue cat sits"],
    ["two small green square with a cat and a dog", "grass"],
]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def captioner(kind: str, tiny_folders: dict[str, Path], tmp_path: Path) -> CaptionerModel:
    """A captioner with dropout off whose pictures matter to its words."""
    if kind in ("blip", "loaded"):
        return load_captioner(str(tiny_folders["blip" if kind == "blip" else "encoder-decoder"])).eval()
    encoder = tiny_vision_encoder(tmp_path / "vision")
    decoder = str(tiny_text_decoder(tmp_path / "language")) if kind == "pretrained decoder" else None
    sizes = NewDecoder(layers=2, width=32, heads=4, dropout=0.1, vocabulary_size=100)
    texts = [text for texts in CAPTIONS for text in texts] * 2
    captioner = build_encoder_decoder(str(encoder), decoder, sizes, texts)
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if parameter.dim() > 1 and ("crossattention" in name or (decoder is None and ".decoder." in name)):
                parameter.mul_(3)
    return captioner.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["", "a small"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_packed_rows_equal_one_caption_a_row(
    captioner: CaptionerModel, kind: str, prompt: str, smoothing: float
) -> None:
    captioner.prompt, captioner.label_smoothing = prompt, smoothing
    pixels = torch.from_numpy(clear_pictures(3))
    rows = [captioner.tokenize(texts, 30)[0] for texts in CAPTIONS]

    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels)
    ours.loss.backward()
    gradients = {name: _gradient(weight) for name, weight in captioner.model.named_parameters()}

    captioner.zero_grad()
    plain = _plain_twin(captioner)
    loss, logits = _one_caption_a_row(plain, captioner, normalised(captioner, pixels), rows, smoothing)
    loss.backward()

    assert loss.item() > 1
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    torch.testing.assert_close(ours.logits, logits, **TOLERANCE)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(gradients[name], _gradient(weight), **TOLERANCE)
    assert any("vision" in name or "encoder" in name for name, value in gradients.items() if value.abs().sum() > 0)


def test_blip_loss_is_the_one_transformers_computes_itself(tiny_folders: dict[str, Path]) -> None:
    """No arithmetic of this file in between: labels in, loss out, with BLIP's own label smoothing."""
    captioner = load_captioner(str(tiny_folders["blip"]))
    captioner.label_smoothing = 0.1
    plain = transformers.BlipForConditionalGeneration.from_pretrained(tiny_folders["blip"]).eval()
    plain.text_decoder.label_smoothing = 0.1
    pixels = torch.from_numpy(clear_pictures(2))
    rows = [captioner.tokenize([text], 20)[0] for text in ("a red dog runs", "the cat")]
    inputs, labels = _padded(captioner, [(image, row[0]) for image, row in enumerate(rows)], with_end=True)
    seen = (labels != IGNORED).long()
    seen[:, 0] = 1  # the start token is not learned, but read
    images = normalised(captioner, pixels)
    expected = plain(pixel_values=images, input_ids=inputs, labels=labels, attention_mask=seen).loss
    torch.testing.assert_close(captioner(**captioner.pack(rows).to_dict(), pixels=pixels).loss, expected, **TOLERANCE)


def test_encoder_decoder_loss_is_the_one_transformers_computes_itself(tiny_folders: dict[str, Path]) -> None:
    captioner = load_captioner(str(tiny_folders["encoder-decoder"]))
    plain = transformers.VisionEncoderDecoderModel.from_pretrained(tiny_folders["encoder-decoder"]).eval()
    pixels = torch.from_numpy(clear_pictures(2))
    rows = [captioner.tokenize([text], 20)[0] for text in ("a red dog runs", "the cat sits")]
    labels = torch.full((2, 5), IGNORED)
    for row, (caption,) in enumerate(rows):
        labels[row, : len(caption) + 1] = torch.tensor([*caption, captioner.end_id])
    expected = plain(pixel_values=normalised(captioner, pixels), labels=labels).loss
    torch.testing.assert_close(captioner(**captioner.pack(rows).to_dict(), pixels=pixels).loss, expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["blip", "loaded"])
def test_loss_over_several_batches_is_the_mean_over_all_their_tokens(captioner: CaptionerModel, kind: str) -> None:
    """Gradient accumulation: long and short batches weigh by their tokens."""
    features = captioner.encode(torch.from_numpy(clear_pictures(3)))
    rows = [captioner.tokenize(texts, 30)[0] for texts in CAPTIONS]
    whole = captioner.pack(rows)
    tokens = int((whole.labels != IGNORED).sum())
    parts = [
        captioner(**captioner.pack([row]).to_dict(), features=features[[image]], num_items_in_batch=tokens).loss
        for image, row in enumerate(rows)
    ]
    torch.testing.assert_close(sum(parts), captioner(**whole.to_dict(), features=features).loss, **TOLERANCE)


def _plain_twin(captioner: CaptionerModel) -> PreTrainedModel:
    """The same weights in a model that nothing of captrain has touched."""
    name = "BlipForConditionalGeneration" if captioner.family == "blip" else "VisionEncoderDecoderModel"
    core = captioner.core()
    config = type(core.config).from_dict(core.config.to_dict())
    plain = getattr(transformers, name)(config)
    plain.load_state_dict(core.state_dict())
    return plain.eval()


def _one_caption_a_row(
    plain: PreTrainedModel, captioner: CaptionerModel, pixels: Tensor, rows: list[list[list[int]]], smoothing: float
) -> tuple[Tensor, Tensor]:
    """Loss over all captions, and logits of the learned tokens, caption after caption; pictures are repeated."""
    captions = [(image, caption) for image, row in enumerate(rows) for caption in row]
    images = torch.tensor([image for image, _ in captions])
    inputs, labels = _padded(captioner, captions, with_end=False)
    if captioner.family == "blip":
        vectors = plain.vision_model(pixel_values=pixels[images]).last_hidden_state
        logits = plain.text_decoder(input_ids=inputs, encoder_hidden_states=vectors).logits
    else:
        logits = plain(pixel_values=pixels[images], decoder_input_ids=inputs).logits
    learned = labels != IGNORED
    return cross_entropy(logits[learned], labels[learned], label_smoothing=smoothing), logits[learned]


def _padded(captioner: CaptionerModel, captions: list[tuple[int, list[int]]], with_end: bool) -> tuple[Tensor, Tensor]:
    """Input ids and labels (captions, longest), padded behind. With the end, inputs and labels are the same tokens, as a
    model that shifts labels itself wants them; without it, labels are those of the next position."""
    head = [captioner.start_id, *captioner.prompt_ids()]
    longest = max(len(caption) for _, caption in captions) + len(head) + with_end
    inputs = torch.full((len(captions), longest), captioner.pad_id)
    labels = torch.full((len(captions), longest), IGNORED)
    for row, (_, caption) in enumerate(captions):
        learned = [*caption, captioner.end_id]
        given = [*head, *(learned if with_end else caption)]
        inputs[row, : len(given)] = torch.tensor(given)
        labels[row, len(given) - len(learned) : len(given)] = torch.tensor(learned)
    return inputs, labels


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
