"""The feature cache of a group of processes: each process computes its share, and all read the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from captrain.data.samples import ChosenSamples
from captrain.errors import DataError
from captrain.features.cache import CacheOptions, FeatureCache, cache_features
from captrain.features.stored_images import stored_images
from captrain.features.training_images import PLAIN, CachedImages, Images, LiveImages, Views
from captrain.models.contract import CaptionerModel
from captrain.records import Rejects, Sample
from captrain.training.distributed.group import ProcessGroup


@dataclass(frozen=True, slots=True)
class CachedShare:
    """What one process found in its share of a split.

    Attributes:
        positions: of the usable pictures in the split (images,). keys: their content keys.
        views: their views, if they are cached.
    """

    positions: np.ndarray
    keys: list[str]
    views: list[Views]


def cache_features_together(
    group: ProcessGroup,
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    options: CacheOptions,
    rejects: Rejects,
    views: Mapping[str, Views],
) -> dict[str, Images]:
    """Like `cache_features`, with the same result in each process. The cache is on disk, where all of them see it.

    Raises `DataError` if they don't, because another machine has another cache folder.
    """
    if group.size == 1:
        return cache_features(captioner, splits, options, rejects, views)
    with group.together():
        stored = stored_images(captioner, splits, views)
    if stored is not None:
        return stored
    pictures = sum(len(samples) * views.get(name, PLAIN).count for name, samples in splits.items())
    where = _where(captioner, pictures, options, group)
    options = replace(options, where=where)
    own = Rejects()
    with group.together():
        shares = {name: range(group.rank, len(samples), group.size) for name, samples in splits.items()}
        chosen: dict[str, Sequence[Sample]] = {
            name: ChosenSamples(splits[name], np.array(share, dtype=np.int64)) for name, share in shares.items()
        }
        found = cache_features(captioner, chosen, options, own, views)
    rejects.lines.extend(line for lines in group.gather(own.lines) for line in lines)
    gathered = {name: _merged(group.gather(_share_of(found[name], share))) for name, share in shares.items()}
    with group.together():
        return _images(captioner, splits, options, views, gathered)


def _where(captioner: CaptionerModel, pictures: int, options: CacheOptions, group: ProcessGroup) -> str:
    """Disk instead of memory: the system's file cache holds it once for all processes of a machine."""
    if options.where == "auto" and captioner.vision_learns():
        spec = captioner.image_spec
        fits = pictures * spec.height * spec.width * 3 <= options.memory()
        return group.from_first("disk" if fits else "off")
    return "disk" if options.where in ("auto", "memory") else options.where


def _share_of(images: Images, share: range) -> CachedShare:
    """What this process tells the others."""
    positions = np.array(share, dtype=np.int64)[images.taken]
    if isinstance(images, CachedImages):
        return CachedShare(positions, list(images.keys), list(images.views))
    return CachedShare(positions, list(images.contents or ()), [])


def _merged(shares: list[CachedShare]) -> CachedShare:
    """The shares of all processes as one, in the order of the split."""
    positions = np.concatenate([share.positions for share in shares])
    order = np.argsort(positions, kind="stable")
    keys, views = ([item for share in shares for item in getattr(share, name)] for name in ("keys", "views"))
    return CachedShare(
        positions[order], [keys[at] for at in order] if keys else [], [views[at] for at in order] if views else []
    )


def _images(
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    options: CacheOptions,
    views: Mapping[str, Views],
    gathered: dict[str, CachedShare],
) -> dict[str, Images]:
    """The images of all splits, from what all processes found."""
    total = sum(len(share.positions) for share in gathered.values())
    cache = FeatureCache(captioner, options, total, any(of_split.fresh_each_epoch for of_split in views.values()))
    made: dict[str, Images] = {}
    for name, share in gathered.items():
        used = ChosenSamples(splits[name], share.positions)
        if cache.store is None:
            split_views = views.get(name, PLAIN)
            made[name] = LiveImages(used, captioner.image_spec, options.max_pixels, split_views, options.workers)
            made[name].contents = share.keys
        else:
            if any(key not in cache.store for key in share.keys):
                raise DataError(
                    f"{options.folder}: not all processes see the same features there; set CAPTRAIN_CACHE to a folder "
                    "that all machines share, train from a store (captrain encode), or use --cache-features off"
                )
            made[name] = CachedImages(used, share.keys, cache.store, cache.kind, share.views)
        made[name].taken = share.positions
    return made
