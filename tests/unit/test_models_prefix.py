"""Prefix captioners: encoders, sizes, what learns, saving, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import Tensor

from captrain.errors import ModelError
from captrain.models.build import Mapper, NewDecoder, PreparationChanges, build_prefix, join_prefix, load_vision
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.checkpoint.image_preparation import read_preparation
from captrain.models.decoding import Decoding
from captrain.models.families.prefix.captioner import PrefixCaptioner, load_language
from captrain.models.families.prefix.mapper import PrefixConfig, make_mapper
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.vocabulary import load_tokenizer
from captrain.models.what_learns import count_parameters, freeze
from captrain.testing import LESSONS, clear_pictures, teach, tiny_text_decoder, tiny_vision_encoder

SIZES = NewDecoder(layers=1, width=32, heads=4, dropout=0.1, vocabulary_size=100)
SMALL = Mapper("transformer", prefix_length=4, projection_length=3, layers=1, heads=4)
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.1,
}
TEXT = {**TOWER, "vocab_size": 40, "max_position_embeddings": 64}
ENCODERS = {
    "vit": ("ViT", TOWER),
    "clip": ("CLIP", {"text_config": TEXT, "vision_config": TOWER | {"projection_dim": 16}, "projection_dim": 16}),
    "siglip": ("Siglip", {"text_config": TEXT, "vision_config": TOWER}),
    "dinov2": ("Dinov2", {**TOWER, "mlp_ratio": 2}),
    "mobilenet": ("MobileNetV1", {"image_size": 32, "depth_multiplier": 0.25}),
    "blip": ("BlipVision", TOWER),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tiny encoder and a tiny GPT-2."""
    folder = tmp_path_factory.mktemp("parts")
    return str(tiny_vision_encoder(folder / "vision")), str(tiny_text_decoder(folder / "language"))


@pytest.fixture
def captioner(folders: tuple[str, str]) -> PrefixCaptioner:
    return build_prefix(*folders, SIZES, [], SMALL)


@pytest.mark.parametrize(
    ("mapper", "vectors", "size", "count"),
    [
        (Mapper("mlp"), "pooled", 512, 31_468_800),
        (Mapper("mlp"), "pooled", 640, 31_960_320),  # "32M" in the paper, which uses CLIP RN50x4
        (Mapper("transformer"), "pooled", 512, 41_745_408),
        (Mapper("transformer"), "pooled", 640, 42_728_448),  # "43M" in the paper
        (Mapper("transformer", prefix_length=40, projection_length=40), "pooled", 640, 57_520_128),
        (Mapper("transformer", projection_length=50, positions=True), "all", 768, 38_434_560),
    ],
)
def test_sizes_are_those_of_clipcap(mapper: Mapper, vectors: str, size: int, count: int) -> None:
    config = PrefixConfig(
        feature_size=size, vectors=vectors, mapper=mapper.kind, prefix_length=mapper.prefix_length,
        projection_length=mapper.projection_length, mapper_positions=mapper.positions,
    )  # fmt: skip
    with torch.device("meta"):
        assert sum(weight.numel() for weight in make_mapper(config, 768).parameters()) == count


def test_weights_are_named_as_clipcap_names_them() -> None:
    mlp = make_mapper(PrefixConfig(feature_size=8, mapper="mlp"), 4)
    assert set(mlp.state_dict()) == {"model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"}
    names = set(make_mapper(PrefixConfig(feature_size=8, mapper="transformer", mapper_heads=2), 4).state_dict())
    assert {name for name in names if "layers" not in name} == {"prefix_const", "linear.weight", "linear.bias"}
    layer = ("attn.to_queries.weight", "attn.to_keys_values.weight", "attn.project.weight", "attn.project.bias",
             "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
             "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias")  # fmt: skip
    assert {name for name in names if "layers.7." in name} == {f"transformer.layers.7.{part}" for part in layer}


