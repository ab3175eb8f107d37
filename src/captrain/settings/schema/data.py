"""Settings of the data: how it is read, and how it becomes training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from captrain.settings.schema.base import Panel, RecipeOnly, Section, Share

READING = Panel("Reading the data", 11)
PICTURES = Panel("Data: views of pictures", 11.1)
WORDS = Panel("Data: words of captions", 11.2)


def _listed(value: object) -> object:
    """One name as a list of it: recipes may leave the brackets out."""
    return (value,) if isinstance(value, str) else value


def known_encoding(name: str) -> str:
    """The name of a text encoding, as it is; "" for none. Raises `ValueError` for one that Python does not have."""
    try:
        known = not name or "a".encode(name).decode(name) == "a"
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise ValueError(
            f"encoding {name!r} is unknown; expected cp1252, cp932, gb18030, utf-16-le or another of Python's"
        )
    return name


SplitNames = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""Names of splits, as the data set calls them; none to leave a part out."""


class ReadingSettings(Section):
    """How to read a data set, where its files do not show it."""

    format: Annotated[str | None, READING] = None
    """Form of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (`captrain data formats`). Default: found by looking."""
    caption_extension: Annotated[str, READING] = ""
    """Extension of the caption files beside images. Default: txt, then caption."""
    caption_lines: Annotated[Literal["each", "whole"], READING] = "each"
    """Whether each line of a caption file is a caption, or the whole file is one."""
    encoding: Annotated[str, AfterValidator(known_encoding), READING] = ""
    """Encoding of caption files and tables, such as `cp932`. Default: UTF-8; a byte-order mark goes before all."""
    image_column: Annotated[str, READING] = ""
    """Column of a table that names the image. Default: found by its usual names."""
    caption_column: Annotated[str, READING] = ""
    """Column of a table with the caption. Default: found by its usual names."""
    image_root: Annotated[Path | None, READING] = None
    """Folder that a table's image names are relative to, and that none leaves. Default: the table's own."""
    follow_links: Annotated[bool, READING] = False
    """Read what links in the data's folder lead to, wherever that is, and linked folders. Default: they are refused."""
    image_key: Annotated[str, READING] = ""
    """Members of a tar's samples that are the image, such as `jpg;png`. Default: found by looking."""
    caption_key: Annotated[str, READING] = ""
    """Member of a tar's samples with the caption: `txt`, or `json/caption`, a JSON member's field. Default: found by looking."""


class Source(Section):
    """One of several data sets to train on."""

    path: str
    """Folder, file, tar pattern or hub name, as on the command line."""
    ratio: Annotated[float, Field(gt=0)] | None = None
    """Its share of an epoch's images, in proportion to the other ratios. Default: all of its images, once."""
    format: str | None = None
    """Its form. Default: found by looking."""
    train_split: SplitNames | None = None
    """Its splits to train on; `[]` for none. Default: `data.train_split`."""
    validation_split: SplitNames | None = None
    """Its splits to validate on; `[]` for none. Default: `data.validation_split`."""
    test_split: SplitNames | None = None
    """Its splits to test the best model on; `[]` for none. Default: `data.test_split`."""


class DataSettings(ReadingSettings):
    """How pictures and captions become training rows."""

    sources: Annotated[tuple[Source, ...], RecipeOnly()] = ()
    """Several data sets at once, in recipes only: a list of `path`, `ratio`, `format` and names of splits."""
    train_split: SplitNames | None = None
    """Splits to train on, by the names that the data has. Default: train; of data without splits everything."""
    validation_split: SplitNames | None = None
    """Splits to validate on; with `--no-validation-split` (`[]`) nothing is. Default: validation (val, valid, dev)."""
    test_split: SplitNames | None = None
    """Splits to test the best model on at the end; `--no-test-split` (`[]`) for none. Default: test, where there is one."""
    validation_data: str | None = None
    """Another data set to validate on, instead of a part of the training's."""
    test_data: str | None = None
    """Another data set to test the best model on at the end."""
    validation_share: Share = 0.1
    """Share of the training images held out when the data names no validation split."""
    learn_from_machine_captions: bool = False
    """Learn from captions that captrain wrote, too. Default: they are left out, and counted."""
    captions_per_image: Literal["all", "one"] | Annotated[int, Field(ge=1)] = "all"
    """Captions of an image that an epoch trains on: all, one, or a number; which ones is drawn again in each epoch."""
    crop_scale: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None, PICTURES
    ] = None
    """Train on random crops with at least and at most this share of the picture (LAVIS: 0.5 1.0). Default: the whole."""
    flip: Annotated[float, Field(ge=0, le=1), PICTURES] = 0.0
    """Share of training pictures shown mirrored. Pictures whose captions speak of left or right are not."""
    randaugment: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0, le=10)]] | None, PICTURES] = (
        None
    )
    """RandAugment on training pictures: how many operations, and how strong out of 10 (LAVIS: 2 5)."""
    views: Annotated[int, Field(ge=1, le=64), PICTURES] = 1
    """Kept views of a training picture, the plain one among them; epochs take turns. With 1, each epoch makes its own view."""
    lower_case: Annotated[bool, WORDS] = False
    """Write captions in lower case."""
    strip_punctuation: Annotated[bool, WORDS] = False
    """Remove punctuation from captions, as LAVIS does."""
    max_words: Annotated[Annotated[int, Field(ge=1)] | None, WORDS] = None
    """Cut captions after so many words. Default: not by words (`max_tokens` cuts)."""
    prefix: Annotated[str, WORDS] = ""
    """Put before every caption, and learned (a style's name, say)."""
    suffix: Annotated[str, WORDS] = ""
    """Put after every caption, and learned."""
    replace: Annotated[tuple[str, ...], WORDS] = ()
    """Words to replace in captions, each as `old=new`; `old=` removes it."""
    remove_words: Annotated[tuple[str, ...], WORDS] = ()
    """Words or phrases that captions lose."""
    shuffle_tags: Annotated[bool, WORDS] = False
    """Shuffle the comma-separated tags of a caption, again in each epoch."""
    keep_tags: Annotated[int, Field(ge=0), WORDS] = 0
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: Annotated[Share, WORDS] = 0.0
    """Share of tags left out, drawn again in each epoch."""
    drop_captions: Annotated[Share, WORDS] = 0.0
    """Share of captions left empty, drawn again in each epoch."""
    accept_lost_words: Annotated[bool, WORDS] = False
    """Train although many words of the captions do not come back from the tokenizer: unknown to it, or without their accents."""
    prompt: str | None = None
    """Words before every caption, given and not learned; saved with the model.
    Default: the model's, else what conversations in the data all ask, else the family's."""
    max_tokens: Annotated[int, Field(ge=2)] = 64
    """Longest caption in tokens, its end token included; longer ones are cut and counted."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Pictures with more pixels than this are rejected before they are decoded."""
    keep: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where what is computed once from a picture is kept: in memory while it fits the budget, else on disk."""
    memory_budget: Annotated[float, Field(ge=0)] | None = None
    """Memory for kept features or pictures, in GiB. Default: a quarter of what is free."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one a core, at most 16."""
