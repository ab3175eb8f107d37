"""Features and pixels in a group of processes: each computes its share, all read what all have computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from captrain.data.samples import Chosen
from captrain.errors import DataError
from captrain.features.cache import Keeper, Keeping, keep_images
from captrain.features.stored_images import stored_images
from captrain.features.stream import default_workers
from captrain.features.training_images import PLAIN, Images, KeptImages, LiveImages, Views
from captrain.models.captioner import CaptionerModel
from captrain.records import Rejects, Sample
from captrain.training.distributed.group import Group


@dataclass(frozen=True, slots=True)
class Part:
    """What one process found of a split: positions of usable pictures in it (images,), their keys, of kept ones their views."""

    positions: np.ndarray
    keys: list[str]
    views: list[Views]


def keep_together(
    group: Group,
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    keeping: Keeping,
    rejects: Rejects,
    views: Mapping[str, Views],
) -> dict[str, Images]:
    """As `keep_images`, in each process the same. What is kept lies on disk, where all of them see it.

    Raises `DataError` where they don't: the cache folder is another one on another machine.
    """
    if group.size == 1:
        return keep_images(captioner, splits, keeping, rejects, views)
    with group.together():
        stored = stored_images(captioner, splits, views)
    if stored is not None:
        return stored
    pictures = sum(len(samples) * views.get(name, PLAIN).count for name, samples in splits.items())
    where = _where(captioner, pictures, keeping, group)
    keeping = replace(keeping, where=where, workers=keeping.workers or _workers())
    own = Rejects()
    with group.together():
        shares = {name: range(group.rank, len(samples), group.size) for name, samples in splits.items()}
        chosen: dict[str, Sequence[Sample]] = {
            name: Chosen(splits[name], np.array(share, dtype=np.int64)) for name, share in shares.items()
        }
        found = keep_images(captioner, chosen, keeping, own, views)
    rejects.lines.extend(line for lines in group.gather(own.lines) for line in lines)
    parts = {name: _joined(group.gather(_part(found[name], share))) for name, share in shares.items()}
    with group.together():
        return _images(captioner, splits, keeping, views, parts)


def _where(captioner: CaptionerModel, pictures: int, keeping: Keeping, group: Group) -> str:
    """On disk what one process would keep in memory: the system's file cache holds it once for all processes of a machine."""
    if keeping.where == "auto" and captioner.vision_learns():
        spec = captioner.image_spec
        fits = pictures * spec.height * spec.width * 3 <= keeping.memory()
        return group.from_first("disk" if fits else "off")
    return "disk" if keeping.where in ("auto", "memory") else keeping.where


def _workers() -> int:
    """Threads of each process, so that those of one machine share its cores."""
    return max(1, default_workers() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _part(images: Images, share: range) -> Part:
    """What to tell the others."""
    positions = np.array(share, dtype=np.int64)[images.taken]
    if isinstance(images, KeptImages):
        return Part(positions, list(images.keys), list(images.views))
    return Part(positions, list(images.contents or ()), [])


def _joined(parts: list[Part]) -> Part:
    """All processes' parts of a split, in its order."""
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions, kind="stable")
    keys, views = ([item for part in parts for item in getattr(part, name)] for name in ("keys", "views"))
    return Part(
        positions[order], [keys[at] for at in order] if keys else [], [views[at] for at in order] if views else []
    )


def _images(
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    keeping: Keeping,
    views: Mapping[str, Views],
    parts: dict[str, Part],
) -> dict[str, Images]:
    """The images of all splits, from what all processes have found."""
    total = sum(len(part.positions) for part in parts.values())
    keeper = Keeper(captioner, keeping, total, any(of_split.anew for of_split in views.values()))
    made: dict[str, Images] = {}
    for name, part in parts.items():
        used = Chosen(splits[name], part.positions)
        if keeper.store is None:
            workers = keeping.workers or 1
            made[name] = LiveImages(used, captioner.image_spec, keeping.max_pixels, views.get(name, PLAIN), workers)
            made[name].contents = part.keys
        else:
            if any(key not in keeper.store for key in part.keys):
                raise DataError(
                    f"{keeping.folder}: not all processes see the same features there; set CAPTRAIN_CACHE to a folder "
                    "that all machines share, train from a store (captrain encode), or use --cache-features off"
                )
            made[name] = KeptImages(used, part.keys, keeper.store, keeper.kind, part.views)
        made[name].taken = part.positions
    return made
