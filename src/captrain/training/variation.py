"""From settings to how training data is changed and mixed: views of pictures, words of captions, shares of data sets."""

from __future__ import annotations

from captrain.data.augment import Augmentation
from captrain.data.caption_text import CaptionText
from captrain.settings.schema import DataSettings


def augmentation(data: DataSettings) -> Augmentation | None:
    """How training pictures are varied; None where they are not."""
    asked = Augmentation(crop_scale=data.crop_scale, flip=data.flip, randaugment=data.randaugment)
    return asked if asked.is_random else None


def caption_text(data: DataSettings) -> CaptionText:
    """What is done to the words of captions."""
    return CaptionText(
        lower_case=data.lower_case,
        strip_punctuation=data.strip_punctuation,
        max_words=data.max_words,
        prefix=data.prefix,
        suffix=data.suffix,
        replace=tuple(_pair(pair) for pair in data.replace),
        remove_words=data.remove_words,
        shuffle_tags=data.shuffle_tags,
        keep_tags=data.keep_tags,
        drop_tags=data.drop_tags,
        drop_captions=data.drop_captions,
    )


def source_ratios(data: DataSettings) -> list[float] | None:
    """The ratios of several data sets; None where all their images are shown once an epoch."""
    ratios = [source.ratio for source in data.sources if source.ratio is not None]
    return ratios or None


def _pair(text: str) -> tuple[str, str]:
    """`old=new` as a pair.

    >>> _pair("dog=hound")
    ('dog', 'hound')
    """
    old, _, new = text.partition("=")
    return old, new
