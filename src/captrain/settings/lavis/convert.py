"""Turns a runtime file of LAVIS (sections model, datasets, run) into a recipe, and notes what has no counterpart.

Values are read as LAVIS reads them (Li et al. 2022; salesforce/LAVIS: `blip_caption.py`, `blip_processors.py`,
`runner_base.py`, `optims.py`), with its defaults where the file is silent and captrain's differ.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from captrain.errors import SettingsError
from captrain.settings.lavis.blip_flat import in_its_words, in_sections, is_flat
from captrain.settings.lavis.models import (
    architecture_of,
    take_batch,
    take_lengths,
    take_model,
    take_prompt,
    weights_of,
)
from captrain.settings.lavis.sections import (
    AS_IT_IS,
    CROPS,
    LEFT_OUT,
    NO_MATTER,
    SECTIONS,
    Imported,
    LavisSection,
    hint,
)  # fmt: skip
from captrain.settings.load import leaves, read_yaml, validate
from captrain.settings.schema import Settings
from captrain.settings.schema.optimization import CONSTANT, WITH_DECAY_RATE
from captrain.settings.schema.training import ScheduleName

MOST_DATA_SETS = 100


def import_lavis(path: Path, model: str | None = None) -> Imported:
    """A runtime file of LAVIS, or a flat one of BLIP, as a recipe; with `model` for another checkpoint than the hub's.

    Raises `SettingsError` for a file that is none, is of another task than captioning or of an architecture that no family
    here has, or has a value of the wrong kind.
    """
    where = f"LAVIS file {path}"
    content = read_yaml(path, where)
    if isinstance(content, Mapping) and is_flat(content):
        done = _import(in_sections(content, f"BLIP file {path}"), f"BLIP file {path}", model)
        in_its_words(done, content)
        return done
    if not isinstance(content, Mapping) or not {"model", "run"} & set(content):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        found = _listed(content) if isinstance(content, Mapping) else kind
        expected = "sections model, datasets and run as LAVIS has them, or the keys of BLIP's caption_coco.yaml"
        raise SettingsError(f"{where}: found {found}, expected {expected}")
    return _import(content, where, model)


def _import(content: Mapping[Any, Any], where: str, checkpoint: str | None) -> Imported:
    """LAVIS's sections as a recipe."""
    whole = LavisSection("", content, where)
    model, datasets, run = (whole.part(name) for name in ("model", "datasets", "run"))
    done = Imported()
    kind = architecture_of(model)
    weights = weights_of(model, kind)
    take_model(model, kind, weights, done)
    if checkpoint is not None:
        done.set("model", checkpoint)
    texts = _data_sets(datasets, done)
    take_prompt(model, weights, texts, done)
    _run(run, done)
    take_lengths(run, model, kind, done)
    take_batch(run, datasets, done)
    for section in (model, run):
        _leave_out(section, SECTIONS[section.name], done)
    for key in content:
        if key not in ("model", "datasets", "run"):
            done.note(str(key), "is not a section that LAVIS reads here (model, datasets, run)")
    validate(Settings, done.recipe, where)
    return done


def _data_sets(sections: LavisSection, done: Imported) -> list[LavisSection]:
    """Processors, image folders and ratios of the data sets; returns their text processors."""
    if len(sections.values) > MOST_DATA_SETS:
        raise SettingsError(f"{sections.where}: {len(sections.values)} data sets, expected at most {MOST_DATA_SETS}")
    parts = [sections.part(str(name)) for name in sections.values if isinstance(name, str)]
    for number, data in enumerate(parts):
        first = Imported() if number else done  # captrain prepares the pictures of all data sets alike
        _vision(data.part("vis_processor"), first)
        _text(data.part("text_processor"), first)
        _images(data, done, alone=len(parts) == 1)
        done.notes.extend(first.notes if number else ())
        if number and any(first.get(leaf) != done.get(leaf) for leaf in leaves() if first.get(leaf) is not None):
            done.note(data.name, f"has processors of its own; here all data sets are prepared as {parts[0].name} is")
        _leave_out(data, SECTIONS["datasets"], done)
    if len(parts) > 1:
        _mix(parts, done)
    return [data.part("text_processor") for data in parts]


