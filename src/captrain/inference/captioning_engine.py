"""Captioning on engines (`captrain.features.engines`): how a captioner is opened, and how parts of captions are made."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from captrain.data.machine_captions import CaptionMaker
from captrain.data.samples import key_of
from captrain.errors import DataError, ModelError, PictureError
from captrain.features.engines import ModelOpening, PartsOrder
from captrain.features.pipeline import Decoded, Skip, SourceReader, part_name
from captrain.features.sources import EncodingSource, End, TarSource
from captrain.inference.captioner import Captioner, machine_line, maker_id, weights_digest_of
from captrain.inference.parts_folder import ABOUT, CaptionPart, CaptionPartNote, PartsFolder
from captrain.inference.writer import BatchLimit, CaptionWriter
from captrain.models.decoding import Decoding, Room, Written
from captrain.models.device import PRECISIONS, choose_device
from captrain.records import Caption, Rejects, Sample


@dataclass(frozen=True, slots=True)
class AboutCaptioner:
    """Everything that decides a captioner's captions, except the decoding."""

    model: str
    weights: str
    precision: str
    prompt: str
    preparation: dict[str, Any]
    decoding: Decoding
    """Its decoding unless asked otherwise."""
    room: Room

    def maker(self, decoding: Decoding) -> CaptionMaker:
        """The maker of captions that are written this way from now on."""
        return CaptionMaker.now(self.model, maker_id(self.weights, self.prompt, self.preparation, decoding))

    def note(self, decoding: Decoding, part_images: int) -> dict[str, Any]:
        """What is noted beside captions that are written this way, for JSON."""
        facts = {
            **asdict(self), "decoding": decoding.to_dict(), "part_images": part_images, "maker": str(self.maker(decoding)),
        }  # fmt: skip
        del facts["room"]  # it follows from the model
        found: dict[str, Any] = json.loads(json.dumps(facts))
        return found


@dataclass(frozen=True, slots=True)
class CaptionerOpening(ModelOpening[Captioner, AboutCaptioner]):
    """How a captioner is opened."""

    model: str
    precision: str = "auto"

    def open(self, device: str) -> Captioner:
        """The captioner on a device. Raises `ModelError` if there is none."""
        return Captioner.load(self.model, device, self.precision)

    def copy(self, captioner: Captioner, device: str) -> Captioner:
        """The same captioner on another device. Raises `ModelError` if that is not there."""
        return Captioner(deepcopy(captioner.model).to(_place(device)))

    def about(self, captioner: Captioner) -> AboutCaptioner:
        """What decides its captions."""
        model = captioner.model
        names = {kind: name for name, kind in PRECISIONS.items()}
        return AboutCaptioner(
            self.model, weights_digest_of(captioner), names[model.precision], model.prompt,
            model.image_spec.to_dict(), model.decoding, model.room(),
        )  # fmt: skip

    def settled(self, about: AboutCaptioner) -> CaptionerOpening:
        """Later openings compute in the precision of the first captioner."""
        return replace(self, precision=about.precision)

    def check(self, about: AboutCaptioner, captioner: Captioner, where: str) -> None:
        """Raise `ModelError` if a captioner that was opened on another machine differs."""
        if (weights := weights_digest_of(captioner)) != about.weights:
            raise ModelError(
                f"{where}: {self.model} has weights {weights[:12]} there, not {about.weights[:12]} as elsewhere; "
                "put the same files on all machines"
            )


