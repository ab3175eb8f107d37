"""`captrain config import`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from captrain.cli.config import inline
from captrain.cli.logs import printable
from captrain.cli.show import show_table
from captrain.cli.switch import Switch
from captrain.errors import SettingsError


def import_recipe(
    file: Path, out: Path | None = None, /, *, model: str | None = None, overwrite: Switch = False
) -> int:
    """Turn a captioning file of LAVIS or BLIP into a recipe, and say what of it has no counterpart, and why.

    Args:
        file: LAVIS's YAML file, such as caption_coco_ft.yaml, or that of the BLIP repository, caption_coco.yaml.
        out: Recipe to write. Without it, the recipe is printed.
        model: Checkpoint for the recipe, a folder or hub id; its tokenizer counts the prompt. Default: the one on the hub.
        overwrite: Replace the recipe if it is there.
    """
    from captrain.disk.locks import locked

    with nullcontext() if out is None else locked(out):
        return _import(file, out, model, overwrite)


def _import(file: Path, out: Path | None, model: str | None, overwrite: bool) -> int:
    """The work, while nobody else writes `out`."""
    from captrain.disk.writing import write_text
    from captrain.settings.lavis.convert import import_lavis

    if out is not None and out.exists() and not overwrite:
        raise SettingsError(f"{out}: is there already; give another name, or --overwrite")
    done = import_lavis(file, model)
    notes = [(printable(note.key), printable(note.reason)) for note in done.notes]
    place = printable(str(out or "RECIPE"))
    command = f"captrain train DATA OUT --recipe {place}"
    if done.evaluates:
        command = f"captrain evaluate {printable(done.get('model'))} DATA --recipe {place}"
    text = recipe_text(file, command, done.recipe, notes)
    if out is None:
        print(text, end="")
        return 0
    try:
        write_text(out, text)
    except OSError as error:
        raise SettingsError(
            f"{out}: can't be written ({error.strerror}); give a path in a folder that exists"
        ) from None
    show_table(notes, header=("without counterpart, or changed", "why"))
    show_table([("recipe", str(out))])
    return 0


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
