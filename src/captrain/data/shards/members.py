"""The rules by which members of a tar make samples, as WebDataset has them.

Members that follow one another and have the same name up to the first dot after the last slash are one sample: `dog.jpg`,
`dog.txt` and `dog.json` have the key `dog` and the suffixes `jpg`, `txt` and `json`.

Names with more dots need a second rule. WebDataset ends a sample's key at the first dot of a name, so that `0001.left.jpg`,
`0001.right.jpg` and `0001.cls` are one sample; but of `22.05.jpg`, `22.05.txt`, `22.10.jpg` that rule makes one sample instead
of two. So a member belongs to the image with which it shares the longest stem; if every image has members of its own, each
image is a sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from captrain.data.read_options import ReadOptions
from captrain.data.safe_paths import IMAGE_SUFFIXES, is_hidden
from captrain.data.shards.tars import LARGEST_MEMBER, Bytes, Member, walk
from captrain.data.text_encoding import checked, decode_text, lines_of
from captrain.errors import DataError
from captrain.limits import TOO_LONG
from captrain.records import parse_json

TEXT_SUFFIXES = ("txt", "caption", "captions", "text")
TEXT_FIELDS = ("captions", "caption", "text")
PLAIN_IMAGES = ("jpg", "jpeg", "png", "webp")  # the first of these where a sample has several images
LARGEST_TEXT = 1 << 20  # bytes of a caption member
MOST_PARTS = 100  # members of one sample

_META = re.compile(r"__[^/]*__(?:$|/)")  # WebDataset's own notes


class SampleMember(NamedTuple):
    """One member of a sample; its headers begin at `start`. `data` is there for members that were wanted."""

    suffix: str
    name: str
    offset: int
    size: int
    data: bytes | None
    start: int = 0


@dataclass(slots=True)
class MemberGroup:
    """The members of one sample; `start` is where the headers of the first begin."""

    key: str
    start: int
    parts: list[SampleMember] = field(default_factory=list)

    def add(self, part: SampleMember) -> str:
        """Take a member in; what it says, if anything, is why it can't be."""
        if part.data is not None and len(part.data) < part.size:
            return f"is cut short ({len(part.data)} of {part.size} bytes)"
        if any(part.suffix == other.suffix for other in self.parts):
            return "comes twice in its sample"
        if len(self.parts) == MOST_PARTS:
            return f"belongs to a sample with over {MOST_PARTS} members"
        self.parts.append(part)
        return ""

    def part_of(self, key: str, parts: list[SampleMember]) -> MemberGroup:
        """Some of the members as a sample of their own."""
        return MemberGroup(key, min(part.start for part in parts), parts)


class Field(NamedTuple):
    """Where a caption is: a member's suffix, and for JSON the path to the field (empty: by usual names)."""

    suffix: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((self.suffix, *self.path))


LOOKED_FOR = (Field("json", ("captions",)), *(Field(suffix) for suffix in TEXT_SUFFIXES), Field("json"))


