"""A Ray cluster as an engine: an actor for each GPU, or for each core where there is none, with one source at a time.

Never more sources are in progress than there are actors, so nothing piles up. While sources wait, one more actor than fits
is requested, which makes an autoscaling cluster grow. The source of an actor that dies goes to another one.

A `RayWorker` is what an actor runs: it has the model, does a source at a time, and writes its parts itself. It needs no Ray.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from captrain.errors import CaptrainError, ModelError, SettingsError, UserError
from captrain.features.engines import About, Engine, EngineWork, FinishedPart, Model, ModelOpening, PartsOrder
from captrain.features.pipeline import Behind, Skip, part_name
from captrain.features.sources import BlockSource, EncodingSource, End
from captrain.memory_budget import share_with
from captrain.models.checkpoint.located import Trust, current_trust, set_trust

logger = logging.getLogger(__name__)

INSTALL = "pip install 'captrain[scale]'"
CONNECT_SECONDS = 5
MOST_CORES = 16  # of an actor with a GPU: to decode for it
SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # what both sides of HTTP/2 begin with (RFC 9113, 3.4)
MOST_DEATHS = 3  # deaths of workers on one source: the source may cause them


class RayEngine(Engine[Model, About]):
    """All work in actors; the caller's process lists sources and joins what they made."""

    def __init__(self, opening: ModelOpening[Model, About], devices: Sequence[str], address: str | None) -> None:
        super().__init__(opening, devices, address)
        if len(devices) > 1 or ":" in devices[0]:
            raise SettingsError(
                f"--device {','.join(devices)}: with --engine ray each worker gets one GPU or core; expected auto, cpu or cuda"
            )
        self.ray = _import_ray()
        self.mine = not self.ray.is_initialized()
        self.actors: list[Any] = []
        if self.mine:
            _connect(self.ray, address or os.environ.get("RAY_ADDRESS"))

    @cached_property
    def share(self) -> Share:
        """Each actor's share of the cluster."""
        return share_of(self.ray.cluster_resources(), self.devices[0])

    def about(self) -> About:
        """What the model of the first actor is; all others must be the same, and compute in the same precision."""
        actor, opened = self._hire(None)
        try:
            about: About = _result(self.ray, opened)
        except self.ray.exceptions.RayError as error:
            raise CaptrainError(f"ray: the first worker died ({_short(error)}); see the logs of the cluster") from None
        self.opening = self.opening.settled(about)
        self.first, self._about = actor, about
        return about

    def run(self, work: EngineWork) -> None:
        """Give out sources until all are done."""
        if work.sources:
            _Pool(self, work).run()

    def close(self) -> None:
        """Let all actors go, and Ray if it was started or joined here."""
        for actor in self.actors:
            self.ray.kill(actor)
        if self.mine:
            self.ray.shutdown()

    def hire(self) -> tuple[Any, Any]:
        """A new actor, and the promise of its model."""
        return self._hire(self._about)

    def dismiss(self, actor: Any) -> None:
        """Drop an actor that has died; one that is only unreachable must not write any more."""
        self.actors.remove(actor)
        self.ray.kill(actor)

    def _hire(self, expected: Any) -> tuple[Any, Any]:
        kind = self.ray.remote(RayWorker).options(
            num_cpus=self.share.cores, num_gpus=self.share.gpus, max_restarts=0, max_task_retries=0
        )
        actor = kind.remote(self.opening, self.share.device, os.getcwd(), self.share.cores, current_trust())
        self.actors.append(actor)
        return actor, actor.open.remote(expected)


class _Pool:
    """Actors at work: what each of them is doing, what waits, and how often workers died over a source."""

    def __init__(self, engine: RayEngine[Any, Any], work: EngineWork) -> None:
        self.engine, self.work, self.ray = engine, work, engine.ray
        self.order = self.ray.put(work.order.for_worker(engine.share.cores))
        self.waiting = deque(work.sources)
        self.idle = [engine.first]
        self.busy: dict[
            Any, tuple[Any, EncodingSource | None]
        ] = {}  # promise: actor, and source unless it is being opened
        self.deaths: Counter[str] = Counter()  # by the source's name; "" while the model was opened

    def run(self) -> None:
        """Run until nothing waits and nothing is in progress."""
        while self.waiting or any(source for _, source in self.busy.values()):
            while self.waiting and self.idle:
                self._give(self.idle.pop(), self.waiting.popleft())
            if self.waiting and all(source for _, source in self.busy.values()):
                actor, opened = self.engine.hire()
                self.busy[opened] = (actor, None)
            ready, _ = self.ray.wait(list(self.busy), num_returns=1)
            for promise in ready:
                self._settle(promise)

    def _give(self, actor: Any, source: EncodingSource) -> None:
        known = known_of(source, self.work.skip)
        self.busy[actor.do.remote(self.order, alone(source), known)] = (actor, source)

    def _settle(self, promise: Any) -> None:
        """Take an actor's results and give it more work; or give its source to another actor."""
        actor, source = self.busy.pop(promise)
        try:
            result = _result(self.ray, promise)
        except self.ray.exceptions.RayError as error:
            self.engine.dismiss(actor)
            self._mourn(source, error)
            return
        if source is None:
            self.deaths.pop("", None)  # only if workers die one after another is the model taken to kill them
        else:
            self._take(source, result)
        self.idle.append(actor)

    def _take(self, source: EncodingSource, made: Iterable[Any]) -> None:
        for one in made:
            if not isinstance(one, End):
                self.work.order.done[one.name] = one
            self.work.tell(source, one)

    def _mourn(self, source: EncodingSource | None, error: Exception) -> None:
        key = "" if source is None else source.name
        self.deaths[key] += 1
        if self.deaths[key] == MOST_DEATHS:
            what = "before they had opened the model" if source is None else f"over {source.label}"
            raise CaptrainError(
                f"ray: {MOST_DEATHS} workers died {what} ({_short(error)}); see the cluster's logs, then run the command again"
            )
        if source is not None:
            logger.warning("%s: its worker died; another one continues", source.label)
            self.waiting.appendleft(source)


