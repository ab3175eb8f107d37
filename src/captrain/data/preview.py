"""A page of thumbnails with captions, to look through a data set: one HTML file that asks nothing of the network.

Captions, ids and file names are untrusted: the template escapes everything, and the page's own content security policy
forbids requests and all scripts but the one shipped here.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from captrain.data.check.check import Checked, checked_splits
from captrain.data.check.problems import KINDS, ProblemKind
from captrain.data.dataset import read_splits
from captrain.data.images import encode_thumbnail
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.samples import ChosenSamples
from captrain.data.splits import SPLIT_NAMES
from captrain.disk.locks import only_writer
from captrain.disk.writing import write_text
from captrain.errors import DataError, PictureError, nearest
from captrain.progress import track
from captrain.records import Rejects, Sample

EDGE = 256  # pixels of a thumbnail's longer edge


@dataclass(frozen=True, slots=True)
class PictureCard:
    """One picture of the page. `uri` is the thumbnail itself, "" if there can be none."""

    id: str
    split: str
    captions: tuple[str, ...]
    uri: str
    problems: tuple[tuple[ProblemKind, str], ...]


@dataclass(frozen=True, slots=True)
class Previewed:
    """What was written: pictures shown, pictures there, and how many of those shown have problems."""

    shown: int
    images: int
    with_problems: int


@only_writer("output")
def write_preview(
    source: str,
    output: Path,
    *,
    limit: int = 200,
    split: str | None = None,
    problems: bool = False,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    workers: int | None = None,
) -> Previewed:
    """Write a page of up to `limit` pictures, evenly spread over the data set, with what `check` finds about them.

    Args:
        split: only this one.
        problems: look over the whole data set, and show pictures that have problems before any others. Otherwise only
            the pictures shown are looked at, so that a duplicate shows only if both are there.

    Raises `DataError` if nothing is there, or no such split.
    """
    rejects = Rejects()
    named = _of_split(read_splits(source, rejects, format, options, captioned=False), split, source)
    images = sum(map(len, named.values()))
    if not problems:
        named = _thinned(named, limit)
    checked = checked_splits(named, rejects, workers=workers)
    chosen = _chosen(checked, limit)
    cards = _cards(checked, chosen)
    write_text(output, render_preview(source, images, cards, rejects))
    return Previewed(len(cards), images, sum(bool(card.problems) for card in cards))


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Positions of at most `limit` of `count` things, evenly spread.

    >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def render_preview(source: str, images: int, cards: Sequence[PictureCard], rejects: Rejects | None = None) -> str:
    """The page as HTML text, complete in itself.

    >>> "&lt;script&gt;" in render_preview("<script>", 0, [])
    True
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (folder / "preview.js").read_text(encoding="utf-8")
    page = environment.get_template("preview.html").render(
        title=Path(source).name or source,
        images=images,
        cards=cards,
        splits=_counted(card.split for card in cards),
        kinds=[(KINDS[name], count) for name, count in _kinds_of(cards).items()],
        rejects=rejects.lines if rejects else [],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")  # a name may hold half a surrogate pair


def _of_split(named: dict[str, Sequence[Sample]], split: str | None, source: str) -> dict[str, Sequence[Sample]]:
    if split is None:
        return named
    wanted = SPLIT_NAMES.get(split.lower(), split)
    if wanted not in named:
        names = ", ".join(f"'{name}'" for name in named)
        raise DataError(f"{source}: no split '{split}'; it has {names}.{nearest(split, named)}")
    return {wanted: named[wanted]}


def _thinned(named: dict[str, Sequence[Sample]], limit: int) -> dict[str, Sequence[Sample]]:
    """Of all splits together at most `limit` pictures."""
    positions = evenly_spaced(sum(map(len, named.values())), limit)
    thinned: dict[str, Sequence[Sample]] = {}
    start = 0
    for name, samples in named.items():
        own = positions[(positions >= start) & (positions < start + len(samples))] - start
        start += len(samples)
        if len(own):
            thinned[name] = ChosenSamples(samples, own)
    return thinned


def _chosen(checked: Checked, limit: int) -> list[int]:
    """Pictures with problems first, then others, in their order; each lot evenly spread where it is too large."""
    odd = np.zeros(checked.images, dtype=bool)
    odd[[finding.picture for finding in checked.findings if finding.picture >= 0]] = True
    if checked.images <= limit:
        return list(range(checked.images))
    found, others = np.flatnonzero(odd), np.flatnonzero(~odd)
    first = found[evenly_spaced(len(found), limit)] if len(found) else found
    rest = others[evenly_spaced(len(others), limit - len(first))] if len(first) < limit else others[:0]
    return [*first.tolist(), *rest.tolist()]


def _cards(checked: Checked, chosen: Sequence[int]) -> list[PictureCard]:
    """Cards in the order of `chosen`."""
    problems: dict[int, list[tuple[ProblemKind, str]]] = {picture: [] for picture in chosen}
    for finding in checked.findings:
        if finding.picture in problems:
            problems[finding.picture].append((KINDS[finding.kind], finding.detail))
    splits = np.repeat(list(checked.splits), list(checked.splits.values()))
    cards = []
    with track("thumbnails", len(chosen)) as advance:
        for picture in chosen:
            sample = checked.samples[picture]
            cards.append(
                PictureCard(sample.id, str(splits[picture]), sample.captions, _uri(sample), tuple(problems[picture]))
            )
            advance(1)
    return cards


def _uri(sample: Sample) -> str:
    """A thumbnail as an address that holds it; "" if the picture can't be read, which the check has reported."""
    try:
        small = encode_thumbnail(sample.read(), EDGE)
    except (PictureError, OSError):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}"


def _kinds_of(cards: Iterable[PictureCard]) -> dict[str, int]:
    """On how many cards each kind of problem is, in the order of `KINDS`."""
    counts = _counted(name for card in cards for name in {kind.name for kind, _ in card.problems})
    return {name: counts[name] for name in KINDS if name in counts}


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names))
