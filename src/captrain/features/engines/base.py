"""What an engine is: it says what the model is, then does the parts of sources with it and tells of each.

What is done is not its business: an `Opening` opens a model, an `Order` makes parts with it and writes them. Encoding gives
both (`encoding.py`), and so does captioning, in the layer above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from captrain.features.pipeline import Skip
from captrain.features.sources import Source

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
