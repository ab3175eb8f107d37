"""What the demo's pictures show: groups of coloured shapes, drawn by lot, with some combinations kept out of training.

A scene holds one or two groups; a group is one to three equal shapes at one place. Every attribute's value is seen in
training, but twelve combinations of size, colour and shape are not: whoever names them right tells attributes apart.

The demo's grammar, used both ways: to describe a scene in words, and to read a caption back into attributes.

A template holds slots in braces, and each slot's wordings stand in one table. Describing fills the slots; reading back
makes patterns of the same templates and tables, so that the two can't drift apart.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from dataclasses import asdict, dataclass
from typing import Any

COUNTS = (1, 2, 3)
SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
PLACES = (*CORNERS, "centre")

Kind = tuple[str, str, str]  # size, colour, shape
ALL_KINDS: tuple[Kind, ...] = tuple(itertools.product(SIZES, COLOURS, SHAPES))
# Each size is left out six times, each colour and each shape twice, so that no value is rarer than its like.
HELD_OUT: tuple[Kind, ...] = tuple(
    (size, colour, SHAPES[(number + step) % len(SHAPES)])
    for step, size in zip((0, 3), SIZES, strict=True)
    for number, colour in enumerate(COLOURS)
)
TRAINED: tuple[Kind, ...] = tuple(kind for kind in ALL_KINDS if kind not in HELD_OUT)


@dataclass(frozen=True, slots=True, order=True)
class ShapeGroup:
    """One to three equal shapes standing together.

    >>> ShapeGroup(2, "small", "red", "star", "top left").kind
    ('small', 'red', 'star')
    """

    count: int
    size: str
    colour: str
    shape: str
    place: str

    @property
    def kind(self) -> Kind:
        """What may be held out of training: size, colour and shape together."""
        return self.size, self.colour, self.shape


@dataclass(frozen=True, slots=True)
class Scene:
    """What one picture shows, groups in reading order (top before bottom, left before right).

    `look` seeds what no caption tells: shades, tilt, exact places, background, wording.
    """

    groups: tuple[ShapeGroup, ...]
    look: int = 0

    @property
    def held_out(self) -> bool:
        """Whether any group is of a combination that training never sees."""
        return any(group.kind in HELD_OUT for group in self.groups)

    def to_list(self) -> list[dict[str, Any]]:
        """The groups as JSON objects; `from_list` reads them back.

        >>> Scene((ShapeGroup(1, "large", "blue", "star", "centre"),)).to_list()
        [{'count': 1, 'size': 'large', 'colour': 'blue', 'shape': 'star', 'place': 'centre'}]
        """
        return [asdict(group) for group in self.groups]

    @classmethod
    def from_list(cls, groups: list[dict[str, Any]]) -> Scene:
        """The scene of a data set's line, enough to check a caption against (how it looked is not kept)."""
        return cls(tuple(ShapeGroup(**group) for group in groups))


def make_scenes(count: int, seed: int, held_out: bool = False) -> list[Scene]:
    """`count` scenes drawn by lot, the same ones for the same seed, half of them with two groups.

    With `held_out` each scene has at least one group of a held-out kind; without, none has.
    """
    chance = random.Random(f"scenes {seed} {held_out}")
    return [_make_scene(chance, held_out) for _ in range(count)]


def _make_scene(chance: random.Random, held_out: bool) -> Scene:
    two = chance.random() < 0.5
    # Two groups stand in corners: the centre would touch them.
    places = sorted(chance.sample(CORNERS, 2), key=CORNERS.index) if two else [chance.choice(PLACES)]
    kinds = [chance.choice(ALL_KINDS if held_out else TRAINED) for _ in places]
    if held_out:
        kinds[chance.randrange(len(kinds))] = chance.choice(HELD_OUT)
    groups = tuple(ShapeGroup(chance.choice(COUNTS), *kind, place) for kind, place in zip(kinds, places, strict=True))
    return Scene(groups, look=chance.getrandbits(32))


COUNT_WORDS = {1: ("a", "one"), 2: ("two",), 3: ("three",)}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
SINGULAR = {"circle": ("circle", "disc")}
PLURAL = {"circle": ("circles", "discs"), "cross": ("crosses",)}
PLACE_WORDS = {
    "top left": ("at the top left", "in the top left corner", "in the upper left corner"),
    "top right": ("at the top right", "in the top right corner", "in the upper right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left corner"),
    "bottom right": ("at the bottom right", "in the bottom right corner", "in the lower right corner"),
    "centre": ("in the centre", "in the middle", "at the centre"),
}
TEMPLATES = {
    1: (
        "{group_1} {place_1}",
        "there {be_1} {group_1} {place_1}",
        "{place_1}, there {be_1} {group_1}",
        "the picture shows {group_1} {place_1}",
        "{place_1} you can see {group_1}",
    ),
    2: (
        "{group_1} {place_1} and {group_2} {place_2}",
        "there {be_1} {group_1} {place_1} and {group_2} {place_2}",
        "{place_1}, there {be_1} {group_1}, and {place_2}, {group_2}",
        "the picture shows {group_1} {place_1} and {group_2} {place_2}",
        "{place_1} you can see {group_1}, {place_2} {group_2}",
    ),
}


