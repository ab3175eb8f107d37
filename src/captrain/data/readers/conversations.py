"""Conversations about pictures, such as LLaVA's, in JSON lists or JSON lines: the answers are captions, the questions are not.

[{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}]
or {"images": ["a.jpg"], "messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A dog."}]}.

The answers to a row's first question are its picture's captions. Answers to further questions say only what these ask
for, so they are left out and counted. A row about several pictures describes none of them alone: it is rejected. Where all
rows ask the same, that question becomes the prompt of the training if none is given.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import json_list, jsonl
from captrain.data.readers.columns import IMAGE_COLUMNS, present, split_of
from captrain.data.readers.json_entries import files_at, has_caption_files, has_files, with_unlisted
from captrain.data.readers.json_list import MESSAGES, Turn, images_of, is_conversation, turns_of
from captrain.data.readers.json_objects import LONGEST_NAME, MOST_FILES
from captrain.data.readers.line_index import BOM, blocks, opened_lines
from captrain.data.readers.tables import TableFile, check_row_splits, one_table_each
from captrain.data.safe_paths import Root, is_hidden, is_remote
from captrain.data.samples import QuestionSamples
from captrain.errors import DataError
from captrain.limits import next_json_line
from captrain.records import Rejects, Sample, parse_json_line

SUFFIXES = (*jsonl.SUFFIXES, ".json")
MOST_LOOKED_AT = 20  # rows of a file that are looked at: all are to be conversations, and one is to name a picture
LONGEST_SHOWN = 80  # characters of a question
MOST_QUESTIONS = 10_000  # different ones that are counted
TABLES = frozenset({*SUFFIXES, ".csv", ".tsv", ".parquet"})

_EXAMPLE = 'expected rows like {"image": ..., "conversations": [{"from": "human", ...}, {"from": "gpt", ...}]}'

logger = logging.getLogger(__name__)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .json or .jsonl file of conversations, or a folder with some and no other tables: by first rows."""
    path = Path(source)
    try:
        if path.is_dir():
            return _is_data_set(path, options) and has_files(path, SUFFIXES, _is_form)
        return path.suffix.lower() in SUFFIXES and path.is_file() and _is_form(path)
    except (OSError, ValueError):
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All pictures by split, in the order in which rows first name them; ids are the paths they are found under.

    Rejected are rows about no picture, or several, or one that is not a file here, and pictures that are missing or have no
    answer. Raises `DataError` for a line that is no JSON object, a name that leaves the folder, and if nothing is left.
    With a caption column given, the rows are read as those of any other table.
    """
    tables = files_at(source, options, SUFFIXES, _is_form)
    if options.caption_column and options.caption_column not in MESSAGES:
        plain = json_list if tables[0].path.suffix.lower() in json_list.SUFFIXES else jsonl
        return plain.read(source, rejects, options, captioned=captioned)

    def rows(table: TableFile) -> dict[str, Sequence[Sample]]:
        return _Conversations(table, options.image_column, rejects).read(captioned)

    return with_unlisted(one_table_each(source, tables, rows, rejects, _EXAMPLE), source, options, captioned)


class _Conversations:
    """Reads one table, and counts what was asked and what is left out."""

    def __init__(self, table: TableFile, image_column: str, rejects: Rejects) -> None:
        self.table, self.image_column, self.rejects = table, image_column, rejects
        self.questions: Counter[str] = Counter()
        self.further = self.several = 0

    def read(self, captioned: bool) -> dict[str, Sequence[Sample]]:
        """The samples by split, with their question where it is one; what was counted is said."""
        gathered = self.table.gathered()
        for number, values in _rows(self.table.path):
            self._take(gathered, number, values)
        check_row_splits(gathered.names, self.table)
        splits = gathered.samples(self.rejects, captioned=captioned)
        question = next(iter(self.questions)) if len(self.questions) == 1 else ""
        if splits:
            self._say(question)
        return {split: QuestionSamples(samples, question) for split, samples in splits.items()}

    def _take(self, gathered: GatheredCaptions, number: int, values: dict[str, Any]) -> None:
        where = f"{self.table.path}:{number}"
        images, turns = images_of(values, self.image_column), turns_of(values)
        if len(images) != 1 or _is_no_file(images[0]):
            self.several += len(images) > 1
            name = images[0][:LONGEST_NAME] if images else f"{self.table.name}:{number}"
            self.rejects.add(name, where, _no_picture(images))
            return
        answers = self._answers(turns)
        split = split_of(values, where) or self.table.split or "all"
        gathered.add(images[0], answers, number, self.rejects, split)

    def _answers(self, turns: Sequence[Turn]) -> list[str]:
        """The answers to the first question; others are counted."""
        if not turns:
            return []
        first = turns[0].question
        if first in self.questions or len(self.questions) < MOST_QUESTIONS:
            self.questions[first] += 1
        answers = [turn.answer for turn in turns if turn.question == first]
        self.further += len(turns) - len(answers)
        return answers

    def _say(self, question: str) -> None:
        if question:
            asked = f"all rows ask '{_shown(question)}', the prompt of a training if none is given"
        else:
            asked = f"rows ask {len(self.questions):,} different questions, so none becomes the prompt"
        left_out = [
            _counted(self.further, "answer to a further question", "answers to further questions"),
            _counted(self.several, "row about several pictures", "rows about several pictures"),
        ]
        parts = [
            asked if any(self.questions) else "",
            f"left out: {', '.join(filter(None, left_out))}" if any(left_out) else "",
        ]
        logger.info("%s: %s", self.table.path, "; ".join(["answers are captions", *filter(None, parts)]))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}" if count else ""


def _shown(question: str) -> str:
    """A question for a message, on one line, cut where it is long."""
    return question if len(question) <= LONGEST_SHOWN else f"{question[: LONGEST_SHOWN - 3]}..."


def _is_no_file(image: str) -> bool:
    return is_remote(image) or image.startswith("data:")


def _no_picture(images: Sequence[str]) -> str:
    """Why a row's pictures can't be used."""
    if not images:
        return "names no image"
    if len(images) > 1:
        return f"is about {len(images)} images; an answer describes a picture only if it is the row's only one"
    if images[0].startswith("data:"):
        return "holds its image within its text (a data: URL); save images as files, and name these"
    return "names an image on the web; fetch it first, and name the file"


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of each row."""
    if path.suffix.lower() in json_list.SUFFIXES:
        yield from json_list.objects(path)
        return
    for block in blocks(path):
        for number, line in zip(block.numbers.tolist(), block.lines, strict=True):
            yield number, parse_json_line(line.removeprefix(BOM), f"{path}:{number}")


