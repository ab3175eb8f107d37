"""What a run trains on and what it holds out, written down picture by picture: later evaluations go by it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from captrain.data.content import content_keys
from captrain.data.dataset import Splits
from captrain.data.kept_splits import (
    EARLIER,
    FILE,
    Rows,
    known,
    mark_of,
    numbers,
    read_trained,
    run_folder_of,
    write_kept_splits,
)
from captrain.data.samples import contents_of, ids_of
from captrain.features.images import Images
from captrain.records import Sample

logger = logging.getLogger(__name__)


def keep_splits(run: Path, images: dict[str, Images], splits: Splits, model: str | None, goes_on: bool) -> None:
    """Write ids and content keys of all pictures, by split, into a run folder.

    Args:
        images: those that are used of each split. splits: for the pictures to test on.
        model: what the training began with. If it is a run, what that was trained on is kept as trained on earlier.
        goes_on: the run has a checkpoint. What it was trained on before its data changed is kept as trained on earlier.
    """
    contents = {name: _contents(images[name]) for name in images}
    before = run_folder_of(model) if model else None
    earlier = list(
        _without(
            chain(read_trained(run) if goes_on else (), read_trained(before) if before else ()),
            contents["train"] or (),
        )
    )
    held = images["validation"].samples
    rows = {
        "train": Rows(ids_of(images["train"].samples), contents["train"]),
        "validation": Rows(ids_of(held), contents["validation"], _marks(held)),
        "test": Rows(ids_of(splits.test), content_keys(splits.test), _marks(splits.test)),
        EARLIER: Rows([id for id, _ in earlier], [content for _, content in earlier]),
    }
    write_kept_splits(run / FILE, rows)
    _warn(contents["validation"] or (), [content for _, content in earlier], str(before))


def _contents(images: Images) -> list[str] | None:
    """Content keys of the pictures, as far as they are known."""
    if images.contents is not None:
        return list(images.contents)
    found = contents_of(images.samples)
    return None if found is None else list(found)


def _marks(samples: Sequence[Sample]) -> Iterator[int]:
    """Marks of the captions of each picture."""
    return (mark_of(sample.captions) for sample in samples)


def _without(trained: Iterable[tuple[str, str]], now: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The pictures, told by content, that are not trained on now; each once. Ids tell nothing across data sets."""
    seen = set(now)
    for id, content in trained:
        if content and content not in seen:
            seen.add(content)
            yield id, content


def _warn(validation: Iterable[str], earlier: Iterable[str], before: str) -> None:
    """Say how many validation pictures the training's beginning has learned from."""
    held = numbers(validation)
    seen = int(np.isin(held, known(numbers(earlier))).sum())
    if seen:
        logger.warning(
            "%d of %d validation pictures were trained on earlier (by %s): scores on them say little about new pictures",
            seen, len(held), before if before != "None" else "this run, before its data changed",
        )  # fmt: skip