def describe_scene(scene: Scene, count: int = 5) -> list[str]:
    """`count` captions in different words, each telling every attribute of every group; up to five differ in structure.

    The same scene gives the same captions.

    >>> describe_scene(Scene((ShapeGroup(2, "small", "red", "star", "top left"),)), count=2)
    ['two little red stars in the top left corner', 'in the upper left corner you can see two small red stars']
    """
    chance = random.Random(f"words {scene.look}")
    templates = TEMPLATES[len(scene.groups)]
    order = chance.sample(templates, len(templates))
    return [_fill(order[number % len(order)], scene, chance) for number in range(count)]


def _fill(template: str, scene: Scene, chance: random.Random) -> str:
    words: dict[str, str] = {}
    for number, group in enumerate(scene.groups, start=1):
        words[f"group_{number}"] = chance.choice(_wordings(group.count, group.size, group.colour, group.shape))
        words[f"place_{number}"] = chance.choice(PLACE_WORDS[group.place])
        words[f"be_{number}"] = _be(group.count)
    return template.format(**words)


def _wordings(count: int, size: str, colour: str, shape: str) -> list[str]:
    """All ways to name a group, without its place: "a small red disc", "one small red disc", ..."""
    shapes = SINGULAR.get(shape, (shape,)) if count == 1 else PLURAL.get(shape, (f"{shape}s",))
    return [
        f"{count_word} {size_word} {colour} {shape_word}"
        for count_word, size_word, shape_word in itertools.product(COUNT_WORDS[count], SIZE_WORDS[size], shapes)
    ]


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def parse(caption: str) -> tuple[ShapeGroup, ...] | None:
    """The groups that a caption tells of, sorted; None if it is not a sentence of the grammar.

    Capitals, punctuation and spacing don't matter; a number that disagrees ("two circle", "there are a star") does.

    >>> parse("There is a big blue disc in the middle.")
    (ShapeGroup(count=1, size='large', colour='blue', shape='circle', place='centre'),)
    >>> parse("a blue disc in the middle") is None  # no size
    True
    """
    words = _plain(caption)
    matches = ((groups, pattern.fullmatch(words)) for groups, pattern in _patterns())
    readings = (_read(match.groupdict(), groups) for groups, match in matches if match)
    return next((reading for reading in readings if reading), None)


def is_right(caption: str, scene: Scene) -> bool:
    """Whether the caption tells every attribute of every group of the scene, and nothing else.

    >>> scene = Scene((ShapeGroup(1, "large", "blue", "circle", "centre"),))
    >>> is_right("a big blue disc in the middle", scene), is_right("a big blue square in the middle", scene)
    (True, False)
    """
    return parse(caption) == tuple(sorted(scene.groups))


def _read(found: dict[str, str], groups: int) -> tuple[ShapeGroup, ...] | None:
    """The groups behind the slots of a matched template; None if a group is misnamed or its verb disagrees."""
    read = []
    for number in range(1, groups + 1):
        attributes = _attributes().get(found[f"group_{number}"])
        if attributes is None or found.get(f"be_{number}", _be(attributes[0])) != _be(attributes[0]):
            return None
        read.append(ShapeGroup(*attributes, place=_places()[found[f"place_{number}"]]))
    return tuple(sorted(read))


def _plain(text: str) -> str:
    """Lower-case words with single spaces, no punctuation."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))


@functools.cache
def _attributes() -> dict[str, tuple[int, str, str, str]]:
    """From every way to name a group to its count, size, colour and shape."""
    combinations = itertools.product(COUNTS, SIZES, COLOURS, SHAPES)
    return {wording: combination for combination in combinations for wording in _wordings(*combination)}


@functools.cache
def _places() -> dict[str, str]:
    return {wording: place for place, wordings in PLACE_WORDS.items() for wording in wordings}


@functools.cache
def _patterns() -> list[tuple[int, re.Pattern[str]]]:
    """Each template as a pattern, beside its number of groups."""
    return [
        (groups, re.compile(_pattern(template))) for groups, templates in TEMPLATES.items() for template in templates
    ]


def _pattern(template: str) -> str:
    slots = {"group": ".+?", "be": "is|are", "place": "|".join(_places())}
    # Punctuation goes, slots stay: "{place_1}, there {be_1} {group_1}" -> "(?P<place_1>at the ...) there (?P<be_1>is|are) ..."
    return re.sub(r"\{((\w+)_\d)\}", lambda slot: f"(?P<{slot[1]}>{slots[slot[2]]})", template.replace(",", ""))
