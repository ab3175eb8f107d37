"""Prefix captioners in fp32 against ClipCap's formula and plain transformers: logits, loss, gradients, captions, scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm, linear, relu
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from captrain.models.build import Mapper, join_prefix, load_vision
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.checkpoint.image_preparation import read_preparation
from captrain.models.decoding import Decoding
from captrain.models.families.prefix.captioner import CAUSAL, SEQ2SEQ, PrefixCaptioner
from captrain.models.families.prefix.mapper import TransformerMapper
from captrain.models.layers.packing import IGNORED
from captrain.models.vocabulary import load_tokenizer
from captrain.testing import clear_pictures, teach, tiny_text_decoder, tiny_vision_encoder

CAPTIONS = [
    ["a red dog runs", "the dog", "one large red circle in the snow"],
    ["a blue cat sits"],
    ["two small green square with a cat and a dog", "grass"],
]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
PREFIX = 4
MAPPERS = {
    "mlp": Mapper("mlp", PREFIX),
    "transformer": Mapper("transformer", PREFIX, projection_length=3, layers=2, heads=4, normalize=True),
    "all vectors": Mapper("transformer", PREFIX, layers=1, heads=4, positions=True),
    "prefix of one": Mapper("mlp", 1),
}
LENGTH = 12


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision_encoder(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its tokenizer."""
    return tiny_text_decoder(tmp_path_factory.mktemp("language"))


@pytest.fixture
def captioner(request: pytest.FixtureRequest, encoder: Path, words: Path) -> PrefixCaptioner:
    """By the name of a mapper (before GPT-2), or by the kind of a language model (behind a transformer mapper)."""
    return _captioner(request.param, encoder, words)


@pytest.mark.parametrize("captioner", MAPPERS, indirect=True)
def test_loss_and_logits_are_those_of_clipcap(captioner: PrefixCaptioner) -> None:
    """`embeddings = cat(prefix, words); logits[:, P - 1 : -1]` against the tokens, as ClipCap's train.py has it."""
    pixels = torch.from_numpy(clear_pictures(3))
    gpt = AutoModelForCausalLM.from_config(captioner.decoder.config).eval()
    gpt.load_state_dict(captioner.decoder.state_dict())
    captions = [captioner.tokenize(texts[:1], 30)[0][0] for texts in CAPTIONS]
    features = _features(captioner, pixels)

    losses, rows = [], []
    for image, caption in enumerate(captions):
        tokens = torch.tensor([[*caption, captioner.end_id]])
        prefix = _clipcap_prefix(captioner, features[[image]])
        logits = gpt(inputs_embeds=torch.cat([prefix, gpt.transformer.wte(tokens)], 1)).logits[
            :, prefix.shape[1] - 1 : -1
        ]
        losses.append(cross_entropy(logits[0], tokens[0], reduction="sum"))
        rows.append(logits[0])
    ours = captioner(**captioner.pack([[caption] for caption in captions]).to_dict(), pixels=pixels)

    torch.testing.assert_close(ours.logits, torch.cat(rows), **TOLERANCE)
    torch.testing.assert_close(ours.loss, sum(losses) / sum(len(row) for row in rows), **TOLERANCE)
    kept = captioner(**captioner.pack([[caption] for caption in captions]).to_dict(), features=features)
    torch.testing.assert_close(kept.loss, ours.loss)


@pytest.mark.parametrize("captioner", [*MAPPERS, "t5", "llama"], indirect=True)
@pytest.mark.parametrize("prompt", ["", "a small"])
def test_packed_rows_equal_one_caption_a_row_with_gradients(captioner: PrefixCaptioner, prompt: str) -> None:
    captioner.prompt = prompt
    pixels = torch.from_numpy(clear_pictures(3))
    rows = [captioner.tokenize(texts, 30)[0] for texts in CAPTIONS]
    ours = captioner(**captioner.pack(rows).to_dict(), pixels=pixels)
    ours.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in captioner.named_parameters() if weight.grad is not None}

    captioner.zero_grad()
    apart = [
        captioner(**captioner.pack([[caption]]).to_dict(), pixels=pixels[[image]])
        for image, row in enumerate(rows)
        for caption in row
    ]
    tokens = sum(len(one.targets) for one in apart)
    loss = sum(one.loss * len(one.targets) for one in apart) / tokens
    loss.backward()
    torch.testing.assert_close(ours.logits, torch.cat([one.logits for one in apart]), **_of_size(ours.logits))
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    learning = {name: weight for name, weight in captioner.named_parameters() if weight.grad is not None}
    assert {name.split(".")[1] for name in learning} == {"encoder", "mapper", "language"}
    for name, weight in learning.items():
        torch.testing.assert_close(gradients[name], weight.grad, **_of_size(weight.grad))