def _mix(parts: list[LavisSection], done: Imported) -> None:
    """Several data sets become sources under the names that LAVIS has for them."""
    ratios = [data.take("sample_ratio", "a number") for data in parts]
    with_ratio = None not in ratios
    done.set(
        "sources",
        [
            {"path": data.name.rpartition(".")[2], **({"ratio": ratio} if with_ratio else {})}
            for data, ratio in zip(parts, ratios, strict=True)
        ],
    )
    done.note("datasets", "LAVIS knows where its data sets are; put the path of each into data.sources")


def _vision(processors: LavisSection, done: Imported) -> None:
    """How pictures are cropped, turned and resized."""
    train, evaluation = processors.part("train"), processors.part("eval")
    name = train.take("name", "a name", "")
    if name in CROPS:
        low, high = train.take("min_scale", "a number", 0.5), train.take("max_scale", "a number", 1.0)
        done.set("crop_scale", [low, high])
        done.set("flip", 0.5)
        if strength := CROPS[name]:
            done.set("randaugment", list(strength))
    elif name and name != "blip_image_eval":
        done.note(f"{train.name}.name", f"'{name}' is unknown here{hint(name, CROPS)}: no augmentation is set")
    size = train.take("image_size", "a whole number") or evaluation.take("image_size", "a whole number")
    if size:
        done.set("image_size", size)
    done.set("resize", "squash")
    if evaluation.take("image_size", "a whole number", size) != size:
        done.note(f"{evaluation.name}.image_size", "differs from training's; here both see one size")
    for part in (train, evaluation):
        _leave_out(part, SECTIONS["vis_processor"], done)


def _text(processors: LavisSection, done: Imported) -> None:
    """How captions are cleaned, and the prompt before them."""
    train, evaluation = processors.part("train"), processors.part("eval")
    name = train.take("name", "a name", "")
    if name == "blip_caption":
        done.set("lower_case", True)
        done.set("strip_punctuation", True)
        done.set("max_words", train.take("max_words", "a whole number", 50))
    elif name:
        done.note(f"{train.name}.name", f"'{name}' is unknown here; expected blip_caption: captions stay as they are")
    if prompt := train.take("prompt", "text", "").strip():
        done.set("prompt", prompt)
    for part in (train, evaluation):
        _leave_out(part, SECTIONS["text_processor"], done)


def _images(data: LavisSection, done: Imported, alone: bool) -> None:
    """Where the user's pictures are."""
    images = data.values.get("images") or data.part("build_info").values.get("images")
    storage = images.get("storage") if isinstance(images, Mapping) else images
    if isinstance(storage, list) and len(storage) == 1:
        storage = storage[0]
    if storage is None:
        return
    if isinstance(storage, str) and alone and "${" not in storage:
        done.set("image_root", storage)
        if os.path.isabs(storage) and not os.path.isdir(storage):
            done.note(
                f"{data.name}.images", f"{storage} is not on this machine: change data.image_root, or give --image-root"
            )
        return
    done.note(
        f"{data.name}.images",
        "is no single folder of all pictures; give --image-root, or keep tables beside their pictures",
    )


def _run(run: LavisSection, done: Imported) -> None:
    """The training itself."""
    task = run.take("task", "a name", "captioning")
    if task != "captioning":
        raise SettingsError(f"{run.where}: run.task: found '{task}', expected captioning")
    for key, (leaf, kind) in AS_IT_IS.items():
        value = run.take(key, kind)
        if value is not None:
            done.set(leaf, value)
    drop_unused(done.recipe.get("generation", {}))
    for leaf, names in splits_of(run):
        done.set(leaf, names)
    if done.get("max_gradient_norm") is None:
        done.set("max_gradient_norm", 0.0)
    take_schedule(run, done)
    _device(run, done)
    if run.take("evaluate", "true or false", False):
        done.evaluates = True
        done.note("run.evaluate", "`captrain evaluate MODEL DATA --recipe FILE` does it: nothing is trained")


