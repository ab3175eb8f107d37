"""Names with dots inside: which members of a tar belong together when the first dot does not tell.

WebDataset ends a sample's key at the first dot of a name, so that `0001.left.jpg`, `0001.right.jpg` and `0001.cls` are one
sample. In names such as `22.05.jpg`, `22.05.txt`, `22.10.jpg` that makes one sample of two. A member belongs to the image
with which it shares the longest stem; where every image has members of its own, each is a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captrain.data.shards.members import Group, Keys, Part


def ending_of(suffix: str) -> str:
    """The last part of a suffix.

    >>> ending_of("left.jpg"), ending_of("jpg")
    ('jpg', 'jpg')
    """
    return suffix.rpartition(".")[2]


def stem_of(name: str) -> str:
    """A member's name without its ending.

    >>> stem_of("a.b/22.05.jpg")
    'a.b/22.05'
    """
    return name.rpartition(".")[0]


def stem_key(group: Group) -> str:
    """What tells a sample from the others: the stem of its members, if they have but one, else its key."""
    stems = {stem_of(part.name) for part in group.parts}
    return stems.pop() if len(stems) == 1 else group.key


def begins(stem: str, with_stem: str) -> bool:
    """Whether a stem is another or goes on after it with a dot.

    >>> begins("22.05.a", "22.05"), begins("22.055", "22.05")
    (True, False)
    """
    return stem == with_stem or stem.startswith(f"{with_stem}.")


def divided(group: Group, keys: Keys, loosely: bool = False) -> list[Group]:
    """A group as WebDataset has it, or the samples that it is by the longest stems its members share, in their order.

    `loosely` also gives a member to the one image whose stem goes on after its own (`1.1.txt` to `1.1.a.jpg`), which is only
    right where no other member of that stem is to come. Otherwise members of names with dots stay apart for now.
    """
    images = [stem_of(part.name) for part in group.parts if keys.may_be_image(part.suffix)]
    stems = list(dict.fromkeys(images))
    own, others = _owned(group.parts, stems, loosely)
    if keys.names_dots or len(own) < 2:
        return [group]
    if not loosely and group.key not in own:
        return [group.part_of(stem, parts) for stem, parts in own.items()]
    if len(stems) < 2:
        return [group]
    pairs = {stem for stem in stems if any(keys.may_be_caption(part.suffix) for part in own[stem])}
    if group.key in stems:  # an image without inner dots: others are its variants, unless they have texts as it has
        texts = {stem for stem in pairs if any(_is_text(part, keys) for part in own[stem])}
        alone = texts - {group.key} if loosely or group.key in pairs else set()
    else:
        alone = set(stems) if pairs or not others else set()
    if not alone:
        return [group]
    if alone == set(stems):  # no image is left that others could belong to
        alone = set(own)
    rest = [part for stem, parts in own.items() if stem not in alone for part in parts]
    found = [group.part_of(stem, own[stem]) for stem in own if stem in alone]
    return sorted(found + ([group.part_of(group.key, rest)] if rest else []), key=lambda part: part.start)


def _owned(
    parts: Sequence[Part], stems: list[str], loosely: bool
) -> tuple[dict[str, list[Part]], dict[str, list[Part]]]:
    """The members of each stem, those of images first; and those of other stems alone."""
    own: dict[str, list[Part]] = {stem: [] for stem in stems}
    names = {part.name for part in parts if stem_of(part.name) in own}
    for part in parts:
        stem = stem_of(part.name)
        stem = stem_of(stem) if stem in names and stem_of(stem) in own else stem  # 1.jpg.txt beside 1.jpg
        longer = [other for other in stems if begins(other, stem)] if loosely and stem not in stems else []
        own.setdefault(longer[0] if len(longer) == 1 else stem, []).append(part)
    return own, {stem: found for stem, found in own.items() if stem not in stems}


def _is_text(part: Part, keys: Keys) -> bool:
    """Whether a member may hold captions and nothing else; a JSON may be notes about a variant of an image."""
    return keys.may_be_caption(part.suffix) and ending_of(part.suffix) != "json"