def test_t5_loss_is_the_one_transformers_computes_itself(encoder: Path, words: Path) -> None:
    captioner = _captioner("t5", encoder, words)
    plain = AutoModelForSeq2SeqLM.from_config(captioner.decoder.config).eval()
    plain.load_state_dict(captioner.decoder.state_dict())
    features = _features(captioner, torch.from_numpy(clear_pictures(2)))
    rows = [captioner.tokenize([text], 20)[0] for text in ("a red dog runs", "the cat sits")]
    labels = torch.full((2, 5), IGNORED)
    for row, (caption,) in enumerate(rows):
        labels[row, : len(caption) + 1] = torch.tensor([*caption, captioner.end_id])
    expected = plain(inputs_embeds=captioner.core().prefix(features), labels=labels).loss
    assert expected > 1
    ours = captioner(**captioner.pack(rows).to_dict(), features=features).loss
    torch.testing.assert_close(ours, expected, **TOLERANCE)


@pytest.fixture(scope="module")
def taught(encoder: Path, words: Path) -> Callable[[str], PrefixCaptioner]:
    """By its kind, a captioner whose captions differ from picture to picture; taught once."""

    @cache
    def captioner(kind: str) -> PrefixCaptioner:
        made = _captioner(kind, encoder, words)
        teach(made, steps=40, learning_rate=1e-2)
        return made

    return captioner


@pytest.mark.parametrize("kind", ["transformer", "mlp", "prefix of one", "t5"])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("prompt", ["", "a"])
def test_captions_equal_those_of_plain_transformers(
    kind: str, beams: int, prompt: str, taught: Callable[[str], PrefixCaptioner]
) -> None:
    captioner = taught(kind)
    captioner.prompt = prompt
    features = _features(captioner, torch.from_numpy(clear_pictures(8)))
    decoding = Decoding(beams=beams, max_new_tokens=LENGTH)
    expected = _plain_captions(captioner, features, decoding)
    assert len({tuple(tokens) for tokens in expected}) > 1, "captions are too alike to tell anything"
    for size in (1, 3, 8):
        batches = [captioner.generate(part, decoding) for part in features.split(size)]
        assert [line.tokens for batch in batches for line in batch] == expected, f"batches of {size}"


