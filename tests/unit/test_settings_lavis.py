"""A LAVIS runtime file becomes a recipe of the same meaning, and what has no counterpart is told with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captrain.cli import main
from captrain.errors import SettingsError
from captrain.settings.lavis.convert import Imported, import_lavis
from captrain.settings.load import load_recipe, resolve

BASE: dict[str, Any] = {
    "model": {"arch": "blip_caption", "model_type": "base_coco", "load_finetuned": False},
    "datasets": {
        "coco_caption": {
            "vis_processor": {"train": {"name": "blip_image_train"}, "eval": {"name": "blip_image_eval"}},
            "text_processor": {
                "train": {"name": "blip_caption", "prompt": "a picture of "},
                "eval": {"name": "blip_caption"},
            },
        }
    },
    "run": {
        "task": "captioning",
        "lr_sched": "linear_warmup_cosine_lr",
        "init_lr": 1e-5,
        "min_lr": 0,
        "weight_decay": 0.05,
        "max_epoch": 5,
        "batch_size_train": 32,
        "batch_size_eval": 64,
        "num_workers": 4,
        "max_len": 20,
        "min_len": 5,
        "num_beams": 3,
        "seed": 42,
        "output_dir": "output/BLIP/Caption_coco",
        "amp": False,
        "resume_ckpt_path": None,
        "evaluate": False,
        "train_splits": ["train"],
        "valid_splits": ["val"],
        "test_splits": ["test"],
        "device": "cuda",
        "world_size": 1,
        "dist_url": "env://",
        "distributed": True,
    },
}
"""What LAVIS's caption_coco_ft.yaml says."""


@pytest.fixture
def lavis(tmp_path: Path):
    """Imports BASE with some sections changed key by key, or a text."""

    def run(changes: dict[str, Any] | str) -> Imported:
        path = tmp_path / "caption.yaml"
        text = changes if isinstance(changes, str) else yaml.safe_dump(merged(BASE, changes))
        path.write_text(text, encoding="utf-8")
        return import_lavis(path)

    return run


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `changes`."""
    both = {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }
    return {**base, **both}


def noted(done: Imported) -> dict[str, str]:
    return {note.key: note.reason for note in done.notes}


def test_the_base_file(lavis) -> None:
    done = lavis({})
    settings = resolve(done.recipe)
    assert settings.model.model == "Salesforce/blip-image-captioning-base"
    assert (settings.model.method, settings.model.image_size, settings.model.resize) == ("full", 384, "squash")
    assert (settings.model.device, settings.model.precision) == ("cuda", "fp32")
    assert (settings.data.crop_scale, settings.data.flip, settings.data.randaugment) == ((0.5, 1.0), 0.5, (2, 5))
    assert (settings.data.lower_case, settings.data.strip_punctuation, settings.data.max_words) == (True, True, 50)
    assert settings.data.prompt == "a picture of"
    training = settings.training
    assert (training.learning_rate, training.weight_decay, training.epochs, training.seed) == (1e-5, 0.05, 5, 42)
    assert (training.schedule, training.warmup_steps) == ("linear_warmup_cosine_lr", 0)
    assert (training.min_learning_rate, training.warmup_learning_rate) == (0, None)
    assert (training.label_smoothing, training.max_gradient_norm) == (0.1, 0)
    assert settings.generation.beams == 3


def test_counts_are_in_captrains_units(lavis) -> None:
    """LAVIS's lengths include [DEC] and "a picture of"; its batches are pairs, five to an image of COCO."""
    done = lavis({})
    settings = resolve(done.recipe)
    assert (settings.generation.max_new_tokens, settings.generation.min_new_tokens) == (16, 1)
    assert (settings.data.max_tokens, settings.training.batch_size) == (36, 6)
    assert "20 is 16 here" in noted(done)["run.max_len"]
    assert "6 images of about 5 captions" in noted(done)["run.batch_size_train"]


def test_batches_of_unknown_data_stay_as_they_are(lavis) -> None:
    done = lavis({"datasets": {"my_photos": {}}})
    assert resolve(done.recipe).training.batch_size == 32
    assert "as many images" in noted(done)["run.batch_size_train"]


def test_the_large_file(lavis) -> None:
    done = lavis({"model": {"model_type": "large_coco"}, "run": {"init_lr": "2e-6", "batch_size_train": 16}})
    settings = resolve(done.recipe)
    assert settings.model.model == "Salesforce/blip-image-captioning-large"
    assert (settings.training.learning_rate, settings.training.batch_size) == (2e-6, 3)


