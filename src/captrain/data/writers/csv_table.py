"""Images and a `metadata.csv` with columns `file_name` and `text` (and `split`), a row a caption.

An image with several captions has several rows. Hugging Face's `imagefolder` reads it too, a row a sample.

Spreadsheets run cells that begin with one of `FORMULA`. Where that is asked for, such a caption is written with an apostrophe
before it, and a column `apostrophe` holds a 1, by which captrain's reader takes it off again; a file's name gets `./`. (OWASP,
"CSV Injection".)
"""

from __future__ import annotations

import csv
import io

from captrain.data.readers.csv_table import APOSTROPHE
from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.names import Names
from captrain.data.writers.pictures import PictureFolder
from captrain.disk.writing import create

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a cell begins with that a spreadsheet runs, in either width."""


class CsvTable:
    """Writes the form, in UTF-8. All is quoted: some readers end a row at a lone carriage return outside quotes."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = False

    def __init__(self, target: FormTarget) -> None:
        self.store = PictureFolder(target.folder, target.link)
        self.names = Names(target.losses)
        self.splits, self.quote_formulas = target.splits != ["all"], target.quote_formulas
        self.file = io.TextIOWrapper(create(target.folder / "metadata.csv"), "utf-8", newline="")
        self.rows = csv.writer(self.file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        columns = ["file_name", "text", *["split"] * self.splits, *[APOSTROPHE] * self.quote_formulas]
        self.rows.writerow(columns)

    def put(self, item: OutputSample) -> None:
        """Store the image under its id, add a row for each caption."""
        name = self.names.of(item)
        self.store.put(item.picture, name)
        split = [item.split] if self.splits else []
        if self.quote_formulas:
            name = f"./{name}" if name.startswith(FORMULA) else name
            self.rows.writerows(
                [name, f"'{text}", *split, "1"] if text.startswith(FORMULA) else [name, text, *split, ""]
                for text in item.captions
            )
        else:
            self.rows.writerows([name, caption, *split] for caption in item.captions)

    def close(self) -> None:
        """Complete the table."""
        self.file.close()


FORM = CsvTable
