"""This machine: one encoder on each device, each with sources of its own; one thread writes for all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock

from captrain.features.encoder import Encoder, on_device
from captrain.features.engines.base import About, Engine, Work
from captrain.features.pipeline import Behind
from captrain.features.sources import Source
from captrain.features.writing import Shard


class LocalEngine(Engine):
    """All work in this process."""

    @cached_property
    def encoders(self) -> list[Encoder]:
        """One on each device."""
        first = self.opening.open(self.devices[0].partition(":")[0])
        several = len(self.devices) > 1
        return [on_device(first, device) if several or ":" in device else first for device in self.devices]

    def about(self) -> About:
        """What the first encoder is; the others are copies."""
        return About.of(self.encoders[0])

    def run(self, work: Work) -> None:
        """Encode on all devices at the same time."""
        lock, queue = Lock(), iter(work.sources)

        def dealt() -> Iterator[Source]:
            """The next source that no other device has taken."""
            while True:
                with lock:
                    source = next(queue, None)
                if source is None:
                    return
                yield source

        with Behind(work.writer.write) as write:

            def encode(encoder: Encoder) -> None:
                for source, made in work.pipeline.shards(encoder, dealt(), work.size, work.skip):
                    with lock:
                        if isinstance(made, Shard):
                            write(made)
                        work.tell(source, made)

            if len(self.encoders) == 1:
                encode(self.encoders[0])
            else:
                with ThreadPoolExecutor(len(self.encoders)) as pool:
                    for done in [pool.submit(encode, encoder) for encoder in self.encoders]:
                        done.result()

    def close(self) -> None:
        """Nothing outlives `run`."""
