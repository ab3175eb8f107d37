"""Training from a feature store is training from the pictures: the same loss at each step, for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_tools import QUICK, Cli, losses_of
from transformers import CLIPConfig, CLIPModel

from captrain.data.feature_store.store import FeatureStore
from captrain.data.images import ImageSpec, prepare
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.testing import HALF, TINY_CAPTIONERS

ENCODE = "--dtype float32 --device cpu --precision fp32"
NEW = "--decoder-layers 1 --decoder-width 16 --decoder-heads 2"
FROZEN = "--method full --freeze vision"
COMMON = f"--validation-share 0 --epochs 1 {QUICK}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP; its image tower is 24 wide, its embedding 20."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    torch.manual_seed(0)
    sizes = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 24, "image_size": 32, "patch_size": 8, "projection_dim": 20, **sizes}
    text = {"hidden_size": 16, "vocab_size": 64, "max_position_embeddings": 16, **sizes}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=20))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.mul_(8 if "proj" in name and weights.dim() > 1 else 1)
    model.save_pretrained(folder)
    write_preparation(folder, ImageSpec(32, 32, HALF, HALF), "CLIPImageProcessor")
    return folder


def same_losses(cli: Cli, photos: Path, folder: Path, encode: str, train: str) -> FeatureStore:
    """Train on the pictures and on their store; compare. Gives the store."""
    store = folder / "store"
    result = cli("encode", photos, store, f"{encode} {ENCODE}")
    assert result.code == 0, result.err
    for data, run in ((photos, "of-pictures"), (store, "of-store")):
        result = cli("train", data, folder / run, f"{train} {COMMON}")
        assert result.code == 0, result.err
    first, second = losses_of(folder / "of-pictures"), losses_of(folder / "of-store")
    assert len(first) == len(second) == 6
    assert second == pytest.approx(first, rel=1e-5)
    assert max(first) - min(first) > 1e-3
    return FeatureStore(str(store))


@pytest.mark.parametrize("family", sorted(TINY_CAPTIONERS))
def test_a_checkpoint_learns_the_same_from_its_store(family: str, cli: Cli, photos: Path, tmp_path: Path) -> None:
    model = TINY_CAPTIONERS[family](tmp_path / "model")
    vectors = "--vectors pooled" if family == "prefix" else ""
    store = same_losses(cli, photos, tmp_path, f"--encoder {model} {vectors}", f"--model {model} {FROZEN}")
    assert store.features.tokens == (1 if family == "prefix" else 17)


@pytest.mark.parametrize("family", sorted(TINY_CAPTIONERS))
def test_every_family_learns_from_int8_caches_and_stores(family: str, cli: Cli, photos: Path, tmp_path: Path) -> None:
    """A cache in memory and one on disk have the same numbers, a store nearly; those of fp32 differ a little."""
    model = TINY_CAPTIONERS[family](tmp_path / "model")
    vectors = "--vectors pooled" if family == "prefix" else ""
    words = f"--encoder {model} {vectors} --dtype int8 --batch-size 8 --device cpu --precision fp32"
    assert cli("encode", photos, tmp_path / "store", words).code == 0
    ways = {
        "memory": (photos, "--cache-features memory --cache-dtype int8"),
        "disk": (photos, "--cache-features disk --cache-dtype int8"),
        "store": (tmp_path / "store", ""),
        "fp32": (photos, ""),
    }
    losses = {}
    for name, (data, more) in ways.items():
        result = cli("train", data, tmp_path / f"run-{name}", f"--model {model} {FROZEN} {COMMON} {more}")
        assert result.code == 0, result.err
        losses[name] = losses_of(tmp_path / f"run-{name}")
    assert losses["memory"] == losses["disk"] != losses["fp32"]
    assert losses["store"] == pytest.approx(
        losses["disk"], rel=2e-3
    )  # the last digit may take a number to its next step
    assert losses["memory"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize(
    ("encode", "train"),
    [
        ("", NEW),
        ("--vectors pooled", f"{NEW} --image-vectors pooled"),
        ("--vectors pooled", f"{NEW} --join prefix --prefix-length 3"),
        ("", f"{NEW} --join prefix --mapper transformer --image-vectors all --mapper-layers 1 --mapper-heads 2"),
    ],
    ids=["cross-attention", "cross-attention-pooled", "prefix", "prefix-all"],
)
def test_a_new_captioner_learns_the_same_from_its_encoders_store(
    encode: str, train: str, cli: Cli, photos: Path, encoder: Path, tmp_path: Path
) -> None:
    same_losses(cli, photos, tmp_path, f"--encoder {encoder} {encode}", f"--encoder {encoder} {train}")


def test_the_pooled_vector_of_clip_is_its_embedding_as_prefix_captioners_read_it(
    cli: Cli, photos: Path, clip: Path, tmp_path: Path
) -> None:
    train = f"--encoder {clip} --join prefix --prefix-length 3 {NEW}"
    store = same_losses(cli, photos, tmp_path, f"--encoder {clip} --vectors pooled", train)
    assert (store.features.tokens, store.features.width) == (1, 20)
    kept = torch.from_numpy(store.vectors(0)[:, 0].copy())
    name = store.index(0).entry(3).id
    pixels = torch.from_numpy(prepare((photos / name).read_bytes(), ImageSpec.from_dict(store.preparation)))
    scaled = (pixels.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        embedding = CLIPModel.from_pretrained(clip).get_image_features(scaled)
    torch.testing.assert_close(kept[3], getattr(embedding, "pooler_output", embedding)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vectors", ["all", "pooled"])
def test_what_a_training_kept_is_a_store_to_train_from(
    vectors: str, cli: Cli, photos: Path, encoder: Path, tmp_path: Path
) -> None:
    """The cache folder answers to `captrain features`, and a training from it has the losses of the one that wrote it."""
    words = f"--encoder {encoder} {NEW} --image-vectors {vectors} {COMMON}"
    first = cli("train", photos, tmp_path / "first", f"{words} --keep disk")
    assert first.code == 0, first.err
    (kept,) = (tmp_path / "cache" / "kept").iterdir()
    found = json.loads(cli("features info", kept, "--json").out)
    assert (found["images"], found["captions"]) == (12, 60)
    assert found["features"].endswith(f"float32 ({vectors})")
    assert cli("features verify", kept).code == 0
    near = cli("features search", kept, photos / "photo-003.png", "--count 1").out
    assert "photo-003" in near and near.split("\n")[1].startswith("1.000")
    second = cli("train", kept, tmp_path / "second", words)
    assert second.code == 0, second.err
    assert losses_of(tmp_path / "second") == pytest.approx(losses_of(tmp_path / "first"), rel=1e-5)


def test_views_are_kept_beside_their_pictures(cli: Cli, photos: Path, encoder: Path, tmp_path: Path) -> None:
    words = f"--encoder {encoder} {NEW} --views 2 --flip 1 --epochs 2 --validation-share 0 --keep disk {QUICK}"
    assert cli("train", photos, tmp_path / "first", words).code == 0
    (kept,) = (tmp_path / "cache" / "kept").iterdir()
    ids = [sample.partition("#") for sample in ids_of(kept)]
    assert len(ids) == 24
    assert sum(not view for _, _, view in ids) == 12
    assert cli("train", photos, tmp_path / "second", words).code == 0
    assert losses_of(tmp_path / "second") == losses_of(tmp_path / "first")
    assert len(ids_of(kept)) == 24


def ids_of(store: Path) -> list[str]:
    found = FeatureStore(str(store))
    return [
        found.index(part).entry(row).id for part in range(len(found.parts)) for row in range(found.parts[part].images)
    ]


def test_a_run_with_adapters_is_an_encoder(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Its image half is that of its base model, unless the adapters are in it."""
    model = TINY_CAPTIONERS["blip"](tmp_path / "model")
    weights = {}
    for parts in ("language", "vision"):
        assert cli("train", photos, tmp_path / parts, f"--model {model} --lora-parts {parts} {COMMON}").code == 0
    for name, encoder in {"base": model, "language": tmp_path / "language", "vision": tmp_path / "vision"}.items():
        result = cli("encode", photos, tmp_path / f"{name}-store", f"--encoder {encoder} {ENCODE}")
        assert result.code == 0, result.err
        store = FeatureStore(str(tmp_path / f"{name}-store"))
        assert store.encoder is not None
        weights[name] = store.encoder.weights
    assert weights["language"] == weights["base"] != weights["vision"]
