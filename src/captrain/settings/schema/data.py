"""Settings of the data: how it is read, and how it becomes training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from captrain.settings.schema.base import Section, Share


class ReadingSettings(Section):
    """How to read a data set, where looking at it does not tell."""

    format: str | None = None
    """Form of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (`captrain data formats`). Default: found by looking."""
    caption_extension: str = ""
    """Extension of the caption files beside images. Default: txt, then caption."""
    caption_lines: Literal["each", "whole"] = "each"
    """Whether each line of a caption file is a caption, or the whole file is one."""
    image_column: str = ""
    """Column of a table that names the image. Default: found by its usual names."""
    caption_column: str = ""
    """Column of a table with the caption. Default: found by its usual names."""
    image_root: Path | None = None
    """Folder that a table's image names are relative to. Default: the table's own."""
    image_key: str = ""
    """Members of a tar's samples that are the image, such as `jpg;png`. Default: found by looking."""
    caption_key: str = ""
    """Member of a tar's samples with the caption: `txt`, or `json/caption`, a JSON member's field. Default: found by looking."""


class Source(Section):
    """One of several data sets to train on."""

    path: str
    """Folder, file, tar pattern or hub name, as on the command line."""
    ratio: Annotated[float, Field(gt=0)] | None = None
    """Its share of an epoch's images, in proportion to the other ratios. Default: all of its images, once."""
    format: str | None = None
    """Its form. Default: found by looking."""


class DataSettings(ReadingSettings):
    """How pictures and captions become training rows."""

    sources: Annotated[tuple[Source, ...], Parameter(parse=False)] = ()
    """Several data sets at once, in recipes only: a list of `path`, `ratio` and `format`."""
    validation_share: Share = 0.1
    """Share of the training images held out when the data names no validation split."""
    captions_per_image: Literal["all", "one"] | Annotated[int, Field(ge=1)] = "all"
    """Captions of an image that ride in its row each epoch: all, one, or a number, drawn anew each epoch."""
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = None
    """Train on random crops with at least and at most this share of the picture (LAVIS: 0.5 1.0). Default: the whole."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training pictures shown mirrored. Pictures whose captions speak of left or right are not."""
    randaugment: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0, le=10)]] | None = None
    """RandAugment on training pictures: how many operations, and how strong out of 10 (LAVIS: 2 5)."""
    views: Annotated[int, Field(ge=1, le=64)] = 1
    """Kept views of a training picture, the plain one among them; epochs take turns. With 1, each epoch makes its own view."""
    lower_case: bool = False
    """Write captions in lower case."""
    strip_punctuation: bool = False
    """Remove punctuation from captions, as LAVIS does."""
    max_words: Annotated[int, Field(ge=1)] | None = None
    """Cut captions after so many words. Default: not by words (`max_tokens` cuts)."""
    prefix: str = ""
    """Put before every caption, and learned (a style's name, say)."""
    suffix: str = ""
    """Put after every caption, and learned."""
    replace: tuple[str, ...] = ()
    """Words to replace in captions, each as `old=new`; `old=` removes it."""
    remove_words: tuple[str, ...] = ()
    """Words or phrases that captions lose."""
    shuffle_tags: bool = False
    """Shuffle the comma-separated tags of a caption, anew in each epoch."""
    keep_tags: Annotated[int, Field(ge=0)] = 0
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: Share = 0.0
    """Share of tags left out, drawn anew in each epoch."""
    drop_captions: Share = 0.0
    """Share of captions left empty, drawn anew in each epoch."""
    prompt: str | None = None
    """Words before every caption, given and not learned; saved with the model. Default: the model's, else its family's."""
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

    @model_validator(mode="after")
    def _agrees(self) -> DataSettings:
        """Refuse what contradicts itself."""
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {self.crop_scale}: expected the smaller share first")
        if self.views > 1 and not (self.crop_scale or self.flip or self.randaugment):
            raise ValueError(f"views {self.views}: nothing makes them differ; give crop_scale, flip or randaugment")
        if len({source.ratio is None for source in self.sources}) > 1:
            raise ValueError("sources: some have a ratio and some have none; give one to all or to none")
        if wrong := [pair for pair in self.replace if pair.find("=") < 1]:
            raise ValueError(f"replace '{wrong[0]}': expected old=new")
        return self
