"""BLIP-2: sizes, what learns, prompts, saving, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    GPT2Config,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from captrain.errors import ModelError
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.families.blip2 import Blip2Captioner
from captrain.models.parts import PARTS
from captrain.models.what_learns import freeze
from captrain.testing import clear_pictures, teach, tiny_blip2

OPT = {"num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 50272}
FLAN_XL = {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "feed_forward_proj": "gated-gelu"}
PUBLISHED = {
    "opt-2.7b": (OPTConfig(**OPT, hidden_size=2560, ffn_dim=10240, word_embed_proj_dim=2560), 3.74),
    "opt-6.7b": (OPTConfig(**OPT, hidden_size=4096, ffn_dim=16384, word_embed_proj_dim=4096), 7.75),
}
"""Language models of the checkpoints, and billions of parameters of the whole as the hub states them."""

PLAIN_LOGITS = """
import sys, torch
from transformers import AutoModelForImageTextToText, AutoTokenizer
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1]).eval()
words = AutoTokenizer.from_pretrained(sys.argv[1])("a red dog", add_special_tokens=False)["input_ids"]
ids = torch.tensor([[model.config.image_token_index] * model.config.num_query_tokens + words])
pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
given = {"decoder_input_ids": torch.tensor([words])} if model.config.is_encoder_decoder else {}
assert not any(name.startswith("captrain") for name in sys.modules)
print(float(model(pixel_values=pixels, input_ids=ids, **given).logits[0, -1].double().square().sum()))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("blip2")
    return {language: tiny_blip2(root / language, language=language) for language in ("opt", "t5")}


@pytest.fixture(params=["opt", "t5"])
def captioner(request: pytest.FixtureRequest, folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(folders[request.param]))


@pytest.fixture
def opt(folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(folders["opt"]))


@pytest.fixture
def t5(folders: dict[str, Path]) -> CaptionerModel:
    return load_captioner(str(folders["t5"]))


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_opt_captioners_have_the_published_sizes(name: str) -> None:
    config, billions = PUBLISHED[name]
    assert _count(_unweighted(config)) / 1e9 == pytest.approx(billions, abs=0.005)


def test_parts_have_the_published_sizes() -> None:
    """About 1 billion for ViT-g; Flan-T5 XL has 2.85 billion, of which transformers gives the head only where it is stored."""
    model = _unweighted(T5Config(**FLAN_XL))
    assert _count(model.vision_model) == 985_952_256
    assert _count(model.qformer) + model.query_tokens.numel() == 105_162_240
    assert _count(model.language_model) + 32128 * 2048 == pytest.approx(2.85e9, rel=1e-3)


def test_adapters_reach_every_matrix_but_the_head(captioner: CaptionerModel) -> None:
    linear = {name for name, module in captioner.core().named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = {name for name in linear if any(re.fullmatch(captioner.lora_targets(part), name) for part in PARTS)}
    assert linear - chosen == {"language_model.lm_head"}
    assert all(name.startswith(captioner.part_prefixes()["bridge"]) for name in chosen if "qformer" in name)


def test_bridge_learns_from_kept_features(captioner: CaptionerModel) -> None:
    """The Q-Former is behind the seam: what is kept of a picture does not change while it learns."""
    freeze(captioner, ("vision", "language"))
    assert not captioner.vision_learns()
    features = captioner.encode(torch.from_numpy(clear_pictures(2))).detach()
    rows = captioner.pack([captioner.tokenize(["a red dog"], 20)[0]] * 2).to_dict()
    captioner.train()
    captioner(**rows, features=features).loss.backward()
    learned = {name for name, weight in captioner.core().named_parameters() if weight.grad is not None}
    assert {"query_tokens", "language_projection.weight"} <= learned
    assert all(name.startswith(("query_tokens", "qformer", "language_projection")) for name in learned)


def test_opt_reads_the_prompt_before_the_caption(opt: CaptionerModel) -> None:
    opt.prompt = "a small"
    rows = opt.pack([opt.tokenize(["red dog"], 20)[0]])
    assert opt.tokenizer.decode(rows.input_ids[0, 1:]) == "a small red dog"
    assert rows.labels[0].tolist()[2:] == [*opt.tokenizer("red dog")["input_ids"], opt.end_id]
    assert opt.end_id not in opt.tokenizer.get_vocab().values()  # published ones end with a line break


def test_t5_reads_the_prompt_in_its_encoder(t5: CaptionerModel) -> None:
    features = t5.encode(torch.from_numpy(clear_pictures(1)))
    bare = t5.project(features)
    t5.prompt = "a small"
    prompted = t5.project(features)
    assert bare.shape[1] == 4 + 1  # answers and end token
    assert prompted.shape[1] == 4 + 2 + 1
    assert t5.prompt_ids() == []
    rows = t5.pack([t5.tokenize(["red dog"], 20)[0]])
    assert t5.tokenizer.decode(rows.input_ids[0, 1:]) == "red dog"


def test_first_word_behind_a_prompt_keeps_its_space(opt: CaptionerModel) -> None:
    """OPT's tokens hold the space before a word: without it `of` and `two` would be read as `oftwo`."""
    words = Tokenizer(
        models.WordLevel({"</s>": 0, "a": 1, "Ġphoto": 2, "Ġof": 3, "two": 4, "Ġtwo": 5}, unk_token="</s>")
    )
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    opt.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="</s>", eos_token="</s>")
    assert opt.tokenize(["two"], 20)[0] == [[4]]
    opt.prompt = "a photo of"
    assert opt.prompt_ids() == [1, 2, 3]
    assert opt.tokenize(["two"], 20)[0] == [[5]]


