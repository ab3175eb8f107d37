"""Scoring files: ids brought together, Java metrics that may fail, and CLIPScore against its formula."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from captrain.data.images import ImageSpec
from captrain.errors import DataError, ModelError, SettingsError
from captrain.inference.score import score, score_systems
from captrain.metrics.java import JAVA_METRICS, JavaError, MetricScores
from captrain.metrics.score import METRICS
from captrain.models.checkpoint.image_preparation import write_preparation

CAPTIONS = {"1": "a dog runs", "2": "two cats sleep", "3": "a red bus"}
REFERENCES = {"1": ["A dog runs fast."], "2": ["Two cats sleep", "Cats"], "3": ["A blue bus is here."]}
PLAIN = "A photo depicts a dog runs two cats sleep red blue bus is here fast . Cats Two"
WORDS = ["<pad>", "<unk>", "<s>", "</s>", *PLAIN.split()]
SIZE = 8


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP checkpoint, as transformers writes it."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(WORDS),
        "max_position_embeddings": 8,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = CLIPConfig(
        text_config=tower | text, vision_config=tower | {"image_size": SIZE, "patch_size": 4}, projection_dim=4
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    spec = ImageSpec(SIZE, SIZE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "crop", SIZE)
    write_preparation(folder, spec, "CLIPImageProcessor")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of just the size that the model wants, named as their captions' ids."""
    random = np.random.default_rng(0)
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for name in ("1.png", "2.png", "more/3.png"):
        pixels = random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def cosines(folder: Path, pictures: Path) -> tuple[list[float], list[float]]:
    """Of caption and picture, and of caption and nearest reference, one by one through the model's own forward."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def embedded(caption: str, picture: Path) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.tensor(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
        pixels = (pixels - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
        tokens = tokenizer(f"A photo depicts {caption}", truncation=True, max_length=8, return_tensors="pt")
        with torch.no_grad():
            output = model(tokens["input_ids"], pixels, tokens["attention_mask"])
        return output.image_embeds[0], output.text_embeds[0]

    seen, read = [], []
    for (id, caption), name in zip(CAPTIONS.items(), ("1.png", "2.png", "more/3.png"), strict=True):
        image, text = embedded(caption, pictures / name)
        seen.append(float(image @ text))
        read.append(max(float(text @ embedded(other, pictures / name)[1]) for other in REFERENCES[id]))
    return seen, read


def test_clip_score_is_the_formula(clip_folder: Path, pictures: Path) -> None:
    found = score(CAPTIONS, REFERENCES, metrics=["bleu_4"], clip=str(clip_folder), images=pictures, device="cpu")
    seen, read = cosines(clip_folder, pictures)
    expected = [2.5 * max(cosine, 0) for cosine in seen]
    assert found.statistics.means["clip_score"] == pytest.approx(expected, abs=1e-5)
    assert max(expected) > 0, "the test would show nothing otherwise"
    both = [
        2 * first * max(second, 0) / (first + max(second, 0)) if first else 0.0
        for first, second in zip(expected, read, strict=True)
    ]
    assert found.statistics.means["ref_clip_score"] == pytest.approx(both, abs=1e-5)
    assert found.scores["clip_score"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert set(found.intervals) >= {"clip_score", "ref_clip_score", "bleu_4"}


def test_long_captions_are_cut(clip_folder: Path, pictures: Path) -> None:
    long = {id: caption + " dog" * 500 for id, caption in CAPTIONS.items()}
    found = score(long, REFERENCES, metrics=["bleu_4"], clip=str(clip_folder), images=pictures, device="cpu")
    assert 0 <= found.scores["clip_score"] <= 2.5


def test_a_broken_picture_is_rejected_and_said(clip_folder: Path, pictures: Path) -> None:
    (pictures / "2.png").write_bytes(b"no picture")
    found, rejects = score_systems(
        {"a": CAPTIONS}, REFERENCES, metrics=["bleu_4"], clip=str(clip_folder), images=pictures, device="cpu"
    )
    assert [line["id"] for line in rejects.lines] == ["2"]
    assert found.systems[0].images == 3
    assert "clip_score" in found.systems[0].scores
    assert "clip_score" not in found.systems[0].intervals
    assert any("2 of 3 pictures" in note for note in found.systems[0].notes)


def test_pictures_and_models_that_are_not_there(
    clip_folder: Path, pictures: Path, tiny_folders: dict[str, Path]
) -> None:
    (pictures / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 captions have no picture here \('1'\)"):
        score(CAPTIONS, REFERENCES, metrics=["bleu_4"], clip=str(clip_folder), images=pictures)
    with pytest.raises(DataError, match="no such folder"):
        score(CAPTIONS, REFERENCES, metrics=["bleu_4"], clip=str(clip_folder), images=pictures / "none")
    some = {"2": CAPTIONS["2"]}
    with pytest.raises(ModelError, match="is a 'blip', expected a CLIP model"):
        score(some, {"2": ["x"]}, metrics=["bleu_4"], clip=str(tiny_folders["blip"]), images=pictures)
    with pytest.raises(SettingsError, match="found --clip without --images"):
        score(some, {"2": ["x"]}, metrics=["bleu_4"], clip=str(clip_folder))
    with pytest.raises(SettingsError, match="clip_score needs a CLIP model"):
        score(some, {"2": ["x"]}, metrics=["clip_score"])


def test_files_and_mappings_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"id": f"{id}.jpg", "text": CAPTIONS[id]}) + "\n" for id in "321")
    )
    (tmp_path / "r.json").write_text(json.dumps(REFERENCES))
    from_files = score(tmp_path / "p.jsonl", tmp_path / "r.json")
    assert from_files.scores == score(CAPTIONS, REFERENCES).scores
    assert set(from_files.scores) >= {"bleu_1", "bleu_4", "rouge_l", "cider"}
    assert any("3 ids are spelt differently" in note for note in from_files.notes)


def test_missing_and_extra_ids() -> None:
    captions = {"1": "a dog", "2": "a cat", "x": "a bus"}
    with pytest.raises(DataError) as caught:
        score(captions, REFERENCES)
    assert "1 of 3 images with references have no caption ('3')" in str(caught.value)
    assert "1 of 3 captions have no references ('x'); --allow-missing scores the 2 that have both" in str(caught.value)
    found = score(captions, REFERENCES, allow_missing=True)
    assert found.images == 2
    assert sum("left out" in note for note in found.notes) == 2
    with pytest.raises(DataError, match="no image has references and a caption of every system"):
        score({"x": "a"}, REFERENCES, allow_missing=True)


def test_systems_are_scored_on_what_all_have() -> None:
    found, _ = score_systems({"a": {"1": "a dog", "2": "cats"}, "b": CAPTIONS}, REFERENCES, allow_missing=True)
    assert [system.images for system in found.systems] == [2, 2]
    assert (
        found.systems[1].scores == score({id: CAPTIONS[id] for id in "12"}, {id: REFERENCES[id] for id in "12"}).scores
    )


def test_a_java_metric_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise JavaError("meteor was stopped after 5 s")

    monkeypatch.setattr("captrain.inference.score.check_java", lambda names: None)
    monkeypatch.setattr("captrain.inference.score.score_java", fail)
    found = score(CAPTIONS, REFERENCES, metrics=["cider", "meteor"])
    assert list(found.scores) == ["cider"]
    assert any("meteor is missing: meteor was stopped after 5 s" in note for note in found.notes)


def test_nothing_but_a_java_metric_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise JavaError("meteor was stopped after 5 s")

    monkeypatch.setattr("captrain.inference.score.check_java", lambda names: None)
    monkeypatch.setattr("captrain.inference.score.score_java", fail)
    with pytest.raises(JavaError, match="stopped after 5 s"):
        score(CAPTIONS, REFERENCES, metrics=["meteor"])


NAMES = (*METRICS, *JAVA_METRICS)


@pytest.mark.parametrize("metrics", [*((name,) for name in NAMES), *combinations(NAMES, 2)], ids="+".join)
def test_every_metric_alone_and_every_pair(metrics: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one system and of two, each metric is what it is beside all others."""

    def answer(name: str, captions: dict[str, str], references: object) -> MetricScores:
        return {name: 0.5}, {id: {name: 0.25 * len(tokens.split())} for id, tokens in captions.items()}

    monkeypatch.setattr("captrain.inference.score.check_java", lambda names: None)
    monkeypatch.setattr("captrain.inference.score.score_java", answer)
    every = score(CAPTIONS, REFERENCES, metrics=NAMES, bootstrap=20)
    one = score(CAPTIONS, REFERENCES, metrics=metrics, bootstrap=20)
    assert set(metrics) <= one.scores.keys()
    assert one.scores == {name: every.scores[name] for name in one.scores}
    assert one.intervals == {name: every.intervals[name] for name in one.scores if name != "meteor"}
    json.dumps(one.to_dict())
    two, _ = score_systems(
        {"a": CAPTIONS, "b": dict.fromkeys(CAPTIONS, "a cat")}, REFERENCES, metrics=metrics, bootstrap=20
    )
    compared = {found.metric for every in two.differences.values() for found in every}
    assert compared == one.scores.keys() - {"meteor"}, (
        "METEOR of a set is no mean, so that there is nothing to draw from"
    )


