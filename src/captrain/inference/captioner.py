"""A captioner ready for use: load it, give it pictures, get captions. Training, evaluation and captioning share this code.

`maker_of` describes the model that writes captions, and its decoding, for the note beside them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captrain.data.images import MAX_PIXELS, ImageSpec, prepare, prepare_image
from captrain.data.machine_captions import LINE_KEY, CaptionMaker, stated
from captrain.disk.reading import read_file
from captrain.errors import DataError, PictureError, SettingsError, nearest
from captrain.features.encoder import weights_digest
from captrain.features.stream import Batching, batches, default_workers, read_ahead, stream_pictures
from captrain.features.training_images import Images
from captrain.inference.writer import BatchLimit, CaptionWriter, encode_all, write_all, write_ways
from captrain.models.checkpoint.export import download_model
from captrain.models.checkpoint.folder import load_captioner
from captrain.models.contexts import evaluating, quietly
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import FOR_SAMPLING, Decoding, DecodingChanges, Room, Written
from captrain.models.device import PRECISIONS, align, choose_device, choose_precision, is_out_of_memory
from captrain.models.layers.vision import mean_with_mirrored
from captrain.models.what_learns import lower_frozen
from captrain.models.zoo import resolve_name
from captrain.records import LARGEST_PICTURE, Caption, Rejects, Sample
from captrain.settings.load import check_settings
from captrain.settings.schema import ComputingSettings

logger = logging.getLogger(__name__)

Picture = str | Path | bytes | Image.Image
COLUMNS = ("image", "picture", "path", "file_name", "image_path", "img")
"""Columns of pictures that `map` looks for, in this order."""


@dataclass(frozen=True)
class Captioner:
    """Writes captions. Made by `captrain.load`.

    >>> captioner = captrain.load("runs/photos")                         # doctest: +SKIP
    >>> captioner("holiday.jpg")                                         # doctest: +SKIP
    'two children build a sand castle on the beach'
    >>> [caption.score for caption in captioner.caption(["a.jpg", "b.jpg"], beams=5)]     # doctest: +SKIP
    [-0.52, -0.87]
    """

    model: CaptionerModel

    def __repr__(self) -> str:
        """Which captioner this is, on one line."""
        model: Any = self.model
        millions = sum(weight.numel() for weight in model.parameters()) / 1e6
        size = f"{millions:,.0f}" if millions >= 100 else f"{millions:.3g}"
        adapters = getattr(model.model, "peft_config", {}).values()
        kinds = [f"adapter of rank {getattr(config, 'r', 'unknown')}" for config in adapters]
        precision = next(name for name, kind in PRECISIONS.items() if kind == model.precision)
        return f"<captioner: {', '.join([model.family, f'{size} M weights', str(model.device), precision, *kinds])}>"

    @classmethod
    def load(
        cls, source: str, device: str = "auto", precision: str = "auto", cache: str | Path | None = None
    ) -> Captioner:
        """From a run folder, a model folder, a .zip, a hub id or a short name, onto a device, without printing anything.

        Downloads from the hub go to `cache`, if given. Raises `ModelError` when it can't be loaded.
        """
        with quietly():
            return cls._load(source, device, precision, cache)

    @classmethod
    def _load(cls, source: str, device: str, precision: str, cache: str | Path | None) -> Captioner:
        source = resolve_name(str(source))
        from_hub = cache is not None and not Path(source).exists()
        model = load_captioner(download_model(source, Path(str(cache))) if from_hub else source)
        model.to(device=choose_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.precision = choose_precision(precision, model.device)
        model.decoding = model.room().fitted(model.decoding)
        model.requires_grad_(False)
        if model.precision == torch.bfloat16:
            lower_frozen(model)
        align(model)
        return cls(model)

    def __call__(self, picture: Picture, **decoding: Unpack[DecodingChanges]) -> str:
        """The caption of one picture. Raises `PictureError` when it can't be decoded."""
        return self.caption([picture], **decoding)[0].text

    def caption(
        self,
        pictures: Iterable[Picture] | Picture = (),
        batch_size: int = 16,
        *,
        features: np.ndarray | torch.Tensor | None = None,
        **decoding: Unpack[DecodingChanges],
    ) -> list[Caption]:
        """Captions of pictures (or one), in order: paths, encoded bytes, or PIL images; or of features that an encoder computed.

        Args:
            features: vectors (I, N, D), or (I, D) for one per image, instead of pictures: only the decoder runs.
            decoding: changes to how the model's captions are written, for example `beams=5` or `max_new_tokens=40`.
        """
        check_settings(ComputingSettings, batch_size=batch_size)
        how = self.decoding(decoding)
        if features is not None:
            return self._caption_features(torch.as_tensor(features), batch_size, how)
        given = enumerate([pictures] if isinstance(pictures, Picture) else pictures)
        named = ((str(picture if isinstance(picture, (str, Path)) else number), picture) for number, picture in given)
        read = read_ahead(lambda item: _prepared(*item, self.model.image_spec), named, default_workers())
        limit = BatchLimit(batch_size)
        writer = CaptionWriter(self.model, how, limit)
        names: list[str] = []
        written: list[tuple[int, Written]] = []
        while group := [(name, pixels.result()) for (name, _), pixels in islice(read, batch_size)]:
            numbers = range(len(names), len(names) + len(group))
            names += [name for name, _ in group]
            pixels = torch.from_numpy(np.stack([pixels for _, pixels in group]))
            written += writer.put(numbers, self.encode_within(pixels, how.mirror, limit))
        written += writer.finish()
        return [Caption(names[number], line.text, line.score) for number, line in written]

    def map(
        self, batch: Mapping[str, Any], *, column: str | None = None, **decoding: Unpack[DecodingChanges]
    ) -> dict[str, Any]:
        """The column `caption` for rows of a data set: what `datasets.Dataset.map` and a `DataLoader` call.

        `dataset.map(captioner.map, batched=True, batch_size=16)` captions a data set of Hugging Face; without `batched` a row at
        a time. The same for a collate function: `captioner.map({"image": pictures})["caption"]`.

        Args:
            batch: columns by name. Pictures are PIL images, paths, bytes, or what an undecoded `datasets.Image` holds.
            column: of the pictures. Default: image, picture, path, file_name, image_path or img, the first that is there.
            decoding: changes to how captions are written, such as `beams=5` (`fn_kwargs` of `Dataset.map`).

        A picture that can't be decoded gets None as its caption, and is logged. Raises `DataError` if no column holds
        pictures.
        """
        name = column or next((name for name in COLUMNS if name in batch), None)
        if name is None or name not in batch:
            found, wanted = ", ".join(batch) or "none", column or " or ".join(COLUMNS[:3])
            raise DataError(f"no column of pictures: found {found}, expected {wanted}; name it with column=")
        values = batch[name]
        if isinstance(values, Picture | Mapping):
            return {"caption": self._captions_of([values], decoding)[0]}
        return {"caption": self._captions_of(list(values), decoding)}

    def _captions_of(self, values: Sequence[Any], decoding: Mapping[str, Any]) -> list[str | None]:
        """A caption for each picture that can be decoded, None for the others."""
        how = self.decoding(decoding)
        pixels: dict[int, np.ndarray] = {}
        spec = self.model.image_spec

        def read(number: int) -> np.ndarray:
            return _prepared(str(number), _from_row(values[number]), spec)

        for number, future in read_ahead(read, range(len(values)), default_workers()):
            try:
                pixels[number] = future.result()
            except (PictureError, DataError) as error:
                logger.warning("picture %s has no caption", error)
        captions: list[str | None] = [None] * len(values)
        if pixels:
            written = self.write(torch.from_numpy(np.stack(list(pixels.values()))), how)
            for number, line in zip(pixels, written, strict=True):
                captions[number] = line.text
        return captions

    def decoding(self, changes: Mapping[str, Any]) -> Decoding:
        """This captioner's decoding, with some settings changed. Raises `SettingsError` as `adjust_decoding` does."""
        return adjust_decoding(self.model.decoding, changes, self.model.room())

    def _caption_features(self, features: torch.Tensor, batch_size: int, how: Decoding) -> list[Caption]:
        """Captions of vectors; their ids are their numbers. Raises `SettingsError` for vectors that don't fit the text half."""
        vectors = features[:, None] if features.dim() == 2 else features
        if vectors.dim() != 3 or not vectors.is_floating_point():
            raise SettingsError(
                f"features: found {tuple(features.shape)} of {features.dtype}, expected numbers (images, vectors, width)"
            )
        writer = CaptionWriter(self.model, how, BatchLimit(batch_size))
        written: list[tuple[int, Written]] = []
        try:
            for numbers in torch.arange(len(vectors)).split(batch_size):
                group = vectors[numbers].to(self.model.device, self.model.precision)
                written += writer.put(numbers.tolist(), group)
            written += writer.finish()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise SettingsError(
                f"features: vectors of shape {tuple(vectors.shape[1:])} do not fit this captioner "
                f"({str(error).splitlines()[0]}); expected what its own encoder makes"
            ) from None
        return [Caption(str(number), line.text, line.score) for number, line in written]

    def write(self, pixels: torch.Tensor, decoding: Decoding) -> list[Written]:
        """Captions of prepared pixels (I, height, width, 3), uint8."""
        limit = BatchLimit(len(pixels))
        return write_all(self.model, self.encode_within(pixels, decoding.mirror, limit), decoding, limit)

    def encode(self, pixels: torch.Tensor, mirror: bool = False) -> torch.Tensor:
        """Features (I, N, D) of prepared pixels (I, height, width, 3), uint8; with `mirror` of their mirror images too."""
        with torch.no_grad():
            return self.model.encode(pixels.to(self.model.device), mirror).to(self.model.precision)

    def encode_within(self, pixels: torch.Tensor, mirror: bool, limit: BatchLimit) -> torch.Tensor:
        """Like `encode`, in smaller batches if memory runs out."""
        return encode_all(partial(self.encode, mirror=mirror), pixels, limit)

    def stream(
        self,
        samples: Sequence[Sample],
        decoding: Decoding,
        rejects: Rejects,
        batch_size: int = 16,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[int, Written]]:
        """Captions of any number of samples by position, decoding pictures ahead; bad ones go to `rejects`.

        Raises `SettingsError` for a batch size below 1, or a negative number of threads.
        """
        batching = Batching(batch_size, workers, max_pixels)
        limit = BatchLimit(batch_size)
        for index, lines in write_ways(
            self.model, [decoding], self._encoded_batches([decoding], samples, rejects, batching, limit), limit
        ):
            yield index, lines[0]

    def stream_ways(
        self,
        samples: Sequence[Sample],
        ways: Sequence[Decoding],
        rejects: Rejects,
        batch_size: int = 16,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[int, list[Written]]]:
        """Like `stream`, with one caption for each decoding; pictures are encoded once for all of them.

        Each batch is finished before the next one starts, so its captions and scores do not depend on earlier batches.
        """
        batching = Batching(batch_size, workers, max_pixels)
        limit = BatchLimit(batch_size)
        encoded = self._encoded_batches(ways, samples, rejects, batching, limit)
        yield from write_ways(self.model, ways, encoded, limit, apart=True)

    def _encoded_batches(
        self,
        ways: Sequence[Decoding],
        samples: Sequence[Sample],
        rejects: Rejects,
        batching: Batching,
        limit: BatchLimit,
    ) -> Iterator[tuple[list[int], dict[bool, Tensor]]]:
        """Batches of positions, with the features that the decodings need."""
        spec, workers, mirrors = self.model.image_spec, batching.workers, {way.mirror for way in ways}
        pictures = stream_pictures(samples, spec, rejects, workers=workers, max_pixels=batching.max_pixels)
        for group, pixels in batches(pictures, batching.batch_size):
            seen = {mirror: self.encode_within(pixels, mirror, limit) for mirror in mirrors}
            yield [picture.index for picture in group], seen


