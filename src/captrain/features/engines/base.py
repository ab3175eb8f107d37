"""What an engine is: it says what the model is, then does the parts of sources with it and tells of each.

What is done is not its business: an `Opening` opens a model, an `Order` makes parts with it and writes them. Encoding gives
both (`encoding.py`), and so does captioning, in the layer above.

A job: all sources of a data set, done on any engine, without what is there from an earlier start.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from captrain.features.pipeline import Skip, part_name
from captrain.features.sources import End, Source
from captrain.progress import track

Model = TypeVar("Model")
About = TypeVar("About")
Tell = Callable[[Source, Any], None]
"""Called for each part that is done (in memory or its note), or the `End` of one that can't be read; all of these know whether
they are the `last` of their source. Never called by two threads at a time."""


class PartNote(Protocol):
    """What is known of a part that is written: its name, its number, whether it is its source's last."""

    @property
    def name(self) -> str: ...
    @property
    def part(self) -> int: ...
    @property
    def last(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...


class Opening(ABC, Generic[Model, About]):
    """How a model is opened, and what of it decides results. It is sent to other machines."""

    @abstractmethod
    def open(self, device: str) -> Model:
        """The model on a device. Raises `ModelError` if there is none."""

    @abstractmethod
    def copy(self, model: Model, device: str) -> Model:
        """A copy of an open model on another device of this machine."""

    @abstractmethod
    def about(self, model: Model) -> About:
        """What decides a model's results."""

    @abstractmethod
    def settled(self, about: About) -> Opening[Model, About]:
        """The same, but what it opens computes in the precision of a model that was opened before."""

    @abstractmethod
    def check(self, about: About, model: Model, where: str) -> None:
        """Raise `ModelError` if a model that was opened `where` is another one."""


class Order(ABC, Generic[Model]):
    """What is done with each source, and where the results go. `done` has the parts that are there, by name."""

    @property
    @abstractmethod
    def done(self) -> dict[str, Any]:
        """Notes of all parts that are written, by their names."""

    @abstractmethod
    def parts(self, model: Model, sources: Iterable[Source], skip: Skip) -> Iterator[tuple[Source, Any]]:
        """Do sources one after another: gives each finished part in memory, and the `End` of one that is not to be kept."""

    @abstractmethod
    def write(self, part: Any) -> PartNote:
        """Write a finished part, whole or not at all, and note it in `done`."""

    @abstractmethod
    def find(self, name: str) -> PartNote | None:
        """The note of a part that someone has written, if it is there."""

    @abstractmethod
    def for_worker(self, cores: int) -> Order[Model]:
        """What is sent to a worker with so many cores: knows no parts, which may be many."""

    @abstractmethod
    def check_shared(self) -> None:
        """Raise `DataError` if this machine does not see the place where parts go."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: how, with which sources, without parts that `skip` names, and whom to tell."""

    order: Order[Any]
    sources: Sequence[Source]
    skip: Skip
    tell: Tell


class Engine(ABC, Generic[Model, About]):
    """Opened with `with`: what it started ends then."""

    def __init__(self, opening: Opening[Model, About], devices: Sequence[str], address: str | None) -> None:
        self.opening, self.devices, self.address = opening, devices, address

    @abstractmethod
    def about(self) -> About:
        """What its model is. Raises `ModelError` if it can't be opened."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Do the work. A source's last part leaves the order knowing all its parts."""

    def __enter__(self) -> Engine[Model, About]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End what was started for it."""


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
