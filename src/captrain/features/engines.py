"""Engines compute the parts of a collection, for encoding and for captioning: on this machine, or on a Ray cluster.

An `Engine` opens a model, makes parts of the sources with it, and reports each part. It does not know what is made: a
`ModelOpening` opens the model, and a `PartsOrder` makes and writes the parts. Encoding brings both (`features.encode`), and so
does captioning (`inference.captioning_engine`). An `EngineJob` runs all sources of a data set on an engine and leaves out the
parts that an earlier start has written.

The same code makes each part on every engine. `LocalEngine` has one model on each device, each with sources of its own, and
one thread that writes for all.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar, cast

from captrain.errors import SettingsError, nearest
from captrain.features.pipeline import Behind, Skip, part_name
from captrain.features.sources import EncodingSource, End
from captrain.progress import track

logger = logging.getLogger(__name__)

ENGINES = {
    "local": "captrain.features.engines:LocalEngine",
    "ray": "captrain.features.ray_engine:RayEngine",
}

Model = TypeVar("Model")
About = TypeVar("About")
Tell = Callable[[EncodingSource, Any], None]
"""Called for each part that is done (in memory or its note), or the `End` of one that can't be read; each of these knows whether
it is the `last` of its source. Never called by two threads at a time."""


class FinishedPart(Protocol):
    """What is known about a written part: its name, its number, whether it is its source's last."""

    @property
    def name(self) -> str: ...
    @property
    def part(self) -> int: ...
    @property
    def last(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...


class ModelOpening(ABC, Generic[Model, About]):
    """How a model is opened, and what decides its results. It is sent to other machines."""

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
    def settled(self, about: About) -> ModelOpening[Model, About]:
        """The same opening, but in the precision of a model that was opened before."""

    @abstractmethod
    def check(self, about: About, model: Model, where: str) -> None:
        """Raise `ModelError` if a model that was opened at `where` differs."""


class PartsOrder(ABC, Generic[Model]):
    """What is done with each source, and where the results go. `done` has the finished parts by name."""

    @property
    @abstractmethod
    def done(self) -> dict[str, Any]:
        """Notes of all parts that are written, by their names."""

    @abstractmethod
    def parts(
        self, model: Model, sources: Iterable[EncodingSource], skip: Skip
    ) -> Iterator[tuple[EncodingSource, Any]]:
        """Process sources one after another: yields each finished part in memory, and the `End` of a part that is not kept."""

    @abstractmethod
    def write(self, part: Any) -> FinishedPart:
        """Write a finished part, whole or not at all, and note it in `done`."""

    @abstractmethod
    def find(self, name: str) -> FinishedPart | None:
        """The note of a part that someone has written, if it is there."""

    @abstractmethod
    def for_worker(self, cores: int) -> PartsOrder[Model]:
        """The order for a worker with so many cores. It knows no parts, as there may be many."""

    @abstractmethod
    def check_shared(self) -> None:
        """Raise `DataError` if this machine does not see the place where parts go."""


@dataclass(frozen=True, slots=True)
class EngineWork:
    """What to do: how, with which sources, without the parts that `skip` names, and whom to notify."""

    order: PartsOrder[Any]
    sources: Sequence[EncodingSource]
    skip: Skip
    tell: Tell


class Engine(ABC, Generic[Model, About]):
    """A context manager: everything it started ends with it."""

    def __init__(self, opening: ModelOpening[Model, About], devices: Sequence[str], address: str | None) -> None:
        self.opening, self.devices, self.address = opening, devices, address

    @abstractmethod
    def about(self) -> About:
        """The note that describes its model. Raises `ModelError` if it can't be opened."""

    @abstractmethod
    def run(self, work: EngineWork) -> None:
        """Do the work. A source's last part leaves the order knowing all its parts."""

    def __enter__(self) -> Engine[Model, About]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End everything that was started for it."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine, and where it runs.

    name: `local`, or `ray` for all machines of a Ray cluster, all of which must see the data, the model and the output.
    devices: of the local engine: one model on each, every one with sources of its own.
    address: of the cluster, HOST:PORT or `auto`; None for Ray on this machine alone.
    """

    name: str = "local"
    devices: Sequence[str] = ("auto",)
    address: str | None = None


def make_engine(options: EngineOptions, opening: ModelOpening[Model, About]) -> Engine[Model, About]:
    """The engine that the options name; the packages it needs are imported now.

    Raises `SettingsError` for another name, and for an `address` where there is no cluster to be named.
    """
    name, address = options.name, options.address
    if name not in ENGINES:
        raise SettingsError(f"--engine: found {name!r}, expected one of {', '.join(ENGINES)}.{nearest(name, ENGINES)}")
    if name == "local" and address is not None:
        raise SettingsError(f"--address {address}: names a Ray cluster, and goes with --engine ray")
    module, _, kind = ENGINES[name].partition(":")
    engine = getattr(import_module(module), kind)(opening, options.devices, address)
    return cast("Engine[Model, About]", engine)


class LocalEngine(Engine[Model, About]):
    """All work in this process."""

    @cached_property
    def models(self) -> list[Model]:
        """One on each device."""
        first = self.opening.open(self.devices[0].partition(":")[0])
        several = len(self.devices) > 1
        return [self.opening.copy(first, device) if several or ":" in device else first for device in self.devices]

    def about(self) -> About:
        """The note of the first model; the others are copies."""
        return self.opening.about(self.models[0])

    def run(self, work: EngineWork) -> None:
        """Work on all devices at the same time."""
        lock, queue = Lock(), iter(work.sources)

        def dealt() -> Iterator[EncodingSource]:
            """The next source that no other device has taken."""
            while True:
                with lock:
                    source = next(queue, None)
                if source is None:
                    return
                yield source

        with Behind(work.order.write) as write:

            def do(model: Model) -> None:
                for source, made in work.order.parts(model, dealt(), work.skip):
                    with lock:
                        if not isinstance(made, End):
                            write(made)
                        work.tell(source, made)

            if len(self.models) == 1:
                do(self.models[0])
            else:
                with ThreadPoolExecutor(len(self.models)) as pool:
                    for done in [pool.submit(do, model) for model in self.models]:
                        done.result()

    def close(self) -> None:
        """Nothing to close."""


class EngineJob:
    """What `order` says, for each of the sources. `what` is shown while it goes on ("encode shards")."""

    def __init__(self, what: str, order: PartsOrder[Any], sources: Sequence[EncodingSource]) -> None:
        self.what, self.order, self.sources = what, order, sources
        self.count = 0
        self._unread: set[str] = set()
        self._before = set(order.done)

    def run(self, engine: Engine[Any, Any]) -> None:
        """Do everything that is not yet done."""
        waiting = [source for source in self.sources if not self._is_done(source)]
        if skipped := len(self.sources) - len(waiting):
            logger.info("%d of %d sources are already done", skipped, len(self.sources))
        with track(self.what, len(waiting), "source") as advance:

            def tell(source: EncodingSource, made: Any) -> None:
                self._count(source, made)
                advance(int(made.last))

            engine.run(EngineWork(self.order, waiting, self._skips, tell))

    def unread(self) -> tuple[str, ...]:
        """Labels of the sources that could not be read (to the end), in the order of sources."""
        return tuple(source.label for source in self.sources if source.name in self._unread)

    def names(self) -> list[str]:
        """Names of all parts, in the order of sources and parts; what an unread source gave before is kept."""
        return [name for source in self.sources for name in part_names(self.order.done, source)]

    def _count(self, source: EncodingSource, made: Any) -> None:
        if isinstance(made, End):
            self._unread.add(source.name)
            first = made.rejects.lines[-1]["reason"]
            logger.warning("%s: %s; the same command tries it again", source.label, first)
        else:
            self.count += 1

    def _is_done(self, source: EncodingSource) -> bool:
        names = part_names(self.order.done, source)
        return bool(names) and bool(self.order.done[names[-1]].last)

    def _skips(self, source: EncodingSource, part: int) -> bool:
        return part_name(source, part) in self._before


def part_names(done: Mapping[str, FinishedPart], source: EncodingSource) -> list[str]:
    """The parts of a source that are done, without a gap from the first."""
    names: list[str] = []
    while (name := part_name(source, len(names))) in done:
        names.append(name)
        if done[name].last:
            break
    return names


def changed_sources(done: Mapping[str, FinishedPart], sources: Sequence[EncodingSource]) -> list[EncodingSource]:
    """Sources that have changed since their parts were done."""
    return [
        source
        for source in sources
        if any(done[name].fingerprint != source.fingerprint for name in part_names(done, source))
    ]


def parts_of_sources(done: Mapping[str, FinishedPart], sources: Sequence[EncodingSource]) -> list[str]:
    """The parts of sources that are done, even if some between them are missing."""
    names = {source.name for source in sources}
    return [part for part in done if part.rpartition(".")[0] in names]
