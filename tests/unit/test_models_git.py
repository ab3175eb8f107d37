"""GIT: sizes, what gets adapters, saving, other image sizes, videos' checkpoints, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertTokenizer, GitConfig, PreTrainedTokenizerFast

from captrain.data.images import ImageSpec
from captrain.errors import ModelError
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.families.git import GitCaptioner, GitForCausalLM, behind_image
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.parts import PARTS
from captrain.testing import clear_pictures, teach, tiny_git

PLAIN_LOGITS = """
import sys, torch
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
ids = AutoTokenizer.from_pretrained(sys.argv[1])("a red dog", return_tensors="pt").input_ids
pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
assert AutoImageProcessor.from_pretrained(sys.argv[1]).size == {"shortest_edge": 32}
assert not any(name.startswith("captrain") for name in sys.modules)
print(type(model).__module__, float(model(pixel_values=pixels, input_ids=ids).logits[0, -1].double().square().sum()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_git(tmp_path_factory.mktemp("git"))


@pytest.fixture
def captioner(folder: Path) -> CaptionerModel:
    return load_captioner(str(folder))


@pytest.mark.parametrize(
    ("vision", "millions"),
    [
        ({}, 177),
        ({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}, 394),
    ],
)
def test_base_and_large_have_the_published_sizes(vision: dict[str, int], millions: int) -> None:
    """As the hub states them for microsoft/git-base and git-large; large has patches of 14 pixels."""
    with torch.device("meta"):
        model = GitForCausalLM(GitConfig(vision_config=vision | {"patch_size": 14 if vision else 16}))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == millions


def test_adapters_reach_every_matrix_but_the_head(captioner: CaptionerModel) -> None:
    linear = {name for name, module in captioner.core().named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = {name for name in linear if any(re.fullmatch(captioner.lora_targets(part), name) for part in PARTS)}
    assert linear - chosen == {"output"}
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0, parts=PARTS))
    assert teach(captioner, steps=3)[-1] < teach(captioner, steps=1)[0] * 2


def test_words_see_the_whole_image_and_the_image_no_word() -> None:
    mask = torch.tensor([[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]], dtype=torch.bool)
    assert behind_image(mask, 2)[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_saved_folder_is_plain_transformers_in_a_fresh_process(captioner: CaptionerModel, tmp_path: Path) -> None:
    teach(captioner, steps=2)
    save_captioner(captioner, tmp_path)
    ids = captioner.tokenizer("a red dog", return_tensors="pt").input_ids
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    expected = captioner.core()(pixel_values=pixels, input_ids=ids).logits[0, -1].double().square().sum()
    done = subprocess.run([sys.executable, "-c", PLAIN_LOGITS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    module, found = done.stdout.split()
    assert module == "transformers.models.git.modeling_git"
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_pictures_of_another_size_are_interpolated(captioner: CaptionerModel) -> None:
    features = captioner.encode(torch.from_numpy(clear_pictures(2, 48)))
    assert features.shape == (2, 1 + 6 * 6, 24)
    rows = captioner.pack([captioner.tokenize(["a red dog"], 20)[0]] * 2).to_dict()
    assert torch.isfinite(captioner(**rows, features=features).loss)
    assert len(captioner.generate(features)) == 2


def test_checkpoint_for_videos_captions_single_pictures(folder: Path, captioner: CaptionerModel) -> None:
    """Its embeddings of frames stand aside, and belong to the bridge."""
    config = GitConfig.from_pretrained(folder, num_image_with_embedding=3)
    torch.manual_seed(0)
    video = GitCaptioner(GitForCausalLM(config).eval(), captioner.tokenizer, captioner.image_spec)
    names = [name for members in video.parts().values() for name, _ in members]
    assert sorted(names) == sorted(name for name, _ in video.named_parameters())
    pixels = torch.from_numpy(clear_pictures(2))
    plain = transformers.GitForCausalLM(config).eval()
    plain.load_state_dict(video.core().state_dict())
    ids = captioner.tokenizer("a red dog", return_tensors="pt", add_special_tokens=False).input_ids
    rows = video.pack([[ids[0].tolist()]]).to_dict()
    ours = video(**rows, pixels=pixels[:1]).logits
    pictures = (pixels[:1].permute(0, 3, 1, 2) / 255 - video.mean) / video.std
    expected = plain(pixel_values=pictures, input_ids=rows["input_ids"]).logits[0, -ours.shape[0] :]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_gives_nearly_the_same_loss(captioner: CaptionerModel) -> None:
    pixels = torch.from_numpy(clear_pictures(2))
    rows = captioner.pack([captioner.tokenize(["a red dog", "the cat sits"], 20)[0]] * 2).to_dict()
    exact = captioner(**rows, pixels=pixels).loss.detach()
    captioner.precision = torch.bfloat16
    assert float(captioner(**rows, pixels=pixels).loss.detach()) == pytest.approx(float(exact), rel=0.02)
    assert len(captioner.generate(captioner.encode(pixels))) == 2


@pytest.mark.parametrize("kind", ["no start", "too many words"])
def test_foreign_tokenizers_are_refused_in_one_line(captioner: CaptionerModel, kind: str) -> None:
    tokenizer: transformers.PreTrainedTokenizerBase
    if kind == "no start":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=captioner.tokenizer.backend_tokenizer, eos_token="[SEP]")
        expected = "no start or end token; expected cls_token and sep_token"
    else:
        tokenizer = BertTokenizer(vocab={**captioner.tokenizer.get_vocab(), "elephant": len(captioner.tokenizer)})
        expected = "the model only 27; use its own"
    with pytest.raises(ModelError, match=expected) as caught:
        GitCaptioner(captioner.core(), tokenizer, ImageSpec(32, 32, (0.5,) * 3, (0.5,) * 3))
    assert "\n" not in str(caught.value)


def test_text_only_checkpoint_is_refused_in_one_line(tmp_path: Path, captioner: CaptionerModel) -> None:
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    captioner.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"a 'bert' belongs to no known family; families: .*git"):
        load_captioner(str(tmp_path))