def test_placeholder_of_the_image_is_never_written(opt: CaptionerModel) -> None:
    placeholder = opt.core().config.image_token_index
    with torch.no_grad():
        opt.decoder.lm_head.bias = torch.nn.Parameter(torch.zeros(opt.decoder.config.vocab_size))
        opt.decoder.lm_head.bias[placeholder] = 100.0
    written = opt.generate(opt.encode(torch.from_numpy(clear_pictures(2))), Decoding(max_new_tokens=4))
    assert all(placeholder not in line.tokens for line in written)


@pytest.mark.parametrize("captioner", ["opt", "t5"], indirect=True)
def test_saved_folder_is_plain_transformers_in_a_fresh_process(captioner: CaptionerModel, tmp_path: Path) -> None:
    teach(captioner, steps=2)
    save_captioner(captioner, tmp_path)
    core = captioner.core()
    words = captioner.tokenizer("a red dog", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[core.config.image_token_index] * core.config.num_query_tokens + words])
    given = {"decoder_input_ids": torch.tensor([words])} if core.config.is_encoder_decoder else {}
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    expected = core(pixel_values=pixels, input_ids=ids, **given).logits[0, -1].double().square().sum()
    done = subprocess.run([sys.executable, "-c", PLAIN_LOGITS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-6)


def test_t5_head_of_its_own_survives_saving(t5: CaptionerModel, tmp_path: Path) -> None:
    """Flan-T5's head is not its embedding, though transformers calls them tied."""
    head = t5.decoder.lm_head.weight.detach().clone()
    assert not torch.equal(head, t5.decoder.shared.weight)
    save_captioner(t5, tmp_path)
    assert torch.equal(load_captioner(str(tmp_path)).decoder.lm_head.weight, head)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"eos_token_id": None}, "has no eos_token_id in its text_config"),
        ({"bos_token_id": None}, "has no bos_token_id in its text_config"),
        ({"vocab_size": 5}, "its tokenizer has 23 entries, the language model only 5; use its own"),
        ({"model_type": "gpt2"}, "its language model is a 'gpt2'; expected one of opt, t5"),
    ],
)
def test_language_models_that_do_not_fit_are_refused_in_one_line(
    opt: CaptionerModel, change: dict[str, object], expected: str
) -> None:
    core = opt.core()
    if "model_type" in change:
        core.language_model.config = GPT2Config()
    else:
        core.language_model.config.update(change)
    with pytest.raises(ModelError, match=expected) as caught:
        Blip2Captioner(core, opt.tokenizer, opt.image_spec)
    assert "\n" not in str(caught.value)


def _unweighted(language: PreTrainedConfig) -> Blip2ForConditionalGeneration:
    """The whole captioner before a language model, without weights; all other sizes are those of the published ones."""
    with torch.device("meta"):
        return Blip2ForConditionalGeneration(Blip2Config(text_config=language.to_dict()))


def _count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