def _first_rows(path: Path) -> list[dict[str, Any]]:
    """The first rows of a table, without reading on; none if they are no JSON objects."""
    try:
        if path.suffix.lower() in json_list.SUFFIXES:
            return [values for _, values in islice(json_list.objects(path), MOST_LOOKED_AT)]
        with opened_lines(path) as file:
            lines = [next_json_line(file).removeprefix(BOM) for _ in range(MOST_LOOKED_AT)]
        return [parse_json_line(line, str(path)) for line in lines if line.strip()]
    except DataError:
        return []


def _is_form(path: Path) -> bool:
    """Whether a file's first rows are conversations, some about pictures."""
    rows = _first_rows(path)
    return bool(rows) and all(map(is_conversation, rows)) and any(map(images_of, rows))


def _is_data_set(folder: Path, options: ReadOptions) -> bool:
    """Whether a folder has files of conversations and nothing that goes first: another table of images, caption files."""
    files = [file for file in folder.iterdir() if not is_hidden(file.name) and file.suffix.lower() in TABLES]
    if len(files) > MOST_FILES:  # they are something else, one per image say
        return False
    chats = [file for file in files if file.suffix.lower() in SUFFIXES and _is_form(file)]
    if any(file.suffix.lower() not in SUFFIXES or _names_image(file) for file in files if file not in chats):
        return False
    root = Root(folder, follow_links=options.follow_links)
    return any(map(_names_image, chats)) or (bool(chats) and not has_caption_files(root))


def _names_image(file: Path) -> bool:
    """Whether a file's first row names an image as the rows of any table do."""
    return any(present(IMAGE_COLUMNS, tuple(values)) for values in _first_rows(file)[:1])
