"""Settings of the data: how it is read, and how it becomes training rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from captrain.settings.schema.base import FormerFlag, Panel, RecipeOnly, Section, Share

READING = Panel("Reading the data", 11)
PICTURES = Panel("Data: augmentation", 11.1)
WORDS = Panel("Data: caption text", 11.2)


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
    """Format of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (see `captrain data formats`). Default: recognised."""
    caption_extension: Annotated[str, READING] = ""
    """Extension of the caption files beside images. Default: txt, then caption."""
    caption_lines: Annotated[Literal["each", "whole"], READING] = "each"
    """Whether each line of a caption file is a caption, or the whole file is one."""
    encoding: Annotated[str, AfterValidator(known_encoding), READING] = ""
    """Text encoding of caption files and tables, such as `cp932`. Default: UTF-8, or what a byte-order mark says."""
    image_column: Annotated[str, READING] = ""
    """Column of a table with the image's file name. Default: recognised by its usual names."""
    caption_column: Annotated[str, READING] = ""
    """Column of a table with the caption. Default: recognised by its usual names."""
    image_root: Annotated[Path | None, READING] = None
    """Folder of the images that a table names. Default: the table's own."""
    follow_links: Annotated[bool, READING] = False
    """Follow links in the data's folder, wherever they lead. Default: they are refused."""
    image_key: Annotated[str, READING] = ""
    """File extensions of the image in tar shards, such as `jpg;png`. Default: recognised."""
    caption_key: Annotated[str, READING] = ""
    """Where the caption is in tar shards: `txt`, or `json/caption` for a field of a JSON file. Default: recognised."""


class Source(Section):
    """One of several data sets to train on."""

    path: str
    """Folder, file, tar pattern or hub name, as on the command line."""
    ratio: Annotated[float, Field(gt=0)] | None = None
    """Its share of an epoch's images, relative to the other ratios. Default: all of its images, once."""
    format: str | None = None
    """Its format. Default: recognised."""
    train_split: SplitNames | None = None
    """Its splits to train on; `[]` for none. Default: `data.train_split`."""
    validation_split: SplitNames | None = None
    """Its splits to validate on; `[]` for none. Default: `data.validation_split`."""
    test_split: SplitNames | None = None
    """Its splits to test the best model on; `[]` for none. Default: `data.test_split`."""


OLD_NAMES = {"keep": "cache_features"}
"""Settings of the data that recipes and runs of earlier versions call otherwise."""


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the data by their present names; what has its present name already wins.

    >>> renamed({"keep": "off", "flip": 0.5}), renamed({"keep": "off", "cache_features": "disk"})
    ({'cache_features': 'off', 'flip': 0.5}, {'cache_features': 'disk'})
    """
    old = {OLD_NAMES[name]: value for name, value in values.items() if name in OLD_NAMES}
    return old | {name: value for name, value in values.items() if name not in OLD_NAMES}


class DataSettings(ReadingSettings):
    """How pictures and captions become training rows."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        return renamed(values) if isinstance(values, Mapping) else values

    sources: Annotated[tuple[Source, ...], RecipeOnly()] = ()
    """Several data sets at once, in recipes only: a list of `path`, `ratio`, `format` and names of splits."""
    train_split: SplitNames | None = None
    """Splits to train on, by the data's own names. Default: train, or everything if the data has no splits."""
    validation_split: SplitNames | None = None
    """Splits to validate on; `--no-validation-split` (`[]`) for none. Default: validation (val, valid, dev)."""
    test_split: SplitNames | None = None
    """Splits to test the best model on at the end; `--no-test-split` (`[]`) for none. Default: test, if there is one."""
    validation_data: str | None = None
    """Another data set to validate on."""
    test_data: str | None = None
    """Another data set to test the best model on at the end."""
    validation_share: Share = 0.1
    """Share of the training images to hold out for validation if the data has no validation split."""
    learn_from_machine_captions: bool = False
    """Train on captions that captrain wrote, too. Default: they are left out and counted."""
    captions_per_image: Literal["all", "one"] | Annotated[int, Field(ge=1)] = "all"
    """Captions of each image to train on in an epoch: all, one, or a number that is drawn again in each epoch."""
    crop_scale: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None, PICTURES
    ] = None
    """Train on random crops: smallest and largest share of the picture (LAVIS: 0.5 1.0). Default: the whole picture."""
    flip: Annotated[float, Field(ge=0, le=1), PICTURES] = 0.0
    """Share of training pictures that are mirrored, except those whose captions say left or right."""
    randaugment: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0, le=10)]] | None, PICTURES] = (
        None
    )
    """RandAugment on training pictures: number of operations and strength from 0 to 10 (LAVIS: 2 5)."""
    views: Annotated[int, Field(ge=1, le=64), PICTURES] = 1
    """Number of views of a training picture to cache, the plain one included; epochs take turns. With 1, each epoch makes
    a new view."""
    lower_case: Annotated[bool, WORDS] = False
    """Make captions lower case."""
    strip_punctuation: Annotated[bool, WORDS] = False
    """Remove punctuation from captions, as LAVIS does."""
    max_words: Annotated[Annotated[int, Field(ge=1)] | None, WORDS] = None
    """Cut captions after this many words. Default: no limit but `max_tokens`."""
    prefix: Annotated[str, WORDS] = ""
    """Text to put before every caption and to learn, such as the name of a style."""
    suffix: Annotated[str, WORDS] = ""
    """Text to put after every caption and to learn."""
    replace: Annotated[tuple[str, ...], WORDS] = ()
    """Words to replace in captions, each as `old=new`; `old=` removes it."""
    remove_words: Annotated[tuple[str, ...], WORDS] = ()
    """Words or phrases to remove from captions."""
    shuffle_tags: Annotated[bool, WORDS] = False
    """Shuffle the comma-separated tags of a caption in each epoch."""
    keep_tags: Annotated[int, Field(ge=0), WORDS] = 0
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: Annotated[Share, WORDS] = 0.0
    """Share of tags to leave out, drawn again in each epoch."""
    drop_captions: Annotated[Share, WORDS] = 0.0
    """Share of captions to leave empty, drawn again in each epoch."""
    accept_lost_words: Annotated[bool, WORDS] = False
    """Train even if the tokenizer loses many words of the captions (unknown words, accents)."""
    prompt: str | None = None
    """Words before every caption that are given, not learned; saved with the model.
    Default: the model's, else the question that all conversations in the data ask, else the family's."""
    max_tokens: Annotated[int, Field(ge=2)] = 64
    """Longest caption in tokens, end token included; longer ones are cut and counted."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Pictures with more pixels than this are rejected before they are decoded."""
    cache_features: Annotated[Literal["auto", "memory", "disk", "off"], FormerFlag("--keep")] = "auto"
    """Where features that are computed once are cached: `auto` means in memory if they fit, else on disk."""
    cache_dtype: Literal["auto", "bfloat16", "float16", "float32", "int8"] = "auto"
    """Number format of cached features: `int8` halves them, with a scale for each vector. `auto` means that of the
    computation."""
    memory_budget: Annotated[float, Field(ge=0)] | None = None
    """Memory for cached features or pictures, in GiB. Default: a quarter of what is free."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one per core, at most 16."""