@pytest.mark.parametrize("captioner", ["transformer", "t5"], indirect=True)
def test_sampling_follows_the_seed_and_the_nucleus(captioner: PrefixCaptioner) -> None:
    features = _features(captioner, torch.from_numpy(clear_pictures(8)))

    def sample(seed: int, **changes: float) -> list[list[int]]:
        torch.manual_seed(seed)
        decoding = Decoding(sample=True, max_new_tokens=LENGTH, **{"temperature": 9.0, "top_p": 1.0, **changes})
        return [line.tokens for line in captioner.generate(features, decoding)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    greedy = [line.tokens for line in captioner.generate(features, Decoding(beams=1, max_new_tokens=LENGTH))]
    assert sample(3, top_p=1e-4) == greedy


@pytest.mark.parametrize("captioner", ["transformer", "t5"], indirect=True)
@pytest.mark.parametrize("longest", [3, LENGTH])
def test_score_is_the_mean_log_probability_a_token(captioner: PrefixCaptioner, longest: int) -> None:
    captioner.prompt = "a small"
    features = _features(captioner, torch.from_numpy(clear_pictures(4)))
    for image, line in enumerate(captioner.generate(features, Decoding(beams=2, max_new_tokens=longest))):
        learned = [*line.tokens, *([captioner.end_id] if len(line.tokens) < longest else [])]
        given = [*captioner.prompt_ids(), *line.tokens]
        logits = _plain_logits(captioner, features[[image]], given)[len(captioner.prompt_ids()) :]
        each = logits.log_softmax(-1)[torch.arange(len(learned)), torch.tensor(learned)]
        assert line.score == pytest.approx(float(each.mean()), abs=1e-4)


@pytest.mark.parametrize("captioner", [*CAUSAL, *SEQ2SEQ], indirect=True)
def test_language_model_agrees_with_transformers_and_comes_back(captioner: PrefixCaptioner, tmp_path: Path) -> None:
    """Packed logits, captions, layers for adapters, and the model after saving and loading, of every kind in the list."""
    features = _features(captioner, torch.from_numpy(clear_pictures(3)))
    rows = [captioner.tokenize(texts, 20)[0] for texts in CAPTIONS]
    packed = captioner(**captioner.pack(rows).to_dict(), features=features).logits
    plain = [_plain_logits(captioner, features[[image]], caption) for image, row in enumerate(rows) for caption in row]
    torch.testing.assert_close(packed, torch.cat(plain), **_of_size(packed))

    for beams in (1, 3):
        decoding = Decoding(beams=beams, max_new_tokens=LENGTH)
        ours = [line.tokens for line in captioner.generate(features, decoding)]
        assert ours == _plain_captions(captioner, features, decoding)

    targets = captioner.lora_targets("language")
    layers = [name for name, _ in captioner.core().named_modules() if re.fullmatch(targets, name)]
    assert len(layers) >= 2 * 4

    save_captioner(captioner, tmp_path)
    loaded = load_captioner(str(tmp_path))
    torch.testing.assert_close(loaded(**loaded.pack(rows).to_dict(), features=features).logits, packed)
    assert loaded.generate(features) == captioner.generate(features)


def _captioner(kind: str, encoder: Path, words: Path) -> PrefixCaptioner:
    """A captioner with dropout off whose pictures matter to its words."""
    tokenizer, spec = load_tokenizer(str(words)), read_preparation(str(encoder))
    torch.manual_seed(0)
    language = AutoModelForCausalLM.from_pretrained(words) if kind in MAPPERS else _language(kind, len(tokenizer))
    vectors = "all" if kind == "all vectors" else "pooled"
    vision = load_vision(str(encoder), vectors, spec)
    torch.manual_seed(0)
    model = join_prefix(vision, language, tokenizer, MAPPERS.get(kind, MAPPERS["transformer"]), vectors, spec)
    return PrefixCaptioner(model, tokenizer, spec).eval()


def _language(kind: str, entries: int) -> PreTrainedModel:
    """A lively language model of two layers, of any kind."""
    ends = {"vocab_size": entries, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    shared = {"num_key_value_heads": 2, "head_dim": 8} if kind not in ("phi", "gpt_neox", "opt") else {}
    settings = {**sizes, **shared, "max_position_embeddings": 64}
    if kind in ("gpt2", "gptj", "codegen", "gpt_bigcode"):
        settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        settings |= {"rotary_dim": 8} if kind in ("gptj", "codegen") else {}
    elif kind == "gpt_neo":
        settings = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
        settings |= {"attention_types": [[["global", "local"], 1]]}
    elif kind == "opt":
        settings |= {"ffn_dim": 48, "word_embed_proj_dim": 16}
    elif kind == "xglm":
        settings = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64}
    elif kind in SEQ2SEQ:
        settings = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
        settings |= {"relative_attention_num_buckets": 8, "decoder_start_token_id": 1}
    config = AutoConfig.for_model(kind, **ends, **settings)
    model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2 if kind in SEQ2SEQ else 8)
    return model