def adjust_decoding(decoding: Decoding, changes: Mapping[str, Any], room: Room | None = None) -> Decoding:
    """A model's decoding with some settings changed.

    Raises `SettingsError` for unknown ones, with the nearest name, for values that a setting does not take, for those of
    sampling if nothing is sampled, and for captions longer than the model's positions have `room` for.

    >>> adjust_decoding(Decoding(beams=3), {"beams": 5}).beams
    5
    """
    known = [field.name for field in fields(Decoding)]
    for name in changes:
        if name not in known:
            raise SettingsError(
                f"generation setting '{name}' is unknown.{nearest(name, known)} Known: {', '.join(known)}"
            )
    adjusted = replace(decoding, **changes)
    idle = [f"{name} {changes[name]}" for name in FOR_SAMPLING if name in changes]
    if idle and not adjusted.sample:
        raise SettingsError(
            f"found {', '.join(idle)}, which means nothing without sampling; "
            "expected --sample too (in Python sample=True), or leave it out"
        )
    return room.fitted(adjusted, changes) if room else adjusted


def _from_row(value: Any) -> Picture:
    """A picture out of a data set's row, which may be undecoded: bytes, or a path. Raises `PictureError` for nothing at all."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, Picture):
        raise PictureError(f"found a {type(value).__name__}, expected a picture, a path or bytes")
    return value


def _prepared(name: str, picture: Picture, spec: ImageSpec) -> np.ndarray:
    """A picture's pixels; what is wrong with it is said with its name (its position, if it has none)."""
    try:
        return prepare_image(picture, spec) if isinstance(picture, Image.Image) else prepare(_encoded(picture), spec)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None


