"""CLIPScore of captions and the pictures they describe, found in a folder by the captions' ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from captrain.data.images import MAX_PIXELS
from captrain.data.places import IMAGE_SUFFIXES, Root
from captrain.errors import DataError
from captrain.features.stream import batches, stream_pictures
from captrain.metrics.ids import match_ids, some
from captrain.models.clip_score import Clip, clip_scores, ref_clip_scores
from captrain.progress import track
from captrain.records import Rejects, Sample


def find_pictures(folder: Path, ids: Sequence[str], *, follow_links: bool = False) -> list[Sample]:
    """A picture below a folder for each id, matched as ids of captions are.

    Raises `DataError` when there is no such folder, a picture is missing, or an id fits two.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the folder of the pictures that the captions describe")
    faults = dict(_pictures(Root(folder, follow_links=follow_links)))
    found = match_ids(ids, dict.fromkeys(faults))
    if found.extra:
        raise DataError(
            f"{folder}: {len(found.extra)} of {len(ids)} captions have no picture here ({some(found.extra)})"
        )
    for name in found.pairs.values():
        if faults[name]:
            raise DataError(f"{folder}: '{name}' {faults[name]}")
    return [Sample(id, folder / name, source=str(folder / name)) for id, name in found.pairs.items()]


def score_clip(
    clip: Clip,
    pictures: Sequence[Sample],
    systems: Sequence[Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    rejects: Rejects,
    batch_size: int = 16,
) -> list[dict[str, dict[str, float]]]:
    """For each system `{"clip_score": {id: score}, "ref_clip_score": {id: score}}`, all computed with pictures seen once.

    Pictures that can't be read go to `rejects`, and their ids are missing from the scores.
    """
    ids, seen = _see(clip, pictures, rejects, batch_size)
    if not ids:
        raise DataError(f"none of {len(pictures)} pictures could be read: {rejects.summary()}")
    flat = clip.read([caption for id in ids for caption in references[id]])
    ends = np.cumsum([len(references[id]) for id in ids])
    vectors = np.split(flat, ends[:-1])
    found = []
    for captions in systems:
        written = clip.read([captions[id] for id in ids])
        scores = clip_scores(seen, written)
        with_references = ref_clip_scores(scores, written, vectors)
        found.append(
            {
                name: dict(zip(ids, map(float, values), strict=True))
                for name, values in (("clip_score", scores), ("ref_clip_score", with_references))
            }
        )
    return found


def _see(clip: Clip, pictures: Sequence[Sample], rejects: Rejects, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Ids and vectors of the pictures that can be read."""
    ids: list[str] = []
    vectors = []
    with track("look", len(pictures)) as advance:
        for group, pixels in batches(stream_pictures(pictures, clip.spec, rejects, max_pixels=MAX_PIXELS), batch_size):
            ids += [pictures[picture.index].id for picture in group]
            vectors.append(clip.see(pixels))
            advance(len(group))
    return ids, np.concatenate(vectors) if vectors else np.zeros((0, 0))


def _pictures(root: Root) -> Iterator[tuple[str, str]]:
    """The paths of the pictures below a folder, each with why it can't be read, or ""."""
    folders, left = root.folders(), [""]
    while left:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError as error:
            raise DataError(f"{root.folder / prefix}: can't be listed ({error.strerror})") from None
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        for entry in entries:
            if not entry.is_folder and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield prefix + entry.name, entry.fault