def test_what_has_no_counterpart_is_told_and_what_changes_nothing_is_not(lavis) -> None:
    notes = noted(lavis({}))
    assert {"run.dist_url", "run.distributed", "run.output_dir", "run.batch_size_eval"} <= set(notes)
    assert "torchrun" in notes["run.dist_url"]
    assert "model.load_finetuned" in notes
    quiet = {"run.min_lr", "run.evaluate", "run.resume_ckpt_path", "run.train_splits", "run.world_size", "run.seed"}
    assert not quiet & set(notes)


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("run", "lr_sched", "linear_warmup_cosine", "Did you mean 'linear_warmup_cosine_lr'?"),
        ("run", "lr_decay_rate", 0.9, "no steps"),
        ("run", "evaluate", True, "captrain evaluate"),
        ("run", "resume_ckpt_path", "checkpoint_3.pth", "--resume"),
        ("run", "lr_layer_decay", 0.9, "vision_layer_decay"),
        ("run", "amp", True, "bf16"),
        ("run", "device", "cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("run", "intt_lr", 1, "Did you mean 'init_lr'?"),
        ("model", "pretrained", "https://host/model.pth", "pickles"),
        ("model", "vit_ckpt_layer", 4, "all layers"),
    ],
)
def test_the_reason_is_told(lavis, section: str, key: str, value: object, said: str) -> None:
    assert said in noted(lavis({section: {key: value}}))[f"{section}.{key}"]


def test_splits_are_named_where_they_are_not_the_usual_ones(lavis) -> None:
    done = lavis({"run": {"valid_splits": ["minival"], "test_splits": []}})
    data = resolve(done.recipe).data
    assert (data.train_split, data.validation_split, data.test_split) == (None, ("minival",), ())
    assert not [key for key in noted(done) if key.endswith("_splits")]
    with pytest.raises(SettingsError, match=r"run.test_splits: found 'test', expected a list of names of splits"):
        lavis({"run": {"test_splits": "test"}})


def test_what_the_way_of_writing_has_no_use_for_is_left_out(lavis) -> None:
    beams = resolve(lavis({"run": {"use_nucleus_sampling": False, "top_p": 0.5, "num_beams": 5}}).recipe)
    assert (beams.generation.beams, beams.generation.top_p) == (5, 0.9)
    drawn = resolve(lavis({"run": {"use_nucleus_sampling": True, "top_p": 0.5, "num_beams": 5}}).recipe)
    assert (drawn.generation.sample, drawn.generation.top_p) == (True, 0.5)


def test_the_curve_is_taken_as_it_is(lavis) -> None:
    """The values of LAVIS's BLIP-2 file, which has a warm-up."""
    done = lavis({"run": {"min_lr": 1e-6, "warmup_lr": "1e-8", "warmup_steps": 1000}})
    training = resolve(done.recipe).training
    assert (training.min_learning_rate, training.warmup_learning_rate, training.warmup_steps) == (1e-6, 1e-8, 1000)
    assert not {"run.min_lr", "run.warmup_lr", "run.warmup_steps"} & set(noted(done))


def test_a_curve_with_steps(lavis) -> None:
    run = {"lr_sched": "linear_warmup_step_lr", "lr_decay_rate": 0.7, "min_lr": 1e-7}
    training = resolve(lavis({"run": run}).recipe).training
    assert (training.schedule, training.decay_rate, training.min_learning_rate) == ("linear_warmup_step_lr", 0.7, 1e-7)
    assert resolve(lavis({"run": {"lr_sched": "linear_warmup_step_lr"}}).recipe).training.decay_rate == 1


def test_a_constant_rate_has_no_floor(lavis) -> None:
    done = lavis({"run": {"lr_sched": "constant_lr", "min_lr": 1e-6}})
    assert (resolve(done.recipe).training.schedule, resolve(done.recipe).training.min_learning_rate) == (
        "constant_lr",
        0,
    )
    assert "never falls" in noted(done)["run.min_lr"]


def test_a_warmup_is_counted_in_steps_of_the_optimizer(lavis) -> None:
    done = lavis({"run": {"warmup_steps": 1001, "accum_grad_iters": 4, "warmup_lr": 0}})
    training = resolve(done.recipe).training
    assert (training.warmup_steps, training.warmup_learning_rate) == (251, 0)
    assert "1001 batches are 251 steps" in noted(done)["run.warmup_steps"]


def test_activations_that_lavis_computes_again_are_here_too(lavis) -> None:
    assert resolve(lavis({"model": {"vit_grad_ckpt": True}}).recipe).model.checkpoint_activations
    assert not resolve(lavis({"model": {"vit_grad_ckpt": False}}).recipe).model.checkpoint_activations


