"""One worker of a cluster: it has the model, does a source at a time, and writes its parts itself.

Needs no Ray: `ray_engine` makes an actor of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Set
from contextlib import suppress
from copy import copy
from typing import Any

from captrain.features.engines.base import Opening, Order, PartNote
from captrain.features.pipeline import Behind, Skip, part_name
from captrain.features.sources import BlockSource, End, Source
from captrain.memory_budget import share_with
from captrain.models.trust import Asked, ask


class Worker:
    """Lives in a process of its own, in `folder` if its machine has that: paths may be relative to it.

    `cores` is how many it has of its machine's; other workers are taken to have the others. `asked` is what the command was told
    to trust.
    """

    def __init__(
        self, opening: Opening[Any, Any], device: str, folder: str, cores: int | None = None, asked: Asked | None = None
    ) -> None:
        self.opening, self.device = opening, device
        if asked is not None:
            ask(remote_code=asked.remote_code, safetensors_only=asked.safetensors_only)
        self.model: Any = None
        if cores:
            share_with(max(1, (os.cpu_count() or 1) // cores))
        with suppress(OSError):
            os.chdir(folder)

    def open(self, expected: Any = None) -> Any:
        """Open the model and say what it is. Raises `ModelError` if it is not the one that is expected."""
        self.model = self.opening.open(self.device)
        if expected is not None:
            self.opening.check(expected, self.model, f"a worker on {socket.gethostname()}")
        return self.opening.about(self.model)

    def do(self, order: Order[Any], source: Source, known: frozenset[str]) -> list[PartNote | End]:
        """Do a source without its `known` parts; what a worker that died has finished of it is not done again.

        Gives the notes of all other parts, in order, and the `End` of a part that can't be read.
        """
        assert self.model is not None, "open() comes first"
        order.check_shared()
        made: list[PartNote | End] = list(before := finished(order, source, known))
        if before and before[-1].last:
            return made
        there = known | {note.name for note in before}

        def skip(source: Source, part: int) -> bool:
            return part_name(source, part) in there

        def write(part: Any) -> None:
            made.append(order.write(part))

        ends: list[End] = []
        with Behind(write) as behind:
            for _, part in order.parts(self.model, [source], skip):
                if isinstance(part, End):
                    ends.append(part)
                else:
                    behind(part)
        return made + ends


def finished(order: Order[Any], source: Source, known: Set[str]) -> list[PartNote]:
    """Notes of a source's parts that are there beyond those `known`, as long as the source is what it was."""
    found: list[PartNote] = []
    while (note := order.find(part_name(source, len(known) + len(found)))) is not None:
        if note.fingerprint != source.fingerprint:
            break
        found.append(note)
        if note.last:
            break
    return found


def alone(source: Source) -> Source:
    """A source that carries its own samples and not all those of its data set: it is sent to another machine."""
    if not isinstance(source, BlockSource):
        return source
    block = copy(source)
    block.samples = [source.samples[index] for index in range(source.start, source.stop)]
    block.start, block.stop = 0, len(block.samples)
    return block


def known_of(source: Source, skip: Skip) -> frozenset[str]:
    """The names of a source's parts that are there, from the first on without a gap."""
    count = 0
    while skip(source, count):
        count += 1
    return frozenset(part_name(source, part) for part in range(count))
