"""A recipe that contradicts itself is refused, with every conflict named; what agrees is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from captrain.cli import main
from captrain.errors import SettingsError
from captrain.settings.load import resolve

NEW = "encoder: vit"
CONFLICTS = {
    "model: {model: a, encoder: b}": ["model is not used with encoder"],
    "model: {decoder: gpt2, mapper_layers: 2}": ["decoder, mapper_layers are for a newly joined captioner"],
    f"model: {{{NEW}, decoder: gpt2, decoder_layers: 5}}": ["decoder_layers is for a new decoder, but decoder is 'gpt2'"],
    f"model: {{{NEW}, decoder_width: 100, decoder_heads: 3}}": ["decoder_heads 3 do not divide decoder_width 100"],
    f"model: {{{NEW}, prefix_length: 5}}": ["prefix_length is for `join: prefix`, but join is cross-attention"],
    f"model: {{{NEW}, join: prefix, mapper_heads: 4}}": ["mapper_heads is for a transformer mapper, but mapper is mlp"],
    f"model: {{{NEW}, join: prefix, image_vectors: all}}": ["mapper mlp reads one vector"],
    f"model: {{{NEW}, join: prefix, mapper: transformer, mapper_positions: true}}": ["for `image_vectors: all`"],
    f"model: {{{NEW}, join: prefix, only_prefix: true, freeze: [vision]}}": ["only_prefix goes with"],
    "model: {method: full, freeze: [vision, bridge, language]}": ["nothing is left to learn"],
    "model: {freeze: [language]}": ["freeze language: lora_parts has adapters learn there"],
    "model: {method: full, quantize: 4bit}": ["quantize 4bit: only weights that stay as they are"],
    "model: {device: cpu, precision: fp16}": ["precision fp16"],
    "model: {method: full, rank: 4, rslora: true}": ["rank, rslora are for LoRA adapters, but the method is full"],
    f"model: {{{NEW}, rank: 4}}": ["rank is for LoRA adapters, but a newly joined captioner learns with method full"],
    "model: {target_modules: [q], lora_parts: [vision]}": ["lora_parts is not used with target_modules"],
    "data: {crop_scale: [0.9, 0.5]}": ["crop_scale 0.9 0.5: expected the smaller share first"],
    "data: {views: 3}": ["views 3: nothing makes them differ"],
    "data: {format: features, flip: 0.5}": ["flip is for pictures, but the format is features"],
    "data: {cache_features: disk, memory_budget: 3}": [
        "memory_budget is for what is cached in memory, but cache_features is disk"
    ],
    "data: {cache_features: 'off', cache_dtype: int8}": ["cache_dtype is for cached features, but cache_features is off"],
    "data: {format: features, cache_dtype: int8}": ["cache_dtype is for pictures, but the format is features"],
    "data: {replace: [dog]}": ["replace 'dog': expected old=new"],
    "data: {keep_tags: 2}": ["keep_tags is for shuffle_tags or drop_tags"],
    "data: {sources: [{path: a, ratio: 1}, {path: b}]}": ["some have a ratio and some have none"],
    "data: {train_split: []}": ["nothing to train on"],
    "data: {train_split: [a, b], test_split: b}": ["'b' is in train_split and in test_split"],
    "data: {sources: [{path: x, train_split: a, validation_split: a}]}": ["source 'x': 'a' is in train_split and in val"],
    "data: {validation_split: val, validation_share: 0.2}": ["validation_share is for data without a validation split"],
    "data: {validation_data: other, validation_share: 0.2}": ["but validation_data names what to validate on"],
    "data: {test_data: other, test_split: []}": ["test_data: test_split is empty"],
    "data: {validation_split: []}\ntraining: {patience: 3}\nevaluation: {metric: bleu_4}": [
        "patience, metric: validation_split is empty"
    ],
    "model: {method: full, freeze: [vision]}\ntraining: {vision_learning_rate: 1.0e-5}": [
        "vision_learning_rate is a rate of the vision part, which does not learn"
    ],
    "training: {vision_learning_rate: 1.0e-5}": ["vision_learning_rate is a rate of"],
    "generation: {top_p: 0.5, temperature: 2}": ["top_p, temperature are for sampling, set sample too"],
    "generation: {sample: true, beams: 5}": ["beams is for the search of beams, but sample draws tokens"],
    "generation: {min_new_tokens: 31}": ["min_new_tokens 31 is more than max_new_tokens 30"],
    "generation: {top_p: 0.5, min_new_tokens: 31}\nmodel: {method: full, rank: 3}": [
        "3 settings contradict others", "rank is for LoRA", "top_p is for sampling", "min_new_tokens 31 is more",
    ],
}  # fmt: skip
AGREE = [
    "model: {method: full, rank: 16, dropout: 0}",
    "model: {freeze: [vision, bridge]}",
    "model: {method: lora, lora_parts: [vision]}\ntraining: {vision_learning_rate: 1.0e-5}",
    f"model: {{{NEW}, decoder: gpt2, method: lora, rank: 4}}",
    f"model: {{{NEW}, join: prefix, only_prefix: true}}",
    f"model: {{{NEW}, join: prefix, only_prefix: true, freeze: [vision, language], method: full}}",
    "model: {only_prefix: false, target_modules: [q]}\ntraining: {vision_learning_rate: 1.0e-5}",
    "data: {sources: [{path: x, train_split: a}, {path: y, train_split: [], validation_split: a}], validation_split: []}",
    "data: {validation_data: other, train_split: val, validation_split: val}",
    "data: {validation_split: val, validation_share: 0}",
    "generation: {sample: true, beams: 1, top_p: 0.5}",
    "generation: {sample: true}",
]


@pytest.mark.parametrize("recipe", CONFLICTS)
def test_every_conflict_is_named(recipe: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(yaml.safe_load(recipe), where="recipe photos.yaml")
    message = str(caught.value)
    assert message.startswith("recipe photos.yaml: ")
    assert "\n" not in message
    assert message.count(";") == len(CONFLICTS[recipe][1:]) - (len(CONFLICTS[recipe]) > 2)
    for expected in CONFLICTS[recipe]:
        assert expected in message


@pytest.mark.parametrize("recipe", AGREE)
def test_what_agrees_is_taken(recipe: str) -> None:
    resolve(yaml.safe_load(recipe))


def test_defaults_that_are_written_out_contradict_nothing() -> None:
    """A run's saved settings and what `config show` prints name every setting."""
    for recipe in ("model: {encoder: vit, join: prefix}", "model: {method: full}", "generation: {sample: true}"):
        settings = resolve(yaml.safe_load(recipe))
        assert resolve(settings.model_dump(mode="json")) == settings


def test_flags_and_recipe_are_judged_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag may need what the recipe says, and may contradict it."""
    recipe = tmp_path / "flip.yaml"
    recipe.write_text("data: {flip: 0.5}\nmodel: {method: full}\n")
    assert main(["config", "show", "--recipe", str(recipe), "--views", "3"]) == 0
    assert main(["config", "show", "--recipe", str(recipe), "--rank", "3", "--top-p", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "rank is for LoRA adapters" in error
    assert "top_p is for sampling" in error
    assert error.count("\n") == 1
