"""`captrain.show_settings`, `captrain.recipe_schema` and `captrain.import_recipe`: recipes, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from captrain.api.options import TRAINING, Place, place, place_or_none, settings_from, sort_settings
from captrain.api.settings import TrainSettings
from captrain.errors import SettingsError
from captrain.models.defaults import default_values, family_of
from captrain.progress import printable
from captrain.settings.load import EXTENDS, Nested, recipe_layers
from captrain.settings.schema import Settings
from captrain.settings.schema.optimization import OWN_RATES, beta2_of, default_rate, schedule_of
from captrain.yaml_text import inline

DECIDED_BY_FAMILY = frozenset(
    {
        "method",
        "freeze",
        "image_size",
        "resize",
        "decode",
        "image_vectors",
        "learning_rate",
        "label_smoothing",
        "prompt",
    }
)
"""Settings whose `null` the model family or the checkpoint fills in, once it is loaded."""
UNKNOWN = "the checkpoint's own"


def show_settings(recipe: Place | None = None, **settings: Unpack[TrainSettings]) -> str:
    """The settings of a training as YAML, each with where it comes from, as `captrain config show` prints them.

    The text is a recipe itself. Where a setting is `null` and the model's family or the optimizer decides it, the comment says
    what that is.

    Args:
        recipe: YAML file of settings; a keyword argument wins over it.
        settings: Any setting of a recipe, as for `captrain.train`.

    >>> lines = show_settings(rank=4).splitlines()
    >>> lines[0], next(line.strip() for line in lines if "rank:" in line)
    ('# family: blip (the published checkpoint blip-base)', 'rank: 4  # argument')
    """
    return settings_text(recipe, sort_settings("captrain.show_settings", settings, TRAINING), "argument")


def settings_text(recipe: Place | None, given: Nested, origin: str) -> str:
    """The settings of a recipe and of what was given, as YAML with comments; `origin` is the word for what was given."""
    settings = settings_from(recipe, given)
    layers: dict[str, Nested] = {origin: given}
    if recipe is not None:
        layers |= {f"recipe {printable(str(layer.path))}": layer.sections for layer in recipe_layers(place(recipe))}
    family = family_of(settings.model)
    head = f"# family: {family.name} ({printable(family.known_by)})"
    return "\n".join([head, *annotated_yaml(settings, layers, _decided(family.name, settings))])


def recipe_schema() -> dict[str, Any]:
    """What a recipe may hold, as a JSON schema: the settings, the recipe it builds on, and data sets as a bare list."""
    described = Settings.model_json_schema()
    properties = described["properties"]
    sources = described["$defs"]["DataSettings"]["properties"]["sources"]
    base = {"type": "string", "description": "Recipe that this one builds on, relative to this file."}
    data = {"anyOf": [properties["data"], sources], "description": "The data, or a list of data sets."}
    described["properties"] = {EXTENDS: base, **properties, "data": data}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **described, "title": "A recipe of captrain"}


def _decided(family: str, settings: Settings) -> dict[str, str]:
    """What family, checkpoint and optimizer make of settings that are left to them, each in words that name who decides."""
    values, training = default_values(family, settings.model), settings.training
    told = {
        leaf: f"family default: {inline(values[leaf]) if leaf in values else UNKNOWN}" for leaf in DECIDED_BY_FAMILY
    }
    by_optimizer = {"schedule": schedule_of(training), "beta2": beta2_of(training)}
    if training.optimizer in OWN_RATES:
        by_optimizer["learning_rate"] = default_rate(training.optimizer, values["learning_rate"])
    return told | {leaf: f"default of {training.optimizer}: {inline(value)}" for leaf, value in by_optimizer.items()}


def annotated_yaml(settings: Settings, layers: Mapping[str, Nested], decided: Mapping[str, str]) -> list[str]:
    """Lines of YAML, each with a comment that names the first of the layers that sets it, or `default`.

    `decided` holds what to say instead of settings that nothing sets and that are `null`.

    >>> lines = annotated_yaml(Settings(), {"flag": {"data": {"format": "jsonl"}}}, {"freeze": "family default: [vision]"})
    >>> lines[lines.index("data:") + 1], next(line for line in lines if "freeze" in line)
    ('  format: null  # flag', '  freeze: null  # family default: [vision]')
    """
    lines = []
    for section, values in settings.model_dump(mode="json").items():
        lines.append(f"{section}:")
        for leaf, value in values.items():
            default = decided.get(leaf, "default") if value is None else "default"
            origin = next((name for name, layer in layers.items() if leaf in layer.get(section, {})), default)
            lines.append(f"  {leaf}: {inline(value)}  # {origin}")
    return lines


@dataclass(frozen=True, slots=True)
class ImportedRecipe:
    """A recipe that was made of another system's configuration. It prints as the recipe.

    `notes` say what has no counterpart or was changed, each with the reason; `path` where the recipe was written, if it was.
    """

    text: str
    notes: tuple[tuple[str, str], ...]
    path: Path | None

    def __str__(self) -> str:
        return self.text


def import_recipe(
    file: Place, out: Place | None = None, *, model: Place | None = None, overwrite: bool = False
) -> ImportedRecipe:
    """Turn a captioning configuration of LAVIS or BLIP into a recipe, as `captrain config import` does.

    Args:
        file: YAML file of LAVIS, such as caption_coco_ft.yaml, or of the BLIP repository, caption_coco.yaml.
        out: Recipe to write. Default: none is written.
        model: Checkpoint for the recipe (folder or hub id); its tokenizer counts the prompt. Default: the one on the hub.
        overwrite: Replace the recipe if it exists.

    Raises `SettingsError` for a file that is none of these, and if `out` is there already.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "caption_coco.yaml"
    >>> _ = file.write_text("model: {arch: blip_caption, model_type: base_coco}\\nrun: {task: captioning, max_epoch: 5}")
    >>> "  epochs: 5" in import_recipe(file).text.splitlines()
    True
    """
    from captrain.disk.locks import locked

    target = place_or_none(out)
    with nullcontext() if target is None else locked(target):
        return _import(Path(file), target, None if model is None else place(model), overwrite)


def _import(file: Path, out: Path | None, model: str | None, overwrite: bool) -> ImportedRecipe:
    """The work, while nobody else writes `out`."""
    from captrain.disk.writing import write_text
    from captrain.settings.lavis.convert import import_lavis

    if out is not None and out.exists() and not overwrite:
        raise SettingsError(f"{out}: is there already; give another name, or --overwrite")
    done = import_lavis(file, model)
    notes = [(printable(note.key), printable(note.reason)) for note in done.notes]
    name = printable(str(out or "RECIPE"))
    command = f"captrain train DATA OUT --recipe {name}"
    if done.evaluates:
        command = f"captrain evaluate {printable(done.get('model'))} DATA --recipe {name}"
    text = recipe_text(file, command, done.recipe, notes)
    if out is not None:
        try:
            write_text(out, text)
        except OSError as error:
            raise SettingsError(
                f"{out}: can't be written ({error.strerror}); give a path in a folder that exists"
            ) from None
    return ImportedRecipe(text, tuple(notes), out)


def recipe_text(file: Path, command: str, recipe: dict[str, dict[str, Any]], notes: list[tuple[str, str]]) -> str:
    """The recipe as YAML, below comments that say where it is from, how to run it, and what is missing."""
    lines = [
        f"# From {printable(file.name)} of LAVIS or BLIP.",
        "#",
        f"#   {command}",
    ]
    if notes:
        lines += ["#", "# Without counterpart, or changed:", *(f"# - {key}: {reason}" for key, reason in notes)]
    for section, values in recipe.items():
        lines += [f"{section}:", *(f"  {leaf}: {inline(value)}" for leaf, value in values.items())]
    return "\n".join(lines) + "\n"