@dataclass(frozen=True, slots=True)
class Keys:
    """Which members of a sample are its image and its captions.

    `images` are suffixes, the first that is there counts; empty to find it by looking. So with `captions`. `lines` says
    whether each line of a text is a caption or the text is one, `encoding` in what texts are written that have no mark.
    """

    images: tuple[str, ...] = ()
    captions: tuple[Field, ...] = LOOKED_FOR
    lines: Literal["each", "whole"] = "each"
    encoding: str = ""

    @classmethod
    def of(cls, options: ReadOptions) -> Keys:
        """What options say.

        >>> Keys.of(ReadOptions(image_key="jpg;png", caption_key="json/a/b")).captions
        (Field(suffix='json', path=('a', 'b')),)
        """
        images = tuple(word.lower() for word in _words(options.image_key))
        captions = tuple(_field(word) for word in _words(options.caption_key))
        return cls(images, captions or LOOKED_FOR, options.caption_lines, options.encoding)

    @property
    def names_dots(self) -> bool:
        """Whether members are chosen by suffixes with dots, such as `left.jpg`: then names end at the first dot."""
        return any("." in suffix for suffix in (*self.images, *(where.suffix for where in self.captions)))

    def may_be_image(self, suffix: str) -> bool:
        """Whether a member may be the image of its sample."""
        return _among(suffix, self.images) if self.images else is_image(suffix)

    def may_be_caption(self, suffix: str) -> bool:
        """Whether a member may hold captions."""
        return _among(suffix, [where.suffix for where in self.captions])

    def image(self, parts: Sequence[SampleMember]) -> SampleMember:
        """The image among a sample's members. Raises `ValueError` with the reason if there is none, or none that is plain."""
        for suffix in self.images or PLAIN_IMAGES:
            for part in parts:
                if part.suffix == suffix:
                    return part
        found = self._dotted_images(parts)
        if len(found) > 1:
            names = ", ".join(part.suffix for part in found[:4])
            raise ValueError(f"has several images ({names}); --image-key says which one to take")
        if not found:
            names = ", ".join(part.suffix for part in parts[:6])
            raise ValueError(f"has no image beside it ({names}); expected {' or '.join(self.images or PLAIN_IMAGES)}")
        return found[0]

    def _dotted_images(self, parts: Sequence[SampleMember]) -> list[SampleMember]:
        """The images whose suffixes are none of those looked for first. Of one stem, the best ending is the image."""
        found = [part for part in parts if self.may_be_image(part.suffix)]
        if len({stem_of(part.name) for part in (parts if self.images else found)}) == 1:
            for ending in self.images or PLAIN_IMAGES:
                if best := [part for part in found if ending_of(part.suffix) == ending]:
                    return best
        return [] if self.images else found

    def caption(
        self, parts: Sequence[SampleMember], image: SampleMember | None = None, loosely: bool = False
    ) -> tuple[SampleMember, int, tuple[str, ...]]:
        """The member with the captions, which of `self.captions` it is, and the captions.

        Members of the image's own stem count too, whatever dots it has; loosely, those of a stem that its stem goes on after.
        Raises `ValueError` with the reason if there is none.
        """
        fault = ""
        for number, part in self._places(parts, image.name if image else "", loosely):
            try:
                return part, number, self.texts(part.data, number)
            except ValueError as error:
                if (
                    self.captions[number] is not LOOKED_FOR[0]
                ):  # a JSON without that list may hold its caption elsewhere
                    fault = fault or (
                        TOO_LONG if str(error) == TOO_LONG else f"has no caption: its .{part.suffix} {error}"
                    )
        raise ValueError(fault or _no_caption(parts))

    def _places(self, parts: Sequence[SampleMember], image: str, loosely: bool) -> Iterator[tuple[int, SampleMember]]:
        """Members that may hold captions, each with the rule by which: by their suffixes, then by the image's stem or name."""
        own = (stem_of(image), image)
        for number, where in enumerate(self.captions):
            yield from ((number, part) for part in parts if part.suffix == where.suffix)
        near = [part for part in parts if (stem := stem_of(part.name)) in own or (loosely and begins(own[0], stem))]
        dotted = [part for part in near if "." in part.suffix]
        for part in sorted(dotted, key=lambda part: -len(stem_of(part.name))):
            for number, where in enumerate(self.captions):
                if ending_of(part.suffix) == where.suffix != part.suffix:
                    yield number, part

    def texts(self, data: bytes | None, number: int) -> tuple[str, ...]:
        """The captions in a member's bytes, by the rule `self.captions[number]`. Raises `ValueError` if there is none."""
        where = self.captions[number]
        if data is None:
            raise ValueError(TOO_LONG)
        text = decode_text(data, self.encoding).content
        if where.suffix.rpartition(".")[2] == "json":
            found = _in_json(text, where.path)
        else:
            found = list(lines_of(text)) if self.lines == "each" else [text]
        captions = tuple(stripped for part in found if (stripped := part.strip()))
        if not captions:
            raise ValueError("is empty")
        return checked(captions)


def is_image(suffix: str) -> bool:
    """Whether a suffix is that of a picture.

    >>> [is_image(suffix) for suffix in ("jpg", "left.png", "txt")]
    [True, True, False]
    """
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES


