"""Images and a COCO captions file: `captions.json`, or `captions_train.json` and so on, one per split.

Widths and heights are those that the image files state, before any EXIF rotation, as in COCO.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any, TextIO

from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.picture_output import PictureFolder
from captrain.data.writers.safe_names import Names
from captrain.disk.writing import create
from captrain.version import __version__

FILE_NAMES = {"all": "captions.json", "validation": "captions_val.json"}


class Coco:
    """Writes the form. Ids of images and of annotations are numbers from 1, unique over all splits."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = False

    def __init__(self, target: FormTarget) -> None:
        self.folder = target.folder
        self.store = PictureFolder(target.folder, target.link)
        self.names = Names(target.losses)
        self.files: dict[str, CaptionsFile] = {}
        self.images = self.annotations = 0

    def put(self, item: OutputSample) -> None:
        """Store the image under its id; add it and its captions to the split's file."""
        width, height = item.picture.size()
        name = self.names.of(item)
        self.store.put(item.picture, name)
        self.images += 1
        if item.split not in self.files:
            self.files[item.split] = CaptionsFile(self.folder / file_name(item.split))
        file = self.files[item.split]
        file.add_image({"id": self.images, "file_name": name, "width": width, "height": height})
        for caption in item.captions:
            self.annotations += 1
            file.add_annotation({"id": self.annotations, "image_id": self.images, "caption": caption})

    def close(self) -> None:
        """Complete the files."""
        for file in self.files.values():
            file.close()


def file_name(split: str) -> str:
    """The captions file of a split.

    >>> file_name("train"), file_name("validation"), file_name("all")
    ('captions_train.json', 'captions_val.json', 'captions.json')
    """
    return FILE_NAMES.get(split, f"captions_{split}.json")


class CaptionsFile:
    """One JSON object, written as it comes: images go to the file, annotations to another that is appended at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rest = path.with_name(path.name + ".annotations")
        self.images, self.annotations = (
            io.TextIOWrapper(create(each), "utf-8", newline="\n") for each in (path, self.rest)
        )
        info = {"description": "image captions", "contributor": f"captrain {__version__}", "version": "1.0"}
        self.images.write(f'{{"info": {json.dumps(info)},\n"images": [')
        self.annotations.write('],\n"annotations": [')
        self.begun: set[TextIO] = set()

    def add_image(self, image: dict[str, Any]) -> None:
        """One entry of `images`."""
        self._add(self.images, image)

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        """One entry of `annotations`."""
        self._add(self.annotations, annotation)

    def close(self) -> None:
        """Put both together."""
        self.annotations.write("]}\n")
        self.annotations.close()
        with self.rest.open(encoding="utf-8", newline="\n") as rest, self.images as file:
            shutil.copyfileobj(rest, file)
        self.rest.unlink()

    def _add(self, file: TextIO, entry: dict[str, Any]) -> None:
        file.write(",\n" if file in self.begun else "\n")
        self.begun.add(file)
        file.write(json.dumps(entry, ensure_ascii=False))
