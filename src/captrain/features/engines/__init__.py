"""On what a collection is encoded or captioned: this machine, or a Ray cluster. The same code makes each part on both.

This machine: one model on each device, each with sources of its own; one thread writes for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from threading import Lock
from typing import cast

from captrain.errors import SettingsError, nearest
from captrain.features.engines.base import About, Engine, Model, Opening, Work
from captrain.features.pipeline import Behind
from captrain.features.sources import End, Source

ENGINES = {
    "local": "captrain.features.engines:LocalEngine",
    "ray": "captrain.features.engines.ray_engine:RayEngine",
}


def make_engine(
    name: str, opening: Opening[Model, About], devices: Sequence[str], address: str | None
) -> Engine[Model, About]:
    """The engine of a name; what it needs is imported now.

    Raises `SettingsError` for another name, and for an `address` where there is no cluster to be named.
    """
    if name not in ENGINES:
        raise SettingsError(f"--engine: found {name!r}, expected one of {', '.join(ENGINES)}.{nearest(name, ENGINES)}")
    if name == "local" and address is not None:
        raise SettingsError(f"--address {address}: names a Ray cluster, and goes with --engine ray")
    module, _, kind = ENGINES[name].partition(":")
    engine = getattr(import_module(module), kind)(opening, devices, address)
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
        """What the first model is; the others are copies."""
        return self.opening.about(self.models[0])

    def run(self, work: Work) -> None:
        """Work on all devices at the same time."""
        lock, queue = Lock(), iter(work.sources)

        def dealt() -> Iterator[Source]:
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
        """Nothing outlives `run`."""
