"""What the demo's pictures show: groups of coloured shapes, drawn by lot, with some combinations kept out of training.

A scene holds one or two groups; a group is one to three equal shapes at one place. Every attribute's value is seen in
training, but twelve combinations of size, colour and shape are not: whoever names them right tells attributes apart.
"""

from __future__ import annotations

import itertools
import random
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
class Group:
    """One to three equal shapes standing together.

    >>> Group(2, "small", "red", "star", "top left").kind
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

    groups: tuple[Group, ...]
    look: int = 0

    @property
    def held_out(self) -> bool:
        """Whether any group is of a combination that training never sees."""
        return any(group.kind in HELD_OUT for group in self.groups)

    def to_list(self) -> list[dict[str, Any]]:
        """The groups as JSON objects; `from_list` reads them back.

        >>> Scene((Group(1, "large", "blue", "star", "centre"),)).to_list()
        [{'count': 1, 'size': 'large', 'colour': 'blue', 'shape': 'star', 'place': 'centre'}]
        """
        return [asdict(group) for group in self.groups]

    @classmethod
    def from_list(cls, groups: list[dict[str, Any]]) -> Scene:
        """The scene of a data set's line, enough to check a caption against (how it looked is not kept)."""
        return cls(tuple(Group(**group) for group in groups))


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
    groups = tuple(Group(chance.choice(COUNTS), *kind, place) for kind, place in zip(kinds, places, strict=True))
    return Scene(groups, look=chance.getrandbits(32))
