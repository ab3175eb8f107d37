"""`captrain config`: show, schema, import."""

from __future__ import annotations

import json
from pathlib import Path

from captrain.api import recipes
from captrain.cli.arguments import Switch
from captrain.cli.flags import (
    DataFlags,
    DistributedFlags,
    EvaluationFlags,
    GenerationFlags,
    ModelFlags,
    TrainingFlags,
    given,
)
from captrain.cli.show import show_table


def show(
    *,
    recipe: Path | None = None,
    model: ModelFlags = None,
    data: DataFlags = None,
    training: TrainingFlags = None,
    generation: GenerationFlags = None,
    evaluation: EvaluationFlags = None,
    distributed: DistributedFlags = None,
) -> int:
    """Print the settings of a training as YAML, each with where it comes from. The output is a recipe itself.

    Where a setting is `null` and the model's family or the optimizer decides it, the comment says what that is.

    Args:
        recipe: YAML file of settings. Flags override it.
    """
    flags = given(
        model=model, data=data, training=training, generation=generation, evaluation=evaluation, distributed=distributed
    )
    print(recipes.settings_text(recipe, flags, "flag"))
    return 0


def schema() -> int:
    """Print the JSON schema of recipes, for editors: they complete names, and mark wrong ones and wrong values.

    A recipe that begins with `# yaml-language-server: $schema=recipe.schema.json` has it checked by most editors.
    """
    print(json.dumps(recipes.recipe_schema(), indent=2))
    return 0


def import_recipe(
    file: Path, out: Path | None = None, /, *, model: str | None = None, overwrite: Switch = False
) -> int:
    """Turn a captioning configuration of LAVIS or BLIP into a recipe, and say what has no counterpart, and why.

    Args:
        file: YAML file of LAVIS, such as caption_coco_ft.yaml, or of the BLIP repository, caption_coco.yaml.
        out: Recipe to write. Default: print it.
        model: Checkpoint for the recipe (folder or hub id); its tokenizer counts the prompt. Default: the one on the hub.
        overwrite: Replace the recipe if it exists.
    """
    done = recipes.import_recipe(file, out, model=model, overwrite=overwrite)
    if out is None:
        print(done.text, end="")
        return 0
    show_table(done.notes, header=("without counterpart, or changed", "why"))
    show_table([("recipe", str(out))])
    return 0