def _encoded(picture: str | Path | bytes) -> bytes:
    """A picture as encoded bytes."""
    if isinstance(picture, bytes):
        return picture
    try:
        return read_file(picture, LARGEST_PICTURE)
    except FileNotFoundError:
        raise DataError(f"{picture}: no such picture") from None
    except OSError as error:
        raise PictureError(f"can't be read: {error.strerror}") from None


def features_of(captioner: CaptionerModel, images: Images, positions: Sequence[int], mirror: bool = False) -> Tensor:
    """Features of images by position, from where they are kept, or computed now.

    With `mirror` the mean of theirs and of their mirror images', where these are kept too or can be computed.
    """
    row = images.rows(positions)
    if "features" not in row:
        with evaluating(captioner), torch.no_grad():
            return captioner.encode(row["pixels"].to(captioner.device), mirror).to(captioner.precision)
    features = row["features"].to(captioner.device)
    mirrored = images.mirrored(positions) if mirror else None
    if mirrored is None:
        return features
    spec = captioner.image_spec
    return mean_with_mirrored(features, mirrored.to(captioner.device), spec.height, spec.width)


def write_captions(
    captioner: CaptionerModel,
    images: Images,
    positions: Sequence[int],
    batch_size: int,
    decoding: Decoding | None = None,
) -> Iterator[tuple[int, Written]]:
    """A caption for each position, in order."""
    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        features = features_of(captioner, images, batch, (decoding or captioner.decoding).mirror)
        yield from zip(batch, captioner.generate(features, decoding), strict=True)


def maker_of(model: str, captioner: Captioner, decoding: Decoding) -> CaptionMaker:
    """A model that begins to write now, in this way."""
    used = captioner.model
    return CaptionMaker.now(
        model, maker_id(weights_digest_of(captioner), used.prompt, used.image_spec.to_dict(), decoding)
    )


def maker_id(weights: str, prompt: str, preparation: Mapping[str, Any], decoding: Decoding) -> str:
    """An id that two writers share if they write the same captions: of weights, prompt, pixels and decoding, 12 letters."""
    facts = json.dumps([weights, prompt, preparation, decoding.to_dict()], sort_keys=True, default=str)
    return hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()


def weights_digest_of(captioner: Captioner) -> str:
    """The digest of all weights."""
    return weights_digest(chain(captioner.model.named_parameters(), captioner.model.named_buffers()))


def machine_line(caption: Caption, maker: str) -> dict[str, Any]:
    """A line of a file of captions, which says what wrote it."""
    return {**caption.to_dict(), LINE_KEY: stated([maker])[0]}
