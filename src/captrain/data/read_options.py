"""What a person can say about a data set that can't be seen by looking at it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from captrain.errors import SettingsError
from captrain.settings.schema import ReadingSettings
from captrain.settings.schema.data import known_encoding


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a data set. Every reader takes all of them and uses those that mean something to it.

    caption_extension: of caption files beside images, without a dot; "" for .txt, then .caption.
    caption_lines: whether each line of such a file is a caption, or the whole file is one.
    encoding: of caption files and tables without a byte-order mark; "" for UTF-8.
    image_column, caption_column: names of a table's columns; "" to find them by their usual names.
    image_root: folder that a table's image names are relative to; None for the table's own.
    image_key, caption_key: members of a tar's samples ("jpg;png", "txt", "json/caption"); "" to find them by looking.
    machine_captions: whether captions that captrain wrote count.
    follow_links: whether links that leave the data set's folder are read, and links to folders. Only a person can ask for that.
    """

    caption_extension: str = ""
    caption_lines: Literal["each", "whole"] = "each"
    encoding: str = ""
    image_column: str = ""
    caption_column: str = ""
    image_root: Path | None = None
    image_key: str = ""
    caption_key: str = ""
    machine_captions: bool = True
    follow_links: bool = False

    def __post_init__(self) -> None:
        try:
            known_encoding(self.encoding)
        except ValueError as error:
            raise SettingsError(error) from None

    @classmethod
    def of(cls, settings: ReadingSettings) -> ReadOptions:
        """What settings say. In training, captions that captrain wrote count only if the settings say so."""
        said = {field.name: getattr(settings, field.name) for field in fields(cls) if hasattr(settings, field.name)}
        return cls(**said, machine_captions=getattr(settings, "learn_from_machine_captions", True))


BY_LOOKING = ReadOptions()