def test_a_users_own_folder_of_images(lavis) -> None:
    done = lavis({"datasets": {"coco_caption": {"images": "photos/coco"}}})
    assert resolve(done.recipe).data.image_root == Path("photos/coco")
    done = lavis({"datasets": {"coco_caption": {"build_info": {"images": {"storage": "photos/coco"}}}}})
    assert resolve(done.recipe).data.image_root == Path("photos/coco")
    done = lavis({"datasets": {"coco_caption": {"images": "${env.data}/coco"}}})
    assert "datasets.coco_caption.images" in noted(done)


def test_processors_with_values_of_their_own(lavis) -> None:
    train = {"image_size": 224, "min_scale": 0.3}
    text = {"max_words": 30, "prompt": "a photo of "}
    data = {"vis_processor": {"train": train}, "text_processor": {"train": text}}
    done = lavis({"datasets": {"coco_caption": data}, "model": {"prompt": "a picture of "}})
    settings = resolve(done.recipe)
    assert (settings.model.image_size, settings.data.crop_scale) == (224, (0.3, 1.0))
    assert (settings.data.max_words, settings.data.prompt) == (30, "a photo of")
    assert "model.prompt" in noted(done)


def test_several_data_sets_become_sources(lavis) -> None:
    done = lavis({"datasets": {"coco_caption": {"sample_ratio": 3}, "vg_caption": {"sample_ratio": 1}}})
    sources = resolve(done.recipe).data.sources
    assert [(source.path, source.ratio) for source in sources] == [("coco_caption", 3), ("vg_caption", 1)]
    assert "data.sources" in noted(done)["datasets"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"arch": "blip_vqa"}}, "model.arch: found 'blip_vqa', expected blip_caption"),
        ({"model": {"model_type": "bse_coco"}}, "Did you mean 'base_coco'?"),
        ({"run": {"task": "retrieval"}}, "run.task: found 'retrieval', expected captioning"),
        ({"run": {"max_epoch": "many"}}, "run.max_epoch: found 'many', expected a whole number"),
        ({"run": {"max_epoch": 1.5}}, "run.max_epoch: found 1.5, expected a whole number"),
        ({"run": {"init_lr": "${lr}"}}, "run.init_lr: found '${lr}', expected a number"),
        ({"run": {"init_lr": ".nan"}}, "expected a number"),
        ({"run": {"max_epoch": -1}}, "training.epochs: found -1, expected at least 1"),
        ({"run": {"amp": "yes please"}}, "run.amp: found 'yes please', expected true or false"),
        ({"run": ["task"]}, "run holds a list, expected a section"),
        ({"datasets": {"coco_caption": {"vis_processor": 3}}}, "datasets.coco_caption.vis_processor holds a int"),
        ({"datasets": {str(number): {} for number in range(200)}}, "expected at most 100"),
        ("data: {flip: 0.5}\ntraining: {epochs: 3}", "expected sections model, datasets and run"),
        ("- run", "found a list, expected sections"),
        ("", "expected sections"),
        ("run: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("run: {seed: 1, seed: 2}", "'seed' is given 2 times"),
        ("#" * 2_000_000, "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_imported_is_one_line(lavis, changes: dict[str, Any] | str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        lavis(changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "caption.yaml" in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers(-5, 50) | st.floats() | st.text(max_size=8) | st.lists(st.integers())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.dictionaries(st.sampled_from(["model", "datasets", "run"]), st.dictionaries(st.text(), LEAVES) | LEAVES)
)
def test_any_file_is_imported_or_refused_with_one_line(changes: dict[str, Any], tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(changes, allow_unicode=True), encoding="utf-8")
    try:
        resolve(import_lavis(path).recipe)
    except SettingsError as error:
        assert "\n" not in str(error)


def test_the_command_writes_a_recipe_that_says_all(tmp_path: Path, capsys) -> None:
    file, out = tmp_path / "caption_coco_ft.yaml", tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(merged(BASE, {"run": {"odd\nkey: {": 1}})))
    assert main(["config", "import", str(file), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "run.dist_url" in printed and "torchrun" in printed
    text = out.read_text()
    assert f"captrain train DATA OUT --recipe {out}" in text
    assert "# - run.dist_url: " in text
    assert resolve(load_recipe(out)) == resolve(import_lavis(file).recipe)
    assert main(["config", "import", str(file), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["config", "import", str(file), str(out), "--overwrite"]) == 0
    assert main(["config", "import", str(file), str(tmp_path / "no" / "mine.yaml")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_without_a_name_the_recipe_is_printed(tmp_path: Path, capsys) -> None:
    file = tmp_path / "lavis.yaml"
    file.write_text(yaml.safe_dump(BASE))
    assert main(["config", "import", str(file)]) == 0
    assert resolve(yaml.safe_load(capsys.readouterr().out)) == resolve(import_lavis(file).recipe)
