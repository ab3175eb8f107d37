"""What is done to captions before they are learned: once to all (`clean`), or again each epoch (`vary`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from captrain.errors import SettingsError

_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")  # LAVIS's set: commas, hyphens, quotes and question marks stay
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class CaptionText:
    """Rules for captions; none by default, so that every caption stays as it is.

    `clean` takes these steps, in this order:
    1. replace: pairs of plain texts, each taken in turn, as they are spelled in the data.
    2. lower_case.
    3. strip_punctuation: `. ! " ( ) * # : ; ~` and runs of white space become one space.
    4. remove_words: words or phrases that go, whole ones, however they are capitalised; and the commas left over.
    5. max_words: the caption ends after that many words.
    6. prefix and suffix: put around it, with a space between where none is there and the suffix begins with a letter or
       digit. A caption that has them already gets no second one; one with no words left stays empty.

    Steps 2, 3 and 5 are LAVIS's `BlipCaptionProcessor` (max_words 50, prefix "a picture of"), which leaves a tab or a line
    break that stands alone.

    `vary` takes these, on captions that `clean` has been through:
    1. drop_captions: the probability that a caption becomes empty, prefix and all.
    2. drop_tags: the probability of each comma-separated tag to go. At least one tag stays.
    3. shuffle_tags: their order. The first `keep_tags` tags are neither dropped nor moved, nor are prefix and suffix.

    >>> text = CaptionText(lower_case=True, strip_punctuation=True, max_words=3, prefix="a picture of")
    >>> text.clean(["Two  dogs (brown) run.", "..."])
    ['a picture of two dogs brown', '']
    >>> CaptionText(remove_words=("Solo",), replace=(("_", " "),)).clean(["1girl, solo, red_hair"])
    ['1girl, red hair']
    """

    lower_case: bool = False
    strip_punctuation: bool = False
    max_words: int | None = None
    prefix: str = ""
    suffix: str = ""
    replace: tuple[tuple[str, str], ...] = ()
    remove_words: tuple[str, ...] = ()
    shuffle_tags: bool = False
    keep_tags: int = 0
    drop_tags: float = 0.0
    drop_captions: float = 0.0

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < 1:
            raise SettingsError(f"max_words {self.max_words}: expected at least 1, or none for no limit")
        if self.keep_tags < 0:
            raise SettingsError(f"keep_tags {self.keep_tags}: expected the number of first tags that stay, 0 or more")
        for name, share in (("drop_tags", self.drop_tags), ("drop_captions", self.drop_captions)):
            if not 0 <= share < 1:
                raise SettingsError(f"{name} {share}: expected a probability from 0 up to, but not, 1")
        if not all(old for old, _ in self.replace):
            raise SettingsError("replace: found an empty text to replace, expected at least one character")
        if not all(word.strip() for word in self.remove_words):
            raise SettingsError("remove_words: found an empty word, expected at least one character")

    @property
    def is_random(self) -> bool:
        """Whether `vary` can change anything, so that captions must be made again each epoch."""
        return self.shuffle_tags or self.drop_tags > 0 or self.drop_captions > 0

    def clean(self, captions: Sequence[str]) -> list[str]:
        """Captions after the steps that are always the same. Their number stays; those without a word left are empty."""
        return [self._cleaned(caption) for caption in captions]

    def vary(self, captions: Sequence[str], random: np.random.Generator) -> list[str]:
        """Cleaned captions after the random steps.

        `random` comes from `captrain.data.augment.generator(seed, epoch, key, "caption")`: the result depends on
        those three and the captions only.

        >>> text = CaptionText(shuffle_tags=True, keep_tags=1, drop_tags=0.3)
        >>> text.vary(["1girl, red hair, smile, tree"] * 2, np.random.default_rng(2))
        ['1girl, smile', '1girl, smile, tree']
        """
        return [self._varied(caption, random) for caption in captions] if self.is_random else list(captions)

    def _cleaned(self, caption: str) -> str:
        text = self._bare(caption)
        for old, new in self.replace:
            text = text.replace(old, new)
        if self.lower_case:
            text = text.lower()
        if self.strip_punctuation:
            text = _SPACES.sub(" ", _PUNCTUATION.sub(" ", text)).strip()
        if self.remove_words:
            text = _without(text, self.remove_words)
        if self.max_words is not None:
            text = _first_words(text, self.max_words)
        return self._dressed(text) if text.strip() else ""

    def _varied(self, caption: str, random: np.random.Generator) -> str:
        if random.random() < self.drop_captions:
            return ""
        if not self.shuffle_tags and not self.drop_tags:
            return caption
        tags = [tag for tag in map(str.strip, self._bare(caption).split(",")) if tag]
        kept, others = tags[: self.keep_tags], tags[self.keep_tags :]
        dropping, order = random.random((2, len(others)))
        stay = np.flatnonzero(dropping >= self.drop_tags)
        if not kept and not len(stay):
            stay = np.argsort(dropping)[-1:]
        if self.shuffle_tags:
            stay = stay[np.argsort(order[stay])]
        return self._dressed(", ".join(kept + [others[index] for index in stay])) if tags else caption

    def _bare(self, caption: str) -> str:
        """A caption without the prefix and suffix that it has already."""
        return caption.removeprefix(_before(self.prefix)).removesuffix(_after(self.suffix))

    def _dressed(self, text: str) -> str:
        before, after = _before(self.prefix), _after(self.suffix)
        return (before if not text.startswith(before) else "") + text + (after if not text.endswith(after) else "")


def _before(prefix: str) -> str:
    return prefix + " " if prefix and not prefix[-1].isspace() else prefix


def _after(suffix: str) -> str:
    return " " + suffix if suffix and suffix[0].isalnum() else suffix


def _first_words(text: str, count: int) -> str:
    """The text up to the end of its word number `count`.

    >>> _first_words("a dog  runs fast", 3)
    'a dog  runs'
    """
    for number, word in enumerate(re.finditer(r"\S+", text), start=1):
        if number == count:
            return text[: word.end()]
    return text


def _without(text: str, words: tuple[str, ...]) -> str:
    """The text without these words, nor the spaces and commas that stood around them.

    >>> _without("Photo of a dog, photo, grass", ("photo of", "photo"))
    'a dog, grass'
    """
    shorter = _pattern(words).sub("", text)
    if shorter == text:
        return text
    return re.sub(r",(?:\s*,)+", ",", re.sub(r"[ \t]{2,}", " ", shorter)).strip(" \t,")


@lru_cache(maxsize=16)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((word.strip() for word in words), key=len, reverse=True)
    return re.compile(rf"[ \t]?(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
