"""A Ray cluster of two workers in this process's machine, and how one of them is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captrain.features.engines.ray_engine import Worker
from captrain.features.sources import Source

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_failure_threshold": 3,
}
MEMORY = 80 << 20  # of a node's object store, about the least that Ray takes


@contextmanager
def two_workers() -> Iterator[Any]:
    """A head without cores, and two nodes of a core each."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": MEMORY, "_system_config": QUICK_TO_NOTICE}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def stuck_worker(flag: Path, half_file: Callable[[Any, Any], str]) -> type[Worker]:
    """Workers of which the first to write a second part leaves half a file, says where it is, and does nothing more.

    Made in a function, so that Ray sends it by value: the nodes can't import this module. `half_file` names the file that an
    order writes for a part; it must be made in a function too.
    """

    def first_to_say(node: str) -> bool:
        mine = flag.with_name(f"{flag.name}-{node}")
        mine.write_text(node)
        try:
            os.link(mine, flag)  # of two at the same time one succeeds, and its content is whole
        except FileExistsError:
            return False
        return True

    class StuckOrder:
        def __init__(self, order: Any) -> None:
            self.order = order

        def __getattr__(self, name: str) -> Any:
            return getattr(self.order, name)

        def write(self, part: Any) -> Any:
            import ray

            node = ray.get_runtime_context().get_node_id()
            if getattr(part, "note", part).part == 0 or not first_to_say(node):
                return self.order.write(part)
            Path(half_file(self.order, part)).write_bytes(b"half")
            time.sleep(600)

    class Stuck(Worker):
        def do(self, order: Any, source: Source, known: frozenset[str]) -> Any:
            return Worker.do(self, StuckOrder(order), source, known)  # type: ignore[arg-type]

    return Stuck


@contextmanager
def killing_node_of(flag: Path, cluster: Any) -> Iterator[None]:
    """Kill the machine whose worker is the first to say that it is stuck; it must have come to that."""

    def kill() -> None:
        while not flag.exists():
            time.sleep(0.05)
        time.sleep(0.2)  # for the half file, which is written next
        [node] = [node for node in cluster.list_all_nodes() if node.node_id == flag.read_text()]
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield
    killer.join(10)
    assert len(cluster.list_all_nodes()) == 2, "one of the two workers was killed, the head is left"
