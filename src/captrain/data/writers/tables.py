"""Images and a table of them: `metadata.jsonl`, or `metadata.csv`. Hugging Face's `imagefolder` reads both.

`metadata.jsonl` has the columns `file_name`, `text` and, where images have several captions, `captions`; and `written_by` where
captrain wrote some. Splits become `train.jsonl`, `validation.jsonl` and `test.jsonl`.

`metadata.csv` has the columns `file_name` and `text` (and `split`), and a row a caption, so several for an image with several.
Spreadsheets run cells that begin with one of `FORMULA`. If asked for, such a caption is written with an apostrophe before it,
and a column `apostrophe` holds a 1, by which captrain's reader removes it again; a file's name gets `./`. (OWASP, "CSV
Injection".)
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from captrain.data.machine_captions import LINE_KEY, stated
from captrain.data.readers.csv_table import APOSTROPHE
from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.picture_output import PictureFolder
from captrain.data.writers.safe_names import Names
from captrain.disk.writing import NewFile, create
from captrain.records import read_jsonl, write_jsonl


class MetadataJsonl:
    """Writes the form."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = True

    def __init__(self, target: FormTarget) -> None:
        self.store = PictureFolder(target.folder, target.link)
        self.names = Names(target.losses)
        self.lines = JsonLinesFile()
        self.folder = target.folder

    def put(self, item: OutputSample) -> None:
        """Store the image under its id, add a line."""
        name = self.names.of(item)
        self.store.put(item.picture, name)
        table = "metadata.jsonl" if item.split == "all" else f"{item.split}.jsonl"
        self.lines.add(self.folder / table, name, item.captions, item.machine)

    def close(self) -> None:
        """Complete the tables."""
        self.lines.close()


class JsonLinesFile:
    """Tables of lines. All have the same columns, which loaders that look at the first line need.

    A table is written under another name and gets its own when it is closed (`captrain.disk.writing`).
    """

    def __init__(self) -> None:
        self.files: dict[Path, NewFile] = {}
        self.several = self.machine = False

    def add(self, table: Path, name: str, captions: Sequence[str], machine: Sequence[str] = ()) -> None:
        """Add a line to a table. `machine` says what wrote each caption, as in `Sample`."""
        if table not in self.files:
            self.files[table] = NewFile(table)
        said = stated(machine or [""] * len(captions))
        line = {"file_name": name, "text": captions[0], "captions": list(captions), LINE_KEY: said}
        self.several = self.several or len(captions) > 1
        self.machine = self.machine or bool(machine)
        self.files[table].file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))

    def close(self) -> None:
        """Complete all; where no image has several captions, `captions` says no more than `text` and is taken out.

        So is what says who wrote them, where persons wrote all.
        """
        useless = {"captions": not self.several, LINE_KEY: not self.machine}
        for table, new in self.files.items():
            if any(useless.values()):
                new.file.flush()
                lines = read_jsonl(new.name)
                write_jsonl(table, ({key: line[key] for key in line if not useless.get(key)} for line in lines))
                new.discard()
            else:
                new.finish()

    def discard(self) -> None:
        """Leave nothing behind of tables that are not complete."""
        for new in self.files.values():
            new.discard()


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