@dataclass(frozen=True, slots=True)
class Share:
    """What an actor gets: cores, GPUs, and the device that its model runs on."""

    cores: int
    gpus: int
    device: str


def share_of(resources: dict[str, float], device: str) -> Share:
    """What each actor gets of a cluster's `resources`. Raises `ModelError` if the cluster does not have the device.

    >>> share_of({"CPU": 64.0, "GPU": 8.0}, "auto"), share_of({"CPU": 64.0}, "auto")
    (Share(cores=8, gpus=1, device='cuda'), Share(cores=1, gpus=0, device='cpu'))
    """
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"--device {device}: with --engine ray expected auto, cpu or cuda")
    if (device == "cuda" and not gpus) or not cores:
        raise ModelError(
            f"ray: the cluster has {cores} cores and {gpus} GPUs, which is not enough for --device {device}"
        )
    if device == "cpu" or not gpus:
        return Share(1, 0, "cpu")
    return Share(max(1, min(MOST_CORES, cores // gpus)), 1, "cuda")


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(f"--engine ray: needs Ray, which is not installed; {INSTALL}") from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster at an address, or start Ray on this machine. Raises `UserError` if the cluster is not there."""
    if address is None or address == "local":
        ray.init("local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        return
    if address != "auto":
        _knock(address)
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"--address {address}: no Ray cluster could be joined ({_short(error)}); {_HOW}") from None


_HOW = "start one with: ray start --head, or leave --address out to run on this machine"


def _knock(address: str) -> None:
    """Whether something there speaks HTTP/2, as Ray does: Ray itself tries for a minute, then ends the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address or not 0 < int(port) < 65536:
        raise SettingsError(f"--address: found {address!r}, expected auto, or HOST:PORT such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS_FRAME)
            answer = line.recv(len(SETTINGS_FRAME), socket.MSG_WAITALL)
    except OSError as error:
        raise UserError(f"--address {address}: no Ray cluster answers ({error.strerror or error}); {_HOW}") from None
    if answer[3:4] != SETTINGS_FRAME[3:4]:
        raise UserError(f"--address {address}: what answers there is not Ray; {_HOW}")


def _result(ray: Any, promise: Any) -> Any:
    """The result of a call; its exception is raised here unchanged."""
    try:
        return ray.get(promise)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _short(error: BaseException) -> str:
    """The first line of Ray's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


class RayWorker:
    """Lives in a process of its own, in `folder` if its machine has that: paths may be relative to it.

    `cores` is how many it has of its machine's; other workers are assumed to use the others. `trust` is what the command was
    told to trust.
    """

    def __init__(
        self,
        opening: ModelOpening[Any, Any],
        device: str,
        folder: str,
        cores: int | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.opening, self.device = opening, device
        if trust is not None:
            set_trust(remote_code=trust.remote_code, safetensors_only=trust.safetensors_only)
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

    def do(self, order: PartsOrder[Any], source: EncodingSource, known: frozenset[str]) -> list[FinishedPart | End]:
        """Do a source without its `known` parts; what a worker that died has finished of it is not done again.

        Gives the notes of all other parts, in order, and the `End` of a part that can't be read.
        """
        assert self.model is not None, "open() comes first"
        order.check_shared()
        made: list[FinishedPart | End] = list(before := finished(order, source, known))
        if before and before[-1].last:
            return made
        there = known | {note.name for note in before}

        def skip(source: EncodingSource, part: int) -> bool:
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


def finished(order: PartsOrder[Any], source: EncodingSource, known: Set[str]) -> list[FinishedPart]:
    """Notes of a source's parts that are there beyond those `known`, as long as the source is what it was."""
    found: list[FinishedPart] = []
    while (note := order.find(part_name(source, len(known) + len(found)))) is not None:
        if note.fingerprint != source.fingerprint:
            break
        found.append(note)
        if note.last:
            break
    return found


def alone(source: EncodingSource) -> EncodingSource:
    """A source that carries its own samples and not all those of its data set: it is sent to another machine."""
    if not isinstance(source, BlockSource):
        return source
    block = copy(source)
    block.samples = [source.samples[index] for index in range(source.start, source.stop)]
    block.start, block.stop = 0, len(block.samples)
    return block


def known_of(source: EncodingSource, skip: Skip) -> frozenset[str]:
    """The names of a source's parts that are there, from the first on without a gap."""
    count = 0
    while skip(source, count):
        count += 1
    return frozenset(part_name(source, part) for part in range(count))
