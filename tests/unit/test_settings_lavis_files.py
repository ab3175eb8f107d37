"""Files of LAVIS's evaluations and of its BLIP-2, and the flat ones of the BLIP repository, as they are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from captrain.cli import main
from captrain.errors import SettingsError
from captrain.settings.lavis.convert import Imported, import_lavis
from captrain.settings.lavis.models import count_tokens
from captrain.settings.load import resolve

Import = Callable[..., Imported]
EVALUATION = {
    "task": "captioning",
    "batch_size_train": 32,
    "batch_size_eval": 64,
    "num_workers": 4,
    "max_len": 20,
    "min_len": 5,
    "num_beams": 3,
    "seed": 42,
    "evaluate": True,
    "device": "cuda",
}
FLAT = {
    "image_root": "photos/coco",
    "ann_root": "annotation",
    "coco_gt_root": "annotation/coco_gt",
    "pretrained": "https://host/BLIP/models/model_base_caption_capfilt_large.pth",
    "vit": "base",
    "vit_grad_ckpt": False,
    "vit_ckpt_layer": 0,
    "batch_size": 32,
    "init_lr": "1e-5",
    "image_size": 384,
    "max_length": 20,
    "min_length": 5,
    "num_beams": 3,
    "prompt": "a picture of ",
    "weight_decay": 0.05,
    "min_lr": 0,
    "max_epoch": 5,
}


def evaluation(kind: str, data: str = "coco_caption", **text: Any) -> dict[str, Any]:
    """LAVIS's caption_coco_eval.yaml and nocaps_eval.yaml: no processors of training."""
    processors = {
        "vis_processor": {"eval": {"name": "blip_image_eval"}},
        "text_processor": {"eval": {"name": "blip_caption", **text}},
    }
    return {"model": {"arch": "blip_caption", "model_type": kind}, "datasets": {data: processors}, "run": EVALUATION}