def _device(run: LavisSection, done: Imported) -> None:
    """Where and with which arithmetic."""
    device = run.take("device", "a name", "cuda")
    done.set("device", device.partition(":")[0])
    if ":" in device:
        done.note("run.device", f"'{device}': which of several devices is chosen by CUDA_VISIBLE_DEVICES")
    amp = run.take("amp", "true or false", None)
    if amp is not None:
        done.set("precision", "auto" if amp else "fp32")
    if amp:
        done.note(
            "run.amp", "there fp16 with scaled losses, here bf16 where the device computes it fast, without scaling"
        )


def _leave_out(section: LavisSection, known: frozenset[str], done: Imported) -> None:
    """Note what has no counterpart, and what nobody knows; say nothing of values that change nothing."""
    for key, value in section.values.items():
        name = f"{section.name}.{key}"
        if key in LEFT_OUT and value is not None and value not in NO_MATTER.get(key, ()):
            done.note(name, LEFT_OUT[key])
        elif key not in LEFT_OUT and key not in known:
            done.note(name, f"is not known from LAVIS's captioning files{hint(str(key), known)}")


def _listed(content: Mapping[Any, Any]) -> str:
    """The first sections of a file, for an error."""
    return "sections " + ", ".join(reprlib.repr(key) for key in list(content)[:5]) if content else "nothing"


SPLITS = {
    "train_splits": ("train_split", ["train"]),
    "valid_splits": ("validation_split", ["val"]),
    "test_splits": ("test_split", ["test"]),
}
"""For each key the setting, and the value that does what captrain does anyway."""

MOST_SPLITS = 100


def splits_of(run: LavisSection) -> Iterator[tuple[str, list[str]]]:
    """The settings of splits that differ from what is done anyway. Raises `SettingsError` for what is no list of names.

    >>> list(splits_of(LavisSection("run", {"train_splits": ["train"], "test_splits": ["val", "test"]}, "f")))
    [('test_split', ['val', 'test'])]
    """
    for key, (leaf, usual) in SPLITS.items():
        names = run.values.get(key)
        if names is None or names == usual:
            continue
        if not isinstance(names, list) or len(names) > MOST_SPLITS or not all(isinstance(name, str) for name in names):
            raise SettingsError(
                f"{run.where}: run.{key}: found {reprlib.repr(names)}, expected a list of names of splits"
            )
        yield leaf, names


def drop_unused(generation: dict[str, Any]) -> None:
    """Take out what the way of writing has no use for: LAVIS's files name beams and `top_p`, whichever is used.

    >>> generation = {"sample": False, "top_p": 0.5, "beams": 5}
    >>> drop_unused(generation)
    >>> generation
    {'sample': False, 'beams': 5}
    """
    for name in ("beams",) if generation.get("sample") else ("top_p", "temperature"):
        generation.pop(name, None)


def take_schedule(run: LavisSection, done: Imported) -> None:
    """Take over the schedule, its floor, its falls and its warm-up."""
    name = run.take("lr_sched", "a name", "linear_warmup_cosine_lr")
    known = get_args(ScheduleName)
    if name not in known:
        done.note("run.lr_sched", f"'{name}' is not here{hint(name, known)}; expected {', '.join(known)}")
        return
    done.set("schedule", name)
    floor = run.take("min_lr", "a number", 0.0)
    if name not in CONSTANT:
        done.set("min_learning_rate", floor)
    elif floor:
        done.note("run.min_lr", f"{name} never falls, there as here")
    decay = run.take("lr_decay_rate", "a number")
    if name in WITH_DECAY_RATE:
        done.set("decay_rate", 1.0 if decay is None else decay)
    elif decay is not None:
        done.note("run.lr_decay_rate", f"{name} has no steps, there as here")
    _warmup(run, done)


def _warmup(run: LavisSection, done: Imported) -> None:
    """The warm-up. LAVIS counts its batches, captrain the steps that they are gathered into."""
    start = run.take("warmup_lr", "a number", -1.0)
    if start >= 0:
        done.set("warmup_learning_rate", start)
    batches, gathered = run.take("warmup_steps", "a whole number", 0), done.get("accumulate") or 1
    steps = -(-batches // gathered)
    done.set("warmup_steps", steps)
    if batches and gathered > 1:
        done.note("run.warmup_steps", f"{batches} batches are {steps} steps here: {gathered} are added up")