@dataclass(frozen=True, slots=True)
class Captioning(PartsOrder[Captioner]):
    """Captions of sources into a folder of parts. `known` has the keys of pictures that have a caption, sorted; `maker`
    is what each line says wrote it."""

    folder: PartsFolder
    decoding: Decoding
    reader: SourceReader
    size: int
    known: np.ndarray
    maker: str

    @property
    def done(self) -> dict[str, CaptionPartNote]:
        """Notes of the parts that are there."""
        return self.folder.done

    def parts(
        self, captioner: Captioner, sources: Iterable[EncodingSource], skip: Skip
    ) -> Iterator[tuple[EncodingSource, CaptionPart | End]]:
        """Finished parts in memory."""

        def begin(source: EncodingSource) -> _Part:
            return _Part(self, captioner, source)

        wants = self._wants if len(self.known) else None
        return self.reader.parts(captioner.model.image_spec, sources, self.size, skip, begin, wants)

    def write(self, part: CaptionPart) -> CaptionPartNote:
        """Write a part's file."""
        return self.folder.write(part)

    def find(self, name: str) -> CaptionPartNote | None:
        """The note of a part that is there."""
        return self.folder.find(name)

    def for_worker(self, cores: int) -> Captioning:
        """The same with a folder that knows no parts."""
        workers = cores if self.reader.workers is None else self.reader.workers
        return replace(self, folder=self.folder.empty(), reader=replace(self.reader, workers=workers))

    def check_shared(self) -> None:
        """Raise `DataError` if this machine does not see the folder."""
        if not self.folder.folder.exists(ABOUT):
            raise DataError(
                f"{self.folder.folder.label}: can't be seen from {socket.gethostname()}; expected an --output in a folder that "
                "all machines share"
            )

    def _wants(self, sample: Sample) -> bool:
        key = np.uint64(key_of(sample.id))
        place = int(np.searchsorted(self.known, key))
        return place == len(self.known) or bool(self.known[place] != key)


@dataclass(slots=True)
class _Part:
    """A part that is being captioned."""

    order: Captioning
    captioner: Captioner
    source: EncodingSource
    waiting: list[Caption] = field(default_factory=list)  # captions that have no text yet
    pixels: list[np.ndarray] = field(default_factory=list)  # of the last of them, which are not encoded yet
    lines: list[dict[str, Any]] = field(default_factory=list)
    rejects: Rejects = field(default_factory=Rejects)
    limit: BatchLimit = field(init=False)
    writer: CaptionWriter = field(init=False)

    def __post_init__(self) -> None:
        self.limit = BatchLimit(self.order.reader.batch_size)
        self.writer = CaptionWriter(self.captioner.model, self.order.decoding, self.limit)

    def add(self, sample: Sample, decoded: Future[Decoded]) -> None:
        """Take in one picture when it is decoded; one that can't be is rejected."""
        try:
            pixels, _ = decoded.result()
        except PictureError as error:
            self.rejects.add(sample.id, sample.source or sample.id, str(error))
            return
        self.waiting.append(self._blank(sample))
        self.pixels.append(pixels)
        if len(self.pixels) == self.order.reader.batch_size:
            self._flush()

    def finish(self, source: EncodingSource, end: End) -> CaptionPart:
        """The finished part."""
        self._flush()
        self._keep(self.writer.finish())
        rejects = Rejects(end.rejects.lines + self.rejects.lines)
        note = CaptionPartNote(
            part_name(source, end.part), source.label, source.fingerprint, end.part, end.last,
            len(self.lines), len(rejects),
        )  # fmt: skip
        return CaptionPart(note, self.lines, rejects)

    def _blank(self, sample: Sample) -> Caption:
        """A caption without its text; a picture from a tar is said to be where the tar's index would say it is."""
        blank = Caption.of(sample, "")
        if not isinstance(self.source, TarSource):
            return blank
        shard = self.source.shard
        return replace(blank, image=f"{shard.label}/{sample.id.removeprefix(shard.prefix)}")

    def _flush(self) -> None:
        if not self.pixels:
            return
        first = len(self.waiting) - len(self.pixels)
        if self.order.decoding.sample:
            _seed(self.captioner.model.device, key_of(self.waiting[first].id))
        pixels = torch.from_numpy(np.stack(self.pixels))
        self.pixels.clear()
        features = self.captioner.encode_within(pixels, self.order.decoding.mirror, self.limit)
        self._keep(self.writer.put(range(first, len(self.waiting)), features))

    def _keep(self, written: list[tuple[int, Written]]) -> None:
        for number, line in written:
            finished = replace(self.waiting[number], text=line.text, score=line.score)
            self.lines.append(machine_line(finished, self.order.maker))


def _seed(device: torch.device, seed: int) -> None:
    """Seed the random numbers of this batch: the same on any such machine, whatever was captioned before."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed >> 1)
    else:
        torch.manual_seed(seed >> 1)


def _place(device: str) -> torch.device:
    """A device by its name, with or without a number."""
    kind, _, number = device.partition(":")
    place = choose_device(kind)
    if not number:
        return place
    count = torch.accelerator.device_count() if place.type != "cpu" else 1
    if not number.isdecimal() or int(number) >= count:
        raise ModelError(f"device '{device}' is not on this machine; there is {kind}:0 to {kind}:{count - 1}")
    return torch.device(device)