@pytest.mark.parametrize("vectors", ["all", "pooled"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_trains_saves_and_loads(kind: str, vectors: str, folders: tuple[str, str], tmp_path: Path) -> None:
    encoder = _save_encoder(kind, tmp_path / "encoder")
    mapper = Mapper("transformer", 4, 3, 1, 4, positions=True, normalize=True)
    captioner = build_prefix(encoder, folders[1], SIZES, [], mapper, vectors, changes=PreparationChanges(32))
    pixels = torch.from_numpy(clear_pictures(3))
    features = _features(captioner, pixels)
    assert (features.shape[1] == 1) == (vectors == "pooled" or kind == "mobilenet")
    assert (features[0] - features[1]).abs().mean() > 1e-3, "pictures can't be told apart"

    freeze(captioner, ("vision",))
    losses = teach(captioner, steps=5, learning_rate=1e-2)
    assert losses[-1] < losses[0] - 0.2
    save_captioner(captioner, tmp_path / "saved")
    loaded = load_captioner(str(tmp_path / "saved"))
    torch.testing.assert_close(_features(loaded, pixels), features)
    assert loaded.generate(features) == captioner.generate(features)


def test_pooled_vector_of_clip_is_its_projected_embedding(folders: tuple[str, str], tmp_path: Path) -> None:
    encoder = _save_encoder("clip", tmp_path)
    captioner = build_prefix(encoder, folders[1], SIZES, [], SMALL, changes=PreparationChanges(32))
    pixels = torch.from_numpy(clear_pictures(2))
    images = (pixels.permute(0, 3, 1, 2) / 255 - captioner.mean) / captioner.std
    plain = transformers.CLIPModel.from_pretrained(encoder).eval()
    expected = plain.visual_projection(plain.vision_model(images).pooler_output)
    assert expected.shape == (2, 16)
    torch.testing.assert_close(_features(captioner, pixels)[:, 0], expected)


def test_normalisation_is_stored_and_replayed(folders: tuple[str, str], tmp_path: Path) -> None:
    """Vectors of any length say the same, before and after saving; what is kept of pictures stays as the encoder gave it."""
    normalised = Mapper("transformer", 4, 3, 1, 4, normalize=True)
    captioner = build_prefix(*folders, SIZES, [], normalised).eval()
    features = _features(captioner, torch.from_numpy(clear_pictures(2)))
    assert (features.norm(dim=-1) - 1).abs().min() > 0.1
    save_captioner(captioner, tmp_path)
    for found in (captioner, load_captioner(str(tmp_path))):
        torch.testing.assert_close(found.project(features), found.project(features * 7))
    plain = build_prefix(*folders, SIZES, [], SMALL).eval()
    assert (plain.project(features) - plain.project(features * 7)).abs().max() > 0.01


def test_mapper_alone_learns_behind_a_resting_language_model(captioner: PrefixCaptioner) -> None:
    freeze(captioner, ("vision", "language"))
    counts = count_parameters(captioner)
    assert [bool(counts[part]["trainable"]) for part in ("vision", "bridge", "language")] == [False, True, False]
    captioner.train()
    assert any(type(module).__name__ == "Dropout" for module in captioner.decoder.modules())
    assert not any(module.training for module in [*captioner.decoder.modules(), *captioner.core().encoder.modules()])
    assert all(module.training for module in captioner.core().mapper.modules())
    before = captioner.decoder.transformer.wte.weight.clone()
    losses = teach(captioner, steps=10, learning_rate=1e-2)
    assert losses[-1] < losses[0] - 0.2
    assert torch.equal(captioner.decoder.transformer.wte.weight, before)


def test_adapters_on_the_language_model_beside_a_mapper_that_learns_whole(
    captioner: PrefixCaptioner, tmp_path: Path
) -> None:
    save_captioner(captioner, tmp_path / "run" / "base")
    captioner.core().name_or_path = "/moved/away"
    add_lora(captioner, LoraOptions(rank=2, alpha=4, dropout=0.0), fresh_modules=("mapper",))
    learning = [name for name, weight in captioner.named_parameters() if weight.requires_grad]
    assert {name.split(".")[3] for name in learning} == {"mapper", "language"}
    assert all("lora_" in name for name in learning if ".language." in name)
    mapper = sum(count for name, count in _sizes(captioner).items() if ".mapper.modules_to_save." in name)
    assert count_parameters(captioner)["bridge"]["trainable"] == mapper > 0
    losses = teach(captioner, steps=10, learning_rate=1e-2)
    assert losses[-1] < losses[0]

    save_captioner(captioner, tmp_path / "run" / "model")
    loaded = load_captioner(str(tmp_path / "run"))
    features = _features(captioner, torch.from_numpy(clear_pictures(3)))
    assert loaded.generate(features) == captioner.generate(features)


def test_new_language_model_learns_to_write(folders: tuple[str, str]) -> None:
    captioner = build_prefix(folders[0], None, SIZES, list(LESSONS) * 2, SMALL, seed=1)
    assert captioner.decoder.config.model_type == "gpt2"
    assert not captioner.decoder.config.add_cross_attention
    assert captioner.decoder.config.vocab_size == len(captioner.tokenizer)
    freeze(captioner, ("vision",))
    teach(captioner, steps=80, learning_rate=1e-2)
    features = _features(captioner, torch.from_numpy(clear_pictures(8)))
    assert [line.text for line in captioner.generate(features)] == list(LESSONS)
    assert captioner.generation_config(Decoding()).suppress_tokens == [captioner.tokenizer.unk_token_id]
    again, other = (build_prefix(folders[0], None, SIZES, LESSONS * 2, SMALL, seed=seed) for seed in (1, 2))
    first = build_prefix(folders[0], None, SIZES, LESSONS * 2, SMALL, seed=1)
    assert torch.equal(first.core().mapper.prefix_const, again.core().mapper.prefix_const)
    assert not torch.equal(first.core().mapper.prefix_const, other.core().mapper.prefix_const)


def test_parts_keep_their_weights_when_joined(folders: tuple[str, str], captioner: PrefixCaptioner) -> None:
    plain = transformers.ViTModel.from_pretrained(folders[0]), transformers.GPT2LMHeadModel.from_pretrained(folders[1])
    for model, part in zip(plain, (captioner.core().encoder, captioner.core().language), strict=True):
        weights = part.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_saved_once_where_weights_are_tied_and_loaded_by_a_stranger(captioner: PrefixCaptioner, tmp_path: Path) -> None:
    """In a process of its own, with AutoModel, after captrain's own models were registered."""
    freeze(captioner, ("vision",))
    teach(captioner, steps=60, learning_rate=1e-2)
    save_captioner(captioner, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix not in (".json",)) == [".safetensors"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        entries = captioner.decoder.config.vocab_size
        assert len([name for name in file.keys() if file.get_slice(name).get_shape() == [entries, 32]]) == 1  # noqa: SIM118
    pixels = (torch.from_numpy(clear_pictures(8)).permute(0, 3, 1, 2) / 255 - captioner.mean) / captioner.std
    torch.save(pixels, tmp_path / "pixels.pt")
    program = (
        "import torch\n"
        "from captrain.models.checkpoint.loading import register_own_models\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "register_own_models()\n"
        "model = AutoModel.from_pretrained('.').eval()\n"
        "assert model.language.lm_head.weight is model.language.transformer.wte.weight\n"
        "ids = model.generate(torch.load('pixels.pt'), num_beams=3, max_new_tokens=12)\n"
        "texts = AutoTokenizer.from_pretrained('.').batch_decode(ids, skip_special_tokens=True)\n"
        "print('|'.join(text.strip() for text in texts))\n"
        "print(*model(torch.load('pixels.pt'), ids[:, :2]).logits.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    shape = f"8 {4 + 2} {captioner.decoder.config.vocab_size}"
    assert done.stdout.splitlines()[-2:] == ["|".join(LESSONS), shape], done.stderr[-2000:]


@pytest.mark.parametrize("beams", [1, 5])
def test_prefix_goes_through_the_language_model_once_an_image(captioner: PrefixCaptioner, beams: int) -> None:
    """Vectors that pass the first layer: an image's 3 of the prefix, its last one with the prompt, then one a beam and step."""
    captioner.prompt = "a small"
    features = _features(captioner, torch.from_numpy(clear_pictures(2)))
    passed: list[tuple[int, int]] = []
    hook = captioner.decoder.transformer.h[0].register_forward_pre_hook(
        lambda _, inputs: passed.append(tuple(inputs[0].shape[:2]))
    )
    captioner.generate(features, Decoding(beams=beams, max_new_tokens=6, min_new_tokens=6))
    hook.remove()
    prompt = len(captioner.prompt_ids())
    assert passed[:2] == [(2, 3), (2, 1 + prompt)]
    assert passed[2:] == [(2 * beams, 1)] * 5, "the first word comes with the prompt"


def test_captions_are_no_longer_than_the_context(captioner: PrefixCaptioner) -> None:
    features = _features(captioner, torch.from_numpy(clear_pictures(1)))
    assert captioner.max_positions == 64 - 4 + 1
    written = captioner.generate(features, Decoding(beams=1, max_new_tokens=500, min_new_tokens=60))
    assert len(written[0].tokens) == captioner.max_positions - 1


def test_bf16_learns_and_writes(captioner: PrefixCaptioner) -> None:
    captioner.precision = torch.bfloat16
    freeze(captioner, ("vision",))
    losses = teach(captioner, steps=30, learning_rate=1e-2)
    assert losses[-1] < 0.5 * losses[0]
    features = _features(captioner, torch.from_numpy(clear_pictures(2))).to(torch.bfloat16)
    assert all(line.score < 0 for line in captioner.generate(features, Decoding(beams=3, max_new_tokens=8)))


def test_what_does_not_fit_is_refused_in_one_line(folders: tuple[str, str], tmp_path: Path) -> None:
    encoder, language = folders
    transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path / "bert")
    bloom = transformers.BloomConfig(vocab_size=40, hidden_size=32, n_layer=1, n_head=4)
    transformers.BloomForCausalLM(bloom).save_pretrained(tmp_path / "bloom")
    refused = {
        r"mapper mlp reads one vector an image; use": (encoder, language, Mapper("mlp"), "all"),
        r"5 heads do not divide the language model's width of 32": (encoder, language, Mapper("transformer", heads=5)),
        r"prefix_length: 63 vectors leave no room .* context of 64": (encoder, language, Mapper(prefix_length=63)),
        r"prefix_length 0, .* expected at least 1": (encoder, language, Mapper(prefix_length=0)),
        r"'bloom' can't be the language model behind a prefix; expected one of gpt2": (
            encoder, str(tmp_path / "bloom"), SMALL,
        ),
        r"'bert' reads input_ids, not pictures": (str(tmp_path / "bert"), language, SMALL),
        r"no tokenizer could be loaded|its tokenizer has": (encoder, _without_tokenizer(language, tmp_path), SMALL),
        r"5 heads do not divide a width of 32": (encoder, None, SMALL, "pooled", NewDecoder(1, 32, 5, 0.0, 100)),
    }  # fmt: skip
    for message, (vision, words, mapper, *rest) in refused.items():
        vectors, sizes = [*rest, *["pooled", SIZES][len(rest) :]]
        with pytest.raises(ModelError, match=message) as error:
            build_prefix(vision, words, sizes, LESSONS, mapper, vectors, changes=PreparationChanges(32))
        assert "\n" not in str(error.value)


def test_tokenizer_must_fit_and_end(folders: tuple[str, str]) -> None:
    spec = read_preparation(folders[0])
    for change, message in (("end", "has no end token"), ("size", "entries, the model only 23")):
        tokenizer = load_tokenizer(folders[1])
        if change == "end":
            tokenizer.eos_token = None
        else:
            tokenizer.add_tokens(["more", "words"])
        with pytest.raises(ModelError, match=message):
            vision = load_vision(folders[0], "pooled", spec)
            join_prefix(vision, load_language(folders[1]), tokenizer, SMALL, "pooled", spec)


def test_foreign_features_are_refused_in_one_line(captioner: PrefixCaptioner, folders: tuple[str, str]) -> None:
    with pytest.raises(ModelError, match="found vectors of width 99, expected 24"):
        captioner.project(torch.zeros(1, 1, 99))
    with pytest.raises(ModelError, match="found 5 vectors an image, expected 1"):
        captioner.project(torch.zeros(1, 5, 24))
    placed = build_prefix(*folders, SIZES, [], Mapper("transformer", 4, 3, 1, 4, positions=True), "all")
    with pytest.raises(ModelError, match="found 5 vectors an image, expected 17"):
        placed.project(torch.zeros(1, 5, 24))


def _save_encoder(kind: str, folder: Path) -> str:
    name, settings = ENCODERS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings))
    if kind == "mobilenet":
        with torch.no_grad():
            for weight_name, weight in model.named_parameters():
                if "convolution" in weight_name and weight.dim() > 1:
                    weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
    model.save_pretrained(folder)
    return str(folder)


def _without_tokenizer(language: str, folder: Path) -> str:
    target = folder / "silent"
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        (target / name).write_bytes(Path(language, name).read_bytes())
    return str(target)


def _sizes(captioner: PrefixCaptioner) -> dict[str, int]:
    return {name: weight.numel() for name, weight in captioner.named_parameters()}


def _features(captioner: PrefixCaptioner, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return captioner.eval().encode(pixels)
