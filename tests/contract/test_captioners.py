"""What every family of captioners keeps. A new family needs one line in `captrain.testing.TINY_CAPTIONERS` to be held to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.families import FAMILIES, family_named
from captrain.models.layers.packing import even_groups
from captrain.models.layers.vision import turned_back
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.parts import PARTS
from captrain.models.what_learns import count_parameters
from captrain.testing import TINY_CAPTIONERS, clear_pictures, teach

CAPTIONS = [["a red dog runs", "the dog"], ["a blue cat sits in the grass"], ["two small green square", "snow"]]
UNEVEN = [["a red dog runs", "the dog runs"], ["a blue"], ["snow and a dog", "a red dog runs", "the red dog"]]


@pytest.fixture(params=list(FAMILIES))
def captioner(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> CaptionerModel:
    if request.param not in TINY_CAPTIONERS:
        pytest.fail(
            f"the family '{request.param}' has no tiny checkpoint: write a function that makes one in captrain/testing.py, "
            "as tiny_blip does, and add it to TINY_CAPTIONERS there"
        )
    return load_captioner(str(tiny_folders[request.param])).eval()


@pytest.fixture
def pixels(captioner: CaptionerModel) -> Tensor:
    return torch.from_numpy(clear_pictures(3, captioner.image_spec.height))


def test_every_tiny_checkpoint_belongs_to_a_family() -> None:
    assert set(TINY_CAPTIONERS) <= set(FAMILIES)


def test_family_is_found_from_the_checkpoint(captioner: CaptionerModel) -> None:
    assert type(captioner) is family_named(captioner.family).captioner_class()


def test_pictures_become_vectors(captioner: CaptionerModel, pixels: Tensor) -> None:
    features = captioner.encode(pixels)
    assert features.dim() == 3
    assert len(features) == 3
    torch.testing.assert_close(captioner.encode(pixels[1:2]), features[1:2], rtol=1e-4, atol=1e-5)
    assert (features[0] - features[1]).abs().mean() > 0.05, "pictures can't be told apart"


def test_rows_read_in_groups_learn_the_same(captioner: CaptionerModel, pixels: Tensor) -> None:
    """Rows of a batch read in groups of similar length give the loss and the gradient of the whole batch."""
    captioner.training = True  # of all modules the captioner alone: nothing is dropped
    rows = captioner.pack([[captioner.tokenizer(text)["input_ids"][:5] for text in texts] for texts in UNEVEN])
    assert len(even_groups(rows.caption_ids.count_nonzero(1).tolist())) > 1
    features = captioner.encode(pixels).detach()
    found = []
    for captioner.groups_rows in (False, True):
        captioner.zero_grad()
        loss = captioner(**rows.to_dict(), features=features).loss
        loss.backward()
        gradients = [weight.grad.flatten() for weight in captioner.parameters() if weight.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_a_mirrored_picture_is_seen_mirrored(captioner: CaptionerModel) -> None:
    """Seen with its mirror image, a picture and the mirrored picture have the same vectors in mirrored places."""
    height, width = captioner.image_spec.height, captioner.image_spec.width
    pixels = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    plain = captioner.encode(pixels)
    seen, seen_mirrored = captioner.encode(pixels, mirror=True), captioner.encode(pixels.flip(2), mirror=True)
    torch.testing.assert_close(seen_mirrored, turned_back(seen, height, width))
    assert seen.shape == plain.shape
    assert not torch.allclose(seen, plain)


def test_loss_from_pixels_equals_loss_from_features(captioner: CaptionerModel, pixels: Tensor) -> None:
    rows = _rows(captioner)
    live = captioner(**rows, pixels=pixels)
    kept = captioner(**rows, features=captioner.encode(pixels))
    torch.testing.assert_close(live.loss, kept.loss)
    assert live.logits.shape == (len(live.targets), live.logits.shape[-1])


def test_loss_depends_on_the_picture_and_on_earlier_words(captioner: CaptionerModel, pixels: Tensor) -> None:
    rows = _rows(captioner)
    loss = captioner(**rows, pixels=pixels).loss
    assert abs(loss - captioner(**rows, pixels=pixels.flip(0)).loss) > 1e-3
    other = rows["input_ids"].clone()
    other[:, 2] = rows["input_ids"][0, 1]
    assert abs(loss - captioner(**{**rows, "input_ids": other}, pixels=pixels).loss) > 1e-3


def test_packing_equals_separate_rows(captioner: CaptionerModel, pixels: Tensor) -> None:
    features = captioner.encode(pixels)
    together = captioner(**_rows(captioner), features=features)
    apart = [
        captioner(**captioner.pack([[caption]]).to_dict(), features=features[[image]])
        for image, texts in enumerate(CAPTIONS)
        for caption in captioner.tokenize(texts, 20)[0]
    ]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in apart]), rtol=1e-4, atol=1e-4)


def test_start_end_and_prompt(captioner: CaptionerModel) -> None:
    captioner.prompt = "a red"
    ids, cut = captioner.tokenize(["dog runs"], 20)
    rows = captioner.pack([ids])
    assert cut == 0
    assert rows.input_ids[0, 0] == captioner.start_id
    learned = rows.labels[0][rows.labels[0] >= 0].tolist()
    assert learned == [*ids[0], captioner.end_id]
    assert captioner.tokenizer.decode(rows.input_ids[0, 1:3]) == "a red"


def test_long_captions_are_cut_and_counted(captioner: CaptionerModel) -> None:
    ids, cut = captioner.tokenize(["a red dog runs in the snow", "a dog"], 5)
    assert [len(caption) for caption in ids] == [4, 2]
    assert cut == 1
    longest, cut = captioner.tokenize(["dog " * 500], 10_000)
    assert cut == 1
    rows = captioner.pack([longest])
    assert rows.input_ids.shape[1] <= captioner.max_positions
    captioner(**rows.to_dict(), pixels=torch.from_numpy(clear_pictures(1, captioner.image_spec.height)))


def test_parts_hold_every_parameter_once(captioner: CaptionerModel) -> None:
    names = [name for members in captioner.parts().values() for name, _ in members]
    assert sorted(names) == sorted(name for name, _ in captioner.named_parameters())
    assert set(captioner.parts()) == set(PARTS)
    total = sum(count["total"] for count in count_parameters(captioner).values())
    assert total == sum(parameter.numel() for parameter in captioner.parameters())
    assert all(captioner.parts()[part] for part in ("vision", "language"))


@pytest.mark.parametrize("part", ["vision", "language"])
def test_lora_targets_are_layers_of_their_part(captioner: CaptionerModel, part: str) -> None:
    layers = [name for name, _ in captioner.core().named_modules() if re.fullmatch(captioner.lora_targets(part), name)]
    assert len(layers) >= 2 * 4  # two layers, in each at least query, value and two of feed-forward
    prefixes = captioner.part_prefixes()[part]
    assert all(name.startswith(prefixes) for name in layers)


def test_captions_come_one_a_picture_with_scores(captioner: CaptionerModel, pixels: Tensor) -> None:
    written = captioner.generate(captioner.encode(pixels), Decoding(beams=2, max_new_tokens=8))
    assert len(written) == 3
    assert all(line.score < 0 and len(line.tokens) <= 8 for line in written)
    assert all(
        line.text == captioner.tokenizer.decode(line.tokens, skip_special_tokens=True).strip() for line in written
    )


def test_training_mode_reaches_only_what_learns(captioner: CaptionerModel) -> None:
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.1))
    captioner.train()
    assert not any(module.training for _, module in captioner.part_modules("vision"))
    assert any(module.training for _, module in captioner.part_modules("language"))
    assert not captioner.vision_learns()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_learned_is_saved_and_loaded(
    captioner: CaptionerModel, method: str, pixels: Tensor, tmp_path: Path
) -> None:
    before = captioner(**_rows(captioner), pixels=pixels).loss.detach()
    if method == "lora":
        add_lora(captioner, LoraOptions(rank=4, alpha=8, dropout=0.0, parts=("vision", "language")))
    losses = teach(captioner, steps=5)
    assert losses[-1] < losses[0]
    captioner.prompt, captioner.decoding = "a small", Decoding(beams=2, max_new_tokens=7)
    expected = captioner(**_rows(captioner), pixels=pixels).loss.detach()
    assert abs(expected - before) > 1e-3

    save_captioner(captioner, tmp_path / "run" / "model")
    loaded = load_captioner(str(tmp_path / "run"))

    torch.testing.assert_close(loaded(**_rows(loaded), pixels=pixels).loss, expected, rtol=1e-6, atol=1e-6)
    assert (loaded.prompt, loaded.decoding, loaded.image_spec) == ("a small", captioner.decoding, captioner.image_spec)
    assert loaded.generate(loaded.encode(pixels)) == captioner.generate(captioner.encode(pixels))


def _rows(captioner: CaptionerModel) -> dict[str, Tensor]:
    return captioner.pack([captioner.tokenize(texts, 20)[0] for texts in CAPTIONS]).to_dict()
