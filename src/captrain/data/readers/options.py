"""What a person can say about a data set that can't be seen by looking at it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from captrain.settings.schema import ReadingSettings


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a data set. Every reader takes all of them and uses those that mean something to it.

    caption_extension: of caption files beside images, without a dot; "" for .txt, then .caption.
    caption_lines: whether each line of such a file is a caption, or the whole file is one.
    image_column, caption_column: names of a table's columns; "" to find them by their usual names.
    image_root: folder that a table's image names are relative to; None for the table's own.
    image_key, caption_key: members of a tar's samples ("jpg;png", "txt", "json/caption"); "" to find them by looking.
    """

    caption_extension: str = ""
    caption_lines: Literal["each", "whole"] = "each"
    image_column: str = ""
    caption_column: str = ""
    image_root: Path | None = None
    image_key: str = ""
    caption_key: str = ""

    @classmethod
    def of(cls, settings: ReadingSettings) -> ReadOptions:
        """What settings say."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


BY_LOOKING = ReadOptions()
