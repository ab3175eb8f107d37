"""Images and a `metadata.csv` with columns `file_name` and `text` (and `split`), a row a caption.

An image with several captions has several rows. Hugging Face's `imagefolder` reads it too, a row a sample.
"""

from __future__ import annotations

import csv
import io

from captrain.data.writers import Item, Target
from captrain.data.writers.names import Names
from captrain.data.writers.pictures import Store
from captrain.disk.writing import create


class CsvTable:
    """Writes the form, in UTF-8. All is quoted: some readers end a row at a lone carriage return outside quotes."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = False

    def __init__(self, target: Target) -> None:
        self.store = Store(target.folder, target.link)
        self.names = Names(target.losses)
        self.splits = target.splits != ["all"]
        self.file = io.TextIOWrapper(create(target.folder / "metadata.csv"), "utf-8", newline="")
        self.rows = csv.writer(self.file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self.rows.writerow(["file_name", "text", "split"] if self.splits else ["file_name", "text"])

    def put(self, item: Item) -> None:
        """Store the image under its id, add a row for each caption."""
        name = self.names.of(item)
        self.store.put(item.picture, name)
        split = [item.split] if self.splits else []
        self.rows.writerows([name, caption, *split] for caption in item.captions)

    def close(self) -> None:
        """Complete the table."""
        self.file.close()


FORM = CsvTable