def _clipcap_prefix(captioner: PrefixCaptioner, features: Tensor) -> Tensor:
    """ClipCap's mappers, step by step from their weights: features (1, N, D) -> prefix (1, P, W)."""
    core = captioner.core()
    weights, vectors = core.mapper.state_dict(), features
    if core.config.normalize:
        vectors = vectors / vectors.norm(2, -1, keepdim=True)
    if not isinstance(core.mapper, TransformerMapper):
        hidden = torch.tanh(linear(vectors[:, 0], weights["model.0.weight"], weights["model.0.bias"]))
        return linear(hidden, weights["model.2.weight"], weights["model.2.bias"]).view(1, core.config.prefix_length, -1)
    constants = weights["prefix_const"][None]
    states = linear(vectors, weights["linear.weight"], weights["linear.bias"]).view(1, -1, constants.shape[2])
    states = states + weights.get("pos_embeddings", torch.zeros(()))
    projected = states.shape[1]
    states = torch.cat([states, constants], 1)
    for layer in range(core.config.mapper_layers):
        states = _clipcap_layer(states, weights, f"transformer.layers.{layer}.", core.config.mapper_heads)
    return states[:, projected:]


def _clipcap_layer(states: Tensor, weights: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """One layer, attention written as sums."""

    def at(part: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}{part}.weight"], weights[f"{name}{part}.bias"]

    images, length, width = states.shape
    normed = layer_norm(states, (width,), *at("norm1"))
    queries = linear(normed, weights[f"{name}attn.to_queries.weight"]).view(images, length, heads, -1)
    both = linear(normed, weights[f"{name}attn.to_keys_values.weight"]).view(images, length, 2, heads, -1)
    scores = torch.einsum("bnhd,bmhd->bnmh", queries, both[:, :, 0]) * (width // heads) ** -0.5
    mixed = torch.einsum("bnmh,bmhd->bnhd", scores.softmax(2), both[:, :, 1]).reshape(images, length, width)
    states = states + linear(mixed, *at("attn.project"))
    normed = layer_norm(states, (width,), *at("norm2"))
    return states + linear(relu(linear(normed, *at("mlp.fc1"))), *at("mlp.fc2"))


@torch.no_grad()
def _plain_captions(captioner: PrefixCaptioner, features: Tensor, decoding: Decoding) -> list[list[int]]:
    """Token ids of plain `generate` from the prefix, without prompt, end and padding."""
    language, config, prompt = captioner.decoder, captioner.generation_config(decoding), captioner.prompt_ids()
    prefix = captioner.core().prefix(features)
    if language.config.is_encoder_decoder:
        given = torch.tensor([[captioner.start_id, *prompt]] * len(features))
        encoded = BaseModelOutput(language.encoder(inputs_embeds=prefix).last_hidden_state)
        seen = torch.ones(prefix.shape[:2], dtype=torch.int64)
        rows = language.generate(
            encoder_outputs=encoded, attention_mask=seen, decoder_input_ids=given, generation_config=config
        )[:, given.shape[1] :]
    else:
        words = language.get_input_embeddings()(torch.tensor([prompt] * len(features), dtype=torch.int64))
        start = torch.cat([prefix, words], 1)
        rows = language.generate(
            inputs_embeds=start, attention_mask=torch.ones(start.shape[:2]), generation_config=config
        )
    end = captioner.end_id
    return [row[: row.index(end)] if end in row else row for row in rows.tolist()]


@torch.no_grad()
def _plain_logits(captioner: PrefixCaptioner, features: Tensor, given: list[int]) -> Tensor:
    """What the plain language model expects in each place of one caption, its end included: (L + 1, V)."""
    language, prefix = captioner.decoder, captioner.core().prefix(features)
    if language.config.is_encoder_decoder:
        inputs = torch.tensor([[captioner.start_id, *given]])
        return language(inputs_embeds=prefix, decoder_input_ids=inputs).logits[0]
    words = language.get_input_embeddings()(torch.tensor([given]))
    return language(inputs_embeds=torch.cat([prefix, words], 1)).logits[0, prefix.shape[1] - 1 :]


def _features(captioner: PrefixCaptioner, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return captioner.encode(pixels)


def _of_size(values: Tensor) -> dict[str, float]:
    """1e-5 of the largest value, where values are sums of large ones."""
    return {"rtol": 1e-5, "atol": 1e-5 * max(1.0, float(values.detach().abs().max()))}