def split_name(name: str) -> tuple[str, str] | None:
    """A member's key and suffix; None for a name that has none, for hidden files and for WebDataset's notes.

    >>> split_name("a.b/dog.left.JPG"), split_name("a/._dog.jpg"), split_name("README")
    (('a.b/dog', 'left.jpg'), None, None)
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem or not dot or _META.match(name) or any(is_hidden(part) for part in folder.split("/")):
        return None
    return folder + slash + stem, suffix.lower()


def groups(
    file: Bytes, keys: Keys, length: int | None = None, start: int = 0, *, images: bool = False
) -> Iterator[MemberGroup | Member]:
    """The samples of a tar in order, and between them the members that can't be used (they have a `problem`).

    The bytes of members that may hold captions come along, and with `images` those of images too, for readers that have no
    second look: then members of a sample that are not adjacent are not found. `start` is 0 or that of a group met earlier.
    """
    group = MemberGroup("", start)
    for member in walk(file, length, start):
        split = None if member.problem else split_name(member.name)
        if group.parts and (group.key != split[0] if split else not member.name):
            yield from divided(group, keys, loosely=images)
            group = MemberGroup("", start)
        if split is not None:
            if not group.parts:
                group = MemberGroup(split[0], member.start)
            elif len(group.parts) == MOST_PARTS:
                *whole, last = divided(group, keys)
                yield from whole
                group = MemberGroup(split[0], last.start, last.parts)
            problem = group.add(_part(file, keys, group, member, split[1], images))
            member = member._replace(problem=problem)
        if member.problem:
            yield member
    if group.parts:
        yield from divided(group, keys, loosely=images)


def _part(file: Bytes, keys: Keys, group: MemberGroup, member: Member, suffix: str, images: bool) -> SampleMember:
    """A member as a part of its group, with its bytes if they are wanted."""
    limit = LARGEST_TEXT if keys.may_be_caption(suffix) else 0
    if images and keys.may_be_image(suffix):
        limit = LARGEST_MEMBER - sum(len(part.data) for part in group.parts if part.data)
    data = None
    if 0 < limit >= member.size:
        try:
            data = file.read(member.size)
        except OSError:  # the walk comes upon it too, and says so
            data = b""
    return SampleMember(suffix, member.name, member.offset, member.size, data, member.start)


def _among(suffix: str, wanted: Sequence[str]) -> bool:
    """Whether a suffix, or its ending alone, is wanted."""
    return suffix in wanted or ending_of(suffix) in wanted


def _no_caption(parts: Sequence[SampleMember]) -> str:
    others = ", ".join(part.suffix for part in parts if ending_of(part.suffix) in (*TEXT_SUFFIXES, "json"))
    return "has no caption beside it" + (f"; --caption-key says whether {others[:80]} is one" if others else "")


def _words(key: str) -> list[str]:
    return [word.strip() for word in key.split(";") if word.strip()]


def _field(word: str) -> Field:
    suffix, *path = word.split("/")
    if path and suffix.rpartition(".")[2].lower() != "json":
        raise DataError(f"caption key '{word}' names a field of .{suffix}; expected txt, json or json/caption")
    return Field(suffix.lower(), tuple(path))


def _in_json(text: str, path: tuple[str, ...]) -> list[str]:
    """The captions in a JSON text: a string, a list of strings, or a field of an object that is one of these."""
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise ValueError(f"has no field '{'/'.join(path)}'")
        value = value[name]
    if isinstance(value, dict) and not path:
        value = next((value[name] for name in TEXT_FIELDS if value.get(name)), None)
    return _strings(value, "/".join(path))


def _strings(value: Any, field: str) -> list[str]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    for text in found:
        if not isinstance(text, str):
            place = f" in '{field}'" if field else ""
            raise ValueError(f"has a {type(text).__name__}{place} where a caption was expected")
    return found


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


def stem_key(group: MemberGroup) -> str:
    """What tells a sample from the others: the stem of its members, if they have but one, else its key."""
    stems = {stem_of(part.name) for part in group.parts}
    return stems.pop() if len(stems) == 1 else group.key


def begins(stem: str, with_stem: str) -> bool:
    """Whether a stem is another or goes on after it with a dot.

    >>> begins("22.05.a", "22.05"), begins("22.055", "22.05")
    (True, False)
    """
    return stem == with_stem or stem.startswith(f"{with_stem}.")


def divided(group: MemberGroup, keys: Keys, loosely: bool = False) -> list[MemberGroup]:
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
    parts: Sequence[SampleMember], stems: list[str], loosely: bool
) -> tuple[dict[str, list[SampleMember]], dict[str, list[SampleMember]]]:
    """The members of each stem, those of images first; and those of other stems alone."""
    own: dict[str, list[SampleMember]] = {stem: [] for stem in stems}
    names = {part.name for part in parts if stem_of(part.name) in own}
    for part in parts:
        stem = stem_of(part.name)
        stem = stem_of(stem) if stem in names and stem_of(stem) in own else stem  # 1.jpg.txt beside 1.jpg
        longer = [other for other in stems if begins(other, stem)] if loosely and stem not in stems else []
        own.setdefault(longer[0] if len(longer) == 1 else stem, []).append(part)
    return own, {stem: found for stem, found in own.items() if stem not in stems}


def _is_text(part: SampleMember, keys: Keys) -> bool:
    """Whether a member may hold captions and nothing else; a JSON may be notes about a variant of an image."""
    return keys.may_be_caption(part.suffix) and ending_of(part.suffix) != "json"