def blip_2(arch: str, kind: str, *, train: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    """LAVIS's caption_coco_ft.yaml of BLIP-2, and its evaluations."""
    size = 364 if "coco" in kind else 224
    text: dict[str, Any] = {"eval": {"name": "blip_caption"}}
    vision: dict[str, Any] = {"eval": {"name": "blip_image_eval", "image_size": size}}
    if train is not None:
        text["train"] = {"name": "blip_caption", **train}
        vision["train"] = {"name": "blip2_image_train", "image_size": size}
    run = EVALUATION | {"max_len": 30, "min_len": 8, "num_beams": 5, "evaluate": train is None, "amp": True}
    return {
        "model": {"arch": arch, "model_type": kind, "use_grad_checkpoint": train is not None, **model},
        "datasets": {"coco_caption": {"vis_processor": vision, "text_processor": text}},
        "run": run,
    }


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    def run(content: dict[str, Any], model: str | None = None) -> Imported:
        path = tmp_path / "caption.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return import_lavis(path, model)

    return run


def noted(done: Imported) -> dict[str, str]:
    return {note.key: note.reason for note in done.notes}


@pytest.mark.parametrize(
    ("content", "checkpoint"),
    [
        (evaluation("base_coco"), "Salesforce/blip-image-captioning-base"),
        (evaluation("large_coco"), "Salesforce/blip-image-captioning-large"),
        (evaluation("base_coco", "nocaps", prompt="a picture of "), "Salesforce/blip-image-captioning-base"),
    ],
)
def test_an_evaluation_begins_with_the_models_own_words(
    imported: Import, content: dict[str, Any], checkpoint: str
) -> None:
    done = imported(content)
    settings = resolve(done.recipe)
    assert done.evaluates
    assert (settings.model.model, settings.data.prompt) == (checkpoint, "a picture of")
    assert (settings.generation.max_new_tokens, settings.generation.min_new_tokens, settings.generation.beams) == (
        16,
        1,
        3,
    )
    assert settings.data.crop_scale is None and not settings.data.lower_case
    assert not [key for key in noted(done) if "prompt" in key]


@pytest.mark.parametrize(
    ("model", "train", "asked", "prompt", "notes"),
    [
        (None, None, "", "a picture of", set()),
        (None, None, "a photo of ", "a photo of", {"model.prompt"}),
        ("a sketch of ", None, "a photo of ", "a sketch of", {"eval.prompt"}),
        ("a sketch of ", None, "", "a sketch of", set()),
        ("", None, "", "", set()),
        (None, "a photo of ", "", "a photo of", {"model.prompt"}),
        ("a sketch of ", "a photo of ", "a map of ", "a photo of", {"model.prompt", "eval.prompt"}),
        (None, "", "", "a picture of", {"train.prompt"}),
        ("", "", "", "", set()),
    ],
)
def test_which_prompt_is_taken(
    imported: Import, model: str | None, train: str | None, asked: str, prompt: str, notes: set[str]
) -> None:
    """The learned one, else the model's own, else the evaluation's, else the model's default; what differs is told."""
    content = evaluation("base_coco", **({"prompt": asked} if asked else {}))
    if model is not None:
        content["model"]["prompt"] = model
    if train is not None:
        learned = {"prompt": train} if train else {}
        content["datasets"]["coco_caption"]["text_processor"]["train"] = {"name": "blip_caption", **learned}
    done = imported(content)
    assert resolve(done.recipe).data.prompt == prompt
    told = {note.key for note in done.notes if note.key.endswith("prompt") and "tokens" not in note.reason}
    assert {key if key == "model.prompt" else ".".join(key.split(".")[-2:]) for key in told} == notes


def tokenizer(folder: Path) -> str:
    """A checkpoint's folder with WordPiece's tokenizer: `photographable` has three pieces, `,` is one."""
    pieces = ["[UNK]", "a", "un", "##photograph", "##able", "scene", ",", "of"]
    made = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_lengths_are_counted_in_tokens_of_the_prompt(imported: Import, tmp_path: Path, capsys) -> None:
    content = evaluation("base_coco", prompt="an unphotographable scene, of ")
    unsure = imported(content)
    assert resolve(unsure.recipe).generation.max_new_tokens == 20 - 1 - 5
    assert "taken for 5 tokens, one for each word and mark" in str(unsure.notes)
    sure = imported(content, tokenizer(tmp_path))
    settings = resolve(sure.recipe)
    assert settings.model.model == str(tmp_path)
    assert (settings.generation.max_new_tokens, settings.generation.min_new_tokens) == (20 - 1 - 7, 0)
    assert settings.data.max_tokens == 40 - 1 - 7
    assert "the prompt's 7 too" in noted(sure)["run.max_len"]
    assert "taken for" not in str(sure.notes)
    assert main(["config", "import", str(tmp_path / "caption.yaml"), "--model", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"captrain evaluate {tmp_path} DATA --recipe RECIPE" in printed
    assert resolve(yaml.safe_load(printed)) == settings


def test_prompts_of_published_recipes_are_known_without_a_tokenizer(shared_data: Path) -> None:
    for name in ("bert-base-uncased", "gpt2"):
        folder = str(shared_data / "models/tokenizers" / name)
        for prompt in ("a picture of", "a photo of"):
            assert (
                len(Tokenizer.from_file(f"{folder}/tokenizer.json").encode(prompt, add_special_tokens=False).ids) == 3
            )
    bert = str(shared_data / "models/tokenizers/bert-base-uncased")
    assert count_tokens("a photorealistic rendering of", bert) == (6, True)
    assert count_tokens("a photorealistic rendering of", "ada/nowhere") == (4, False)


@pytest.mark.parametrize(
    ("arch", "kind", "train", "finished", "expected"),
    [
        (
            "blip2_opt",
            "caption_coco_opt2.7b",
            {"prompt": "a photo of "},
            False,
            ("opt-2.7b", 364, "a photo of", 28, (30, 8)),
        ),
        ("blip2_opt", "caption_coco_opt2.7b", None, True, ("opt-2.7b-coco", 364, "a photo of", 28, (30, 8))),
        ("blip2_opt", "caption_coco_opt6.7b", None, True, ("opt-6.7b-coco", 364, "a photo of", 28, (30, 8))),
        ("blip2_opt", "pretrain_opt2.7b", None, True, ("opt-2.7b", 224, "", 31, (30, 8))),
        ("blip2_opt", "pretrain_opt6.7b", None, False, ("opt-6.7b", 224, "", 31, (30, 8))),
        ("blip2_t5", "caption_coco_flant5xl", None, True, ("flan-t5-xl-coco", 364, "a photo of", 32, (30, 7))),
        ("blip2_t5", "pretrain_flant5xl", None, True, ("flan-t5-xl", 224, "", 32, (30, 7))),
        ("blip2_t5", "pretrain_flant5xxl", None, True, ("flan-t5-xxl", 224, "", 32, (30, 7))),
    ],
)
def test_files_of_blip_2(
    imported: Import, arch: str, kind: str, train: dict[str, Any] | None, finished: bool, expected: tuple[Any, ...]
) -> None:
    """Its lengths do not hold the prompt, which is read as vectors; T5's decoder begins with one token that counts."""
    settings = resolve(imported(blip_2(arch, kind, train=train, load_finetuned=finished)).recipe)
    name, size, prompt, learned, lengths = expected
    assert settings.model.model == f"Salesforce/blip2-{name}"
    assert (settings.model.image_size, settings.data.prompt, settings.data.max_tokens) == (size, prompt, learned)
    assert (settings.generation.max_new_tokens, settings.generation.min_new_tokens) == lengths
    assert settings.model.freeze == (("language",) if "coco" in kind else ("vision", "language"))
    assert (settings.training.label_smoothing, settings.model.checkpoint_activations) == (0.0, train is not None)
    if train is not None:
        assert (settings.data.crop_scale, settings.data.randaugment) == ((0.5, 1.0), None)


def test_what_of_blip_2_differs_is_told(imported: Import) -> None:
    usual = {
        "freeze_vit": True,
        "num_query_token": 32,
        "vit_model": "eva_clip_g",
        "opt_model": "facebook/opt-2.7b",
        "drop_path_rate": 0,
    }
    content = blip_2("blip2_opt", "caption_coco_opt2.7b", train={}, **usual)
    done = imported(content)
    assert resolve(done.recipe).model.freeze == ("vision", "language")
    assert not [key for key in noted(done) if key.startswith("model.")]
    odd = usual | {
        "num_query_token": 16,
        "vit_model": "clip_L",
        "drop_path_rate": 0.1,
        "vit_precision": "fp16",
        "querry": 1,
    }
    told = noted(imported(blip_2("blip2_opt", "caption_coco_opt2.7b", train={}, **odd)))
    expected = {"num_query_token", "vit_model", "drop_path_rate", "vit_precision", "querry"}
    assert {key.removeprefix("model.") for key in told if key.startswith("model.")} == expected


@pytest.mark.parametrize(
    "arch",
    [
        "blip2",
        "blip2_vicuna_instruct",
        "blip2_t5_instruct",
        "blip2_image_text_matching",
        "albef_retrieval",
        "blip_vqa",
        "clip",
    ],
)
def test_other_architectures_are_refused_by_name(imported: Import, arch: str) -> None:
    with pytest.raises(
        SettingsError, match=f"model.arch: found '{arch}', expected blip_caption, blip2_opt or blip2_t5"
    ):
        imported({"model": {"arch": arch, "model_type": "pretrain"}, "run": {"task": "captioning"}})


def test_a_type_that_is_not_on_the_hub_is_refused_by_name(imported: Import) -> None:
    with pytest.raises(
        SettingsError, match=r"found 'pretrain_flant5xl_vitL', expected .* Did you mean 'pretrain_flant5xl'"
    ):
        imported(blip_2("blip2_t5", "pretrain_flant5xl_vitL"))


def test_the_flat_file_of_blip_says_what_lavis_says(imported: Import) -> None:
    done = imported(FLAT)
    settings = resolve(done.recipe)
    assert settings.model.model == "Salesforce/blip-image-captioning-base"
    assert (settings.model.method, settings.model.image_size, settings.model.precision) == ("full", 384, "fp32")
    assert (settings.data.prompt, settings.data.max_words, settings.data.max_tokens) == ("a picture of", 30, 36)
    assert (settings.data.crop_scale, settings.data.flip, settings.data.randaugment) == ((0.5, 1.0), 0.5, (2, 5))
    assert settings.data.image_root == Path("photos/coco")
    training = settings.training
    assert (training.learning_rate, training.epochs, training.weight_decay, training.batch_size) == (1e-5, 5, 0.05, 6)
    assert (training.schedule, training.min_learning_rate, training.label_smoothing) == (
        "linear_warmup_cosine_lr",
        0,
        0.1,
    )
    assert (settings.generation.max_new_tokens, settings.generation.min_new_tokens, settings.generation.beams) == (
        16,
        1,
        3,
    )
    assert set(noted(done)) == {"ann_root", "coco_gt_root", "max_length", "min_length", "batch_size"}
    assert not done.evaluates


def test_flat_files_with_values_of_their_own(imported: Import) -> None:
    changed = {
        "vit": "large",
        "vit_grad_ckpt": True,
        "vit_ckpt_layer": 5,
        "pretrained": "model_large.pth",
        "num_beems": 3,
    }
    done = imported(FLAT | changed | {"image_root": "/nowhere/coco"})
    settings = resolve(done.recipe)
    assert settings.model.model == "Salesforce/blip-image-captioning-large"
    assert settings.model.checkpoint_activations
    told = noted(done)
    assert "pickles" in told["pretrained"] and "all layers" in told["vit_ckpt_layer"]
    assert "Did you mean 'num_beams'?" in told["num_beems"]
    assert "not on this machine" in told["image_root"]


def test_the_flat_file_of_nocaps_is_an_evaluation(imported: Import) -> None:
    left = ("coco_gt_root", "vit_grad_ckpt", "vit_ckpt_layer", "init_lr", "weight_decay", "min_lr", "max_epoch")
    done = imported({key: value for key, value in FLAT.items() if key not in left})
    settings = resolve(done.recipe)
    assert done.evaluates
    assert (settings.data.prompt, settings.generation.max_new_tokens) == ("a picture of", 16)
    assert settings.generation.repetition_penalty == 1.1
    assert settings.data.crop_scale is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"vqa_root": "x", "ann_root": "a", "vit": "base", "image_size": 480}, "BLIP for question answering"),
        ({"image_root": "x", "ann_root": "a", "vit": "base", "queue_size": 1}, "BLIP for retrieval or pretraining"),
        ({"image_root": "x", "ann_root": "a", "vit": "base", "image_size": 384}, "BLIP for another task"),
        (FLAT | {"max_length": "many"}, ": max_length: found 'many', expected a whole number"),
        (FLAT | {"vit": "huge"}, "found 'huge_coco', expected base_coco or large_coco"),
        (FLAT | {"max_epoch": 0}, "training.epochs: found 0, expected at least 1"),
    ],
)
def test_flat_files_that_cannot_be_imported_are_one_line(imported: Import, content: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        imported(content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and "BLIP file" in str(caught.value)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 50)
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from(sorted(FLAT)) | st.text(max_size=8), VALUES, max_size=6))
def test_any_flat_file_is_imported_or_refused_with_one_line(changes: dict[str, Any], tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "flat.yaml"
    path.write_text(yaml.safe_dump(FLAT | changes, allow_unicode=True), encoding="utf-8")
    try:
        resolve(import_lavis(path).recipe)
    except SettingsError as error:
        assert "\n" not in str(error)
