"""What the demo's pictures show: groups of coloured shapes, drawn by lot, with some combinations kept out of training.

A scene holds one or two groups; a group is one to three equal shapes at one place. Every attribute's value is seen in
training, but six pairs of colour and shape are not: whoever names them right has understood colour and shape apart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

COUNTS = (1, 2, 3)
SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
PLACES = (*CORNERS, "centre")

# Each colour and each shape is left out exactly once, so that no value is rarer than the others.
HELD_OUT_PAIRS = frozenset(zip(COLOURS, SHAPES, strict=True))
ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
TRAINING_PAIRS = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """One to three equal shapes standing together.

    >>> Group(2, "small", "red", "star", "top left").pair
    ('red', 'star')
    """

    count: int
    size: str
    colour: str
    shape: str
    place: str

    @property
    def pair(self) -> tuple[str, str]:
        """Colour and shape, the combination that is held out."""
        return self.colour, self.shape


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
        return any(group.pair in HELD_OUT_PAIRS for group in self.groups)

    def to_list(self) -> list[dict[str, Any]]:
        """The groups as JSON objects.

        >>> Scene((Group(1, "large", "blue", "star", "centre"),)).to_list()
        [{'count': 1, 'size': 'large', 'colour': 'blue', 'shape': 'star', 'place': 'centre'}]
        """
        return [
            {"count": group.count, "size": group.size, "colour": group.colour, "shape": group.shape, "place": group.place}
            for group in self.groups
        ]


def make_scenes(count: int, seed: int, held_out: bool = False) -> list[Scene]:
    """`count` scenes drawn by lot, the same ones for the same seed, half of them with two groups.

    With `held_out` each scene has at least one group of a held-out pair of colour and shape; without, none has.
    """
    chance = random.Random(f"scenes {seed} {held_out}")
    return [_make_scene(chance, held_out) for _ in range(count)]


def _make_scene(chance: random.Random, held_out: bool) -> Scene:
    two = chance.random() < 0.5
    # Two groups stand in corners: the centre would touch them.
    places = sorted(chance.sample(CORNERS, 2), key=CORNERS.index) if two else [chance.choice(PLACES)]
    pairs = [chance.choice(ALL_PAIRS if held_out else TRAINING_PAIRS) for _ in places]
    if held_out:
        pairs[chance.randrange(len(pairs))] = chance.choice(sorted(HELD_OUT_PAIRS))
    groups = tuple(
        Group(chance.choice(COUNTS), chance.choice(SIZES), colour, shape, place)
        for (colour, shape), place in zip(pairs, places, strict=True)
    )
    return Scene(groups, look=chance.getrandbits(32))
