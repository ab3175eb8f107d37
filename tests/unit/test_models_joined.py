"""Captioners joined from encoders and decoders of many kinds, each built tiny and saved as its checkpoint would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import BertTokenizer, PreTrainedModel, VisionEncoderDecoderModel

from captrain.errors import ModelError
from captrain.models.build import NewDecoder, PreparationChanges, build_encoder_decoder
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding
from captrain.models.layers.vision import VisionVectors
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.what_learns import freeze
from captrain.testing import LESSONS, WORDS, clear_pictures, teach, tiny_text_decoder, tiny_vision_encoder

SIZES = NewDecoder(layers=1, width=32, heads=4, dropout=0.1, vocabulary_size=100)
VIT = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.1,
}
TEXT = {**VIT, "num_hidden_layers": 1, "vocab_size": 40, "max_position_embeddings": 64, "initializer_range": 0.1}


def _of(name: str, config: str, *, wrapped: bool = False, **settings: object) -> tuple:
    return name, config, wrapped, settings


ENCODERS: dict[str, tuple] = {
    "vit": _of("ViTModel", "ViTConfig", **VIT),
    "clip": _of("CLIPModel", "CLIPConfig", text_config=TEXT, vision_config=VIT, projection_dim=16),
    "siglip": _of("SiglipModel", "SiglipConfig", text_config=TEXT, vision_config=VIT),
    "dinov2": _of("Dinov2Model", "Dinov2Config", **{**VIT, "mlp_ratio": 2}),
    "swin": _of(
        "SwinModel", "SwinConfig", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
        window_size=4, initializer_range=0.1,
    ),
    "mobilenet": _of("MobileNetV1Model", "MobileNetV1Config", wrapped=True, image_size=32, depth_multiplier=0.25),
    "convnext": _of(
        "ConvNextModel", "ConvNextConfig", wrapped=True, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2,
        image_size=32, initializer_range=0.1,
    ),
    "blip": _of("BlipVisionModel", "BlipVisionConfig", **VIT),
}  # fmt: skip


def _save_encoder(kind: str, folder: Path) -> Path:
    name, config, _, settings = ENCODERS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    if kind == "mobilenet":
        _scale(model, lambda name: "convolution" in name, to_deviation=True)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("vectors", ["all", "pooled"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_trains_saves_and_loads(kind: str, vectors: str, tmp_path: Path) -> None:
    encoder = _save_encoder(kind, tmp_path / "encoder")
    captioner = build_encoder_decoder(
        str(encoder), None, SIZES, list(LESSONS) * 2, vectors, changes=PreparationChanges(32)
    )
    pixels = torch.from_numpy(clear_pictures(3))
    features = _features(captioner, pixels)
    assert features.shape[1] == 1 if vectors == "pooled" else features.shape[1] >= 1
    assert (features[0] - features[1]).abs().mean() > 1e-3, "pictures can't be told apart"

    freeze(captioner, ("vision",))
    losses = teach(captioner, steps=5, learning_rate=1e-2)
    assert losses[-1] < losses[0] - 0.2
    captioner.train()
    assert not any(module.training for _, module in captioner.part_modules("vision"))
    torch.testing.assert_close(_features(captioner, pixels), features)

    save_captioner(captioner, tmp_path / "saved")
    loaded = load_captioner(str(tmp_path / "saved"))
    captioner.eval()
    assert isinstance(loaded.core().encoder, VisionVectors) == (vectors == "pooled" or ENCODERS[kind][2])
    torch.testing.assert_close(_features(loaded, pixels), features)
    assert loaded.generate(features) == captioner.generate(features)


@pytest.mark.parametrize("kind", ["vit", "swin", "mobilenet", "convnext"])
def test_encoder_keeps_its_weights_when_wrapped(kind: str, tmp_path: Path) -> None:
    """Norms and statistics too, which are easily taken for new and begun anew."""
    encoder = _save_encoder(kind, tmp_path)
    name = ENCODERS[kind][0]
    model = getattr(transformers, name).from_pretrained(encoder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            if weight.is_floating_point():
                weight.add_(torch.rand_like(weight))
    model.save_pretrained(encoder)
    captioner = build_encoder_decoder(str(encoder), None, SIZES, LESSONS, "pooled", changes=PreparationChanges(32))
    save_captioner(captioner, tmp_path / "saved")
    for found in (captioner, load_captioner(str(tmp_path / "saved"))):
        weights = found.core().encoder.encoder.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_vision_part_learns_when_asked(tmp_path: Path) -> None:
    captioner = build_encoder_decoder(
        str(_save_encoder("convnext", tmp_path)), None, SIZES, LESSONS, changes=PreparationChanges(32)
    )
    freeze(captioner, ("language",))
    before = _features(captioner, torch.from_numpy(clear_pictures(2)))
    losses = teach(captioner, steps=5, learning_rate=1e-2)
    assert losses[-1] < losses[0]
    assert (_features(captioner, torch.from_numpy(clear_pictures(2))) - before).abs().max() > 1e-3


def test_grid_is_read_row_by_row(tmp_path: Path) -> None:
    """One bright corner: its vector, and no other, stands where reading order puts it."""
    captioner = build_encoder_decoder(
        str(_save_encoder("convnext", tmp_path)), None, SIZES, LESSONS, changes=PreparationChanges(64)
    )
    dark = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    lit = dark.clone()
    lit[:, :16, 48:] = 255
    change = (_features(captioner, lit) - _features(captioner, dark)).abs().sum(-1)[0]
    side = int(len(change) ** 0.5)
    assert side**2 == len(change)
    assert change.view(side, side)[: side // 2, side // 2 :].sum() > 0.9 * change.sum()


def test_joined_captioner_of_plain_parts_is_plain(tmp_path: Path) -> None:
    """ViT and GPT-2 need no wrapping: what is saved is a `VisionEncoderDecoderModel` that needs nothing of captrain."""
    captioner = build_encoder_decoder(
        str(tiny_vision_encoder(tmp_path / "v")), str(tiny_text_decoder(tmp_path / "t")), SIZES, []
    )
    save_captioner(captioner, tmp_path / "saved")
    assert "captrain" not in (tmp_path / "saved" / "config.json").read_text()
    plain = VisionEncoderDecoderModel.from_pretrained(tmp_path / "saved")
    assert plain.config.decoder_start_token_id == captioner.start_id
    for name, weight in captioner.core().state_dict().items():
        assert torch.equal(weight, plain.state_dict()[name]), name


def _bert_like(config: str, model: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        vocabulary = {token: place for place, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split()])}
        settings = {**TEXT, "vocab_size": len(vocabulary), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        torch.manual_seed(0)
        getattr(transformers, model)(getattr(transformers, config)(**settings, is_decoder=True)).save_pretrained(folder)
        BertTokenizer(vocab=vocabulary).save_pretrained(folder)

    return save


DECODERS: dict[str, Callable[[Path], object]] = {
    "gpt2": tiny_text_decoder,
    "bert": _bert_like("BertConfig", "BertLMHeadModel"),
    "roberta": _bert_like("RobertaConfig", "RobertaForCausalLM"),
    "bert-generation": _bert_like("BertGenerationConfig", "BertGenerationDecoder"),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_agrees_with_transformers_learns_and_comes_back(kind: str, tmp_path: Path) -> None:
    captioner = _with_decoder(kind, tmp_path)
    pixels = torch.from_numpy(clear_pictures(8))
    images = (pixels.permute(0, 3, 1, 2) / 255 - captioner.mean) / captioner.std

    for decoding in (Decoding(beams=1, max_new_tokens=8), Decoding(beams=3, max_new_tokens=8)):
        config = decoding.generation_config(captioner.start_id, captioner.end_id, captioner.pad_id)
        start = torch.full((8, 1), captioner.start_id)
        rows = captioner.core().generate(pixel_values=images, decoder_input_ids=start, generation_config=config)
        ours = [line.tokens for line in captioner.generate(_features(captioner, pixels), decoding)]
        assert ours == [_until(row[1:], captioner.end_id) for row in rows.tolist()], decoding

    ids, _ = captioner.tokenize(["a red dog", "the cat sits on grass"], 20)
    packed = captioner(**captioner.pack([ids]).to_dict(), pixels=pixels[:1]).logits
    plain = [
        captioner.core()(
            pixel_values=images[:1], decoder_input_ids=torch.tensor([[captioner.start_id, *caption]])
        ).logits[0]
        for caption in ids
    ]
    torch.testing.assert_close(packed, torch.cat(plain), rtol=1e-4, atol=1e-4)

    losses = teach(captioner, steps=90)
    assert losses[-1] < 0.5
    save_captioner(captioner, tmp_path / "saved")
    loaded = load_captioner(str(tmp_path / "saved"))
    assert [line.text for line in loaded.generate(_features(loaded, pixels))] == list(LESSONS)


def test_lora_on_a_joined_captioner_lets_new_cross_attention_learn_whole(tmp_path: Path) -> None:
    captioner = _with_decoder("gpt2", tmp_path)
    save_captioner(captioner, tmp_path / "run" / "base")
    captioner.core().name_or_path = "/moved/away"
    add_lora(
        captioner,
        LoraOptions(rank=2, alpha=4, dropout=0.0),
        fresh_modules=("crossattention", "ln_cross_attn", "enc_to_dec_proj"),
    )
    learning = [name for name, parameter in captioner.named_parameters() if parameter.requires_grad]
    adapters = [name for name in learning if "lora_" in name]
    whole = [name for name in learning if "lora_" not in name]
    assert adapters and not any("crossattention" in name for name in adapters)
    assert {"crossattention", "ln_cross_attn", "enc_to_dec_proj"} == {
        fresh
        for fresh in ("crossattention", "ln_cross_attn", "enc_to_dec_proj")
        if any(fresh in name for name in whole)
    }
    assert all("modules_to_save" in name for name in whole)
    losses = teach(captioner, steps=10, learning_rate=1e-2)
    assert losses[-1] < losses[0]

    save_captioner(captioner, tmp_path / "run" / "model")
    loaded = load_captioner(str(tmp_path / "run"))  # the base is found beside the adapter, wherever the run was moved
    features = _features(captioner, torch.from_numpy(clear_pictures(3)))
    assert loaded.generate(features) == captioner.generate(features)


@pytest.mark.parametrize("model", ["LlamaForCausalLM", "OPTForCausalLM", "ElectraForCausalLM"])
def test_decoder_without_cross_attention_is_refused_in_one_line(model: str, tmp_path: Path) -> None:
    settings = {**TEXT, "word_embed_proj_dim": 24, "ffn_dim": 48, "embedding_size": 24}
    config = getattr(transformers, model.replace("ForCausalLM", "Config"))(**settings)
    getattr(transformers, model)(config).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ModelError, match=r"can't be the decoder.*gpt2") as error:
        build_encoder_decoder(str(tiny_vision_encoder(tmp_path / "v")), str(tmp_path / "decoder"), SIZES, [])
    assert "\n" not in str(error.value)


def test_text_model_is_refused_as_an_encoder(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'bert' reads input_ids, not pictures"):
        build_encoder_decoder(str(tmp_path), None, SIZES, LESSONS, changes=PreparationChanges(32))


def test_encoder_without_preparation_needs_a_size(tmp_path: Path) -> None:
    _save_encoder("vit", tmp_path)
    with pytest.raises(ModelError, match="give --image-size"):
        build_encoder_decoder(str(tmp_path), None, SIZES, LESSONS)


def test_heads_must_divide_the_width(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="5 heads do not divide a width of 32"):
        build_encoder_decoder(
            str(tiny_vision_encoder(tmp_path)),
            None,
            NewDecoder(1, 32, 5, 0.0, 100),
            LESSONS,
            changes=PreparationChanges(32),
        )


def test_same_seed_same_new_weights(tmp_path: Path) -> None:
    encoder = str(tiny_vision_encoder(tmp_path))
    one, same, other = (build_encoder_decoder(encoder, None, SIZES, LESSONS, seed=seed) for seed in (1, 1, 2))
    weights = [captioner.decoder.transformer.h[0].mlp.c_fc.weight for captioner in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def _with_decoder(kind: str, folder: Path) -> CaptionerModel:
    """A lively captioner of the tiny ViT and a pretrained decoder, its new cross-attention made to matter."""
    DECODERS[kind](folder / "language")
    encoder = str(tiny_vision_encoder(folder / "vision"))
    captioner = build_encoder_decoder(encoder, str(folder / "language"), SIZES, []).eval()
    _scale(captioner, lambda name: "crossattention" in name or "enc_to_dec" in name)
    return captioner


@torch.no_grad()
def _scale(model: torch.nn.Module | PreTrainedModel, chosen: Callable[[str], bool], to_deviation: bool = False) -> None:
    """Make new weights matter: eight times larger, or (convolutions) so that variance passes through."""
    for name, weight in model.named_parameters():
        if chosen(name) and weight.dim() > 1:
            if to_deviation:
                weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
            else:
                weight.mul_(8)


def _features(captioner: CaptionerModel, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return captioner.encode(pixels)


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
