"""Write drawn scenes as the data sets that the rest of captrain reads: `images/` and one JSON-lines file a split."""

from __future__ import annotations

from pathlib import Path

from captrain.demo.draw import draw
from captrain.demo.scenes import Scene, make_scenes
from captrain.demo.words import describe
from captrain.records import write_jsonl


def write_dataset(folder: Path, train: int, validation: int, test: int, held_out: int, seed: int = 0, side: int = 96) -> dict[str, Path]:
    """Draw all splits into `folder`; the JSONL file of each.

    Every line is `{"file_name": "images/train-00000.png", "captions": [five of them], "scene": [groups]}`. `held_out`
    shows pairs of colour and shape that no other split shows. Each split has its own lot, so none repeats another's picture.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sizes = {"train": train, "validation": validation, "test": test, "held_out": held_out}
    return {name: _write_split(folder, name, _scenes(name, count, seed), side) for name, count in sizes.items()}


