"""Write drawn scenes as a data set that the rest of captrain reads: `images/` and one JSON-lines file a split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captrain.demo.draw import draw
from captrain.demo.scenes import Scene, make_scenes
from captrain.demo.words import describe
from captrain.disk.folders import make_folders
from captrain.disk.writing import new_file
from captrain.records import write_jsonl

FAST_COMPRESSION = 1


def write_dataset(
    folder: Path, train: int, validation: int, test: int, held_out: int, seed: int = 0, side: int = 96
) -> dict[str, Path]:
    """Draw so many scenes for each split into `folder`; returns the JSONL file of each split.

    A line is `{"file_name": "images/train-00000.png", "captions": [five], "scene": [groups]}`. Every scene of `held_out`,
    and of no other split, has a group of a held-out kind. `side` is the pictures' width and height in pixels.

    About 2 ms a scene.
    """
    make_folders(folder / "images", folder.parent)
    sizes = {"train": train, "validation": validation, "test": test, "held_out": held_out}
    files = {}
    for number, (split, count) in enumerate(sizes.items()):
        # Seeds never meet, so no split repeats another's scenes.
        scenes = make_scenes(count, seed=seed * len(sizes) + number, held_out=split == "held_out")
        files[split] = folder / f"{split}.jsonl"
        write_jsonl(files[split], _lines(folder, split, scenes, side))
    return files


def _lines(folder: Path, split: str, scenes: list[Scene], side: int) -> Iterator[dict[str, Any]]:
    for number, scene in enumerate(scenes):
        name = f"images/{split}-{number:05d}.png"
        with new_file(folder / name, sync=False) as file:
            draw(scene, side).save(file, "PNG", compress_level=FAST_COMPRESSION)
        yield {"file_name": name, "captions": describe(scene), "scene": scene.to_list()}
