"""This machine: one model on each device, each with sources of its own; one thread writes for all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock

from captrain.features.engines.base import About, Engine, Model, Work
from captrain.features.pipeline import Behind
from captrain.features.sources import End, Source


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
