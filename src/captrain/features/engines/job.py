"""A job: all sources of a data set, done on any engine, without what is there from an earlier start."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from captrain.features.engines.base import Engine, Order, PartNote, Work
from captrain.features.pipeline import part_name
from captrain.features.sources import End, Source
from captrain.progress import track

logger = logging.getLogger(__name__)


class Job:
    """What `order` says, for each of the sources. `what` is shown while it goes on ("encode shards")."""

    def __init__(self, what: str, order: Order[Any], sources: Sequence[Source]) -> None:
        self.what, self.order, self.sources = what, order, sources
        self.count = 0
        self._unread: set[str] = set()
        self._before = set(order.done)

    def run(self, engine: Engine[Any, Any]) -> None:
        """Do all that is not done."""
        waiting = [source for source in self.sources if not self._is_done(source)]
        if skipped := len(self.sources) - len(waiting):
            logger.info("%d of %d sources are done already", skipped, len(self.sources))
        with track(self.what, len(waiting), "source") as advance:

            def tell(source: Source, made: Any) -> None:
                self._count(source, made)
                advance(int(made.last))

            engine.run(Work(self.order, waiting, self._skips, tell))

    def unread(self) -> tuple[str, ...]:
        """Labels of the sources that could not be read (to the end), in the order of sources."""
        return tuple(source.label for source in self.sources if source.name in self._unread)

    def names(self) -> list[str]:
        """Names of all parts, in the order of sources and parts; what an unread source gave before is kept."""
        return [name for source in self.sources for name in part_names(self.order.done, source)]

    def _count(self, source: Source, made: Any) -> None:
        if isinstance(made, End):
            self._unread.add(source.name)
            first = made.rejects.lines[-1]["reason"]
            logger.warning("%s: %s; the same command tries it again", source.label, first)
        else:
            self.count += 1

    def _is_done(self, source: Source) -> bool:
        names = part_names(self.order.done, source)
        return bool(names) and bool(self.order.done[names[-1]].last)

    def _skips(self, source: Source, part: int) -> bool:
        return part_name(source, part) in self._before


def part_names(done: Mapping[str, PartNote], source: Source) -> list[str]:
    """The parts of a source that are done, without a gap from the first."""
    names: list[str] = []
    while (name := part_name(source, len(names))) in done:
        names.append(name)
        if done[name].last:
            break
    return names


def changed_sources(done: Mapping[str, PartNote], sources: Sequence[Source]) -> list[Source]:
    """Sources that are others now than when their parts were done."""
    return [
        source
        for source in sources
        if any(done[name].fingerprint != source.fingerprint for name in part_names(done, source))
    ]


def parts_of(done: Mapping[str, PartNote], sources: Sequence[Source]) -> list[str]:
    """The parts of sources that are done, whatever is missing between them."""
    names = {source.name for source in sources}
    return [part for part in done if part.rpartition(".")[0] in names]