def test_every_metric_beside_clip_score(clip_folder: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captrain.inference.score.check_java", lambda names: None)
    monkeypatch.setattr("captrain.inference.score.score_java", lambda name, *_: ({name: 0.5}, {}))
    both = {"clip_score", "ref_clip_score"}
    for metrics in ((), ("clip_score",), ("ref_clip_score",), ("meteor",), ("cider",), ("bleu_1", "clip_score")):
        found = score(
            CAPTIONS, REFERENCES, metrics=metrics, clip=str(clip_folder), images=pictures, device="cpu", bootstrap=20
        )
        assert both | set(metrics) <= found.scores.keys()


def test_no_metric_is_refused() -> None:
    with pytest.raises(SettingsError, match="metrics: found none, expected one or more of bleu_1"):
        score(CAPTIONS, REFERENCES, metrics=[])


def test_a_text_is_one_reference_and_not_its_letters() -> None:
    expected = score({"1": "a dog", "2": "cats"}, {"1": ["a dog runs"], "2": ["cats"]}).scores
    assert score({"1": "a dog", "2": "cats"}, {"1": "a dog runs", "2": ["cats"]}).scores == expected
    assert score({1: ["a dog"], 2: ("cats",)}, {"1": "a dog runs", "2": "cats"}).scores == expected  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"1": ["a", "b"]}, {"1": "a"}, "predictions: found 2 captions for '1', expected one"),
        ({"1": "a"}, {"1": []}, "references: image '1' has none"),
        ({"1": "a"}, {"1": None}, "the caption of '1' is nothing, expected text"),
        ({"1": "a"}, {"1": [["a"]]}, "the caption of '1' is \\['a'\\], expected text"),
        ({"1": "a", 1: "b"}, {"1": "a"}, "'1' is there twice"),
        ([{"image_id": 1}], {"1": "a"}, "predictions: found a list, expected a file, or a dictionary"),
        ({"1": "a"}, None, "references: found a NoneType, expected a file, or a dictionary"),
        ({"": "a"}, {"1": "a"}, "found the id '', expected a name or a number"),
    ],
)
def test_dictionaries_that_are_none(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(predictions, references)


def test_java_is_looked_for_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captrain.metrics.java.shutil.which", lambda name: None)
    with pytest.raises(SettingsError, match="there is no 'java'"):
        score("not-there.json", "not-there-either.json", metrics=["meteor"])


def test_captions_are_not_their_own_references(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "1", "text": "a dog"}\n')
    with pytest.raises(DataError, match="holds no references beside its captions"):
        score(tmp_path / "p.jsonl", tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text('{"id": "1", "text": "a dog", "references": ["A dog runs."]}\n')
    assert score(tmp_path / "p.jsonl", tmp_path / "p.jsonl").images == 1


def test_one_image_says_why_cider_is_nothing() -> None:
    found = score({"1": "a dog"}, {"1": ["a dog"]})
    assert found.scores["cider"] == 0
    assert any("cider" in note.lower() for note in found.notes)


def test_unknown_metrics_name_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown metric 'metor'.*Did you mean 'meteor'"):
        score(CAPTIONS, REFERENCES, metrics=["metor"])


def test_other_scripts_and_wrong_values() -> None:
    found = score({"1": "犬が走る", "2": "собака"}, {"1": ["犬が走る"], "2": ["собака бежит"]}, metrics=["bleu_4"])
    assert found.scores["bleu_1"] > 0
    with pytest.raises(DataError, match="caption of '1' is nan"):
        score({"1": float("nan")}, {"1": ["a"]}, metrics=["bleu_4"])  # type: ignore[dict-item]
