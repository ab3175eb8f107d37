"""Which pictures of a data set a run held out, which it was trained on, and which it has never seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from captrain.data.picture_files import content_keys
from captrain.data.samples import ChosenSamples, exact_keys_of
from captrain.data.splits import KeptSplit, KeptSplits, captions_mark, known, numbers
from captrain.records import Sample


@dataclass(frozen=True, slots=True)
class HeldOutFacts:
    """What is known of the pictures of an evaluation, by their number.

    `held_out`: in the run's split. `gone`: of these, no longer there. `renamed`, `changed`: of these, scored under another
    name, or with other content. `new`: neither trained on nor held out. `copies`: of pictures of the run, under new names, and
    not scored. `trained_on`: scored, although the run has learned from them. `left_out`: in the split, but by content
    trained on, and not scored. `recaptioned`: scored by other captions than in training. `unknown`: scored, and their content
    can't be compared with what was trained on.
    """

    split: str
    scored: int
    held_out: int = 0
    gone: int = 0
    renamed: int = 0
    changed: int = 0
    new: int = 0
    copies: int = 0
    trained_on: int = 0
    left_out: int = 0
    recaptioned: int = 0
    unknown: int = 0
    first_gone: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object, without empty entries."""
        return {name: value for name, value in asdict(self).items() if value and name != "first_gone"}

    def warnings(self) -> Iterator[str]:
        """What distorts the scores, in sentences."""
        if self.gone:
            first = f" (first: {self.first_gone})" if self.first_gone else ""
            of = f"{self.gone} of {self.held_out} {self.split} pictures of the run"
            yield f"{of} are not there any more, or have no caption{first}"
        if self.renamed:
            yield f"{self.renamed} have another name than in training; their content tells them"
        if self.changed:
            yield f"{self.changed} have other content than in training, under the same name"
        if self.recaptioned:
            yield f"{self.recaptioned} have other captions than in training, by which they are scored now"
        if self.unknown:
            of = f"{self.unknown} of {self.scored} pictures"
            yield f"whether {of} were trained on is not known: their content can't be compared"
        if self.trained_on:
            yield (
                f"{self.trained_on} of {self.scored} pictures scored were trained on: "
                "scores on them say little about new pictures"
            )

    def remarks(self) -> Iterator[str]:
        """What was not scored, in sentences."""
        if self.new:
            yield (
                f"{self.new} pictures are in none of the run's splits (new since the training, or left out of it), and are not "
                "scored (--split all scores everything)"
            )
        if self.copies:
            yield f"{self.copies} pictures are copies of the run's pictures under new names, and are not scored"
        if self.left_out:
            yield f"{self.left_out} pictures that were held out have the content of one that was trained on, and are not scored"


def pick(
    kept: KeptSplits, split: str, pool: Sequence[Sample], comparable: bool = True
) -> tuple[Sequence[Sample], HeldOutFacts]:
    """The pictures of one of a run's splits, found again in its data, in the split's order.

    A picture is identified by name; if the name is gone, its content is looked for under new names. New pictures are not in the
    split, and neither are pictures whose content is now that of a training picture.

    Args:
        pool: where to look, with ids as in training. Of two pictures of the same id the first counts.
        comparable: equal ids in different splits mean the same picture. Not so where the splits are of different data sets.
    """
    wanted, keys = kept.part(split), exact_keys_of(pool)
    firsts = np.zeros(len(keys), dtype=bool)
    firsts[np.unique(keys, return_index=True)[1]] = True
    held = np.flatnonzero(firsts & np.isin(keys, wanted.keys))
    of_run = np.concatenate([part.keys for part in (kept.parts.values() if comparable else [wanted])])
    unknown = np.flatnonzero(firsts & ~np.isin(keys, of_run))
    places = _places(wanted.keys, keys[held])
    gone = np.setdiff1d(np.arange(len(wanted)), places)
    renamed, renamed_places, copies = _renamed(kept, wanted, gone, pool, unknown)
    fits, changed, seen = _compared(kept, split, pool, held, wanted.contents[places], keys, comparable)
    found, order = np.concatenate([held[fits], renamed]), np.concatenate([places[fits], renamed_places])
    lost, order_of_split = np.setdiff1d(gone, renamed_places), np.argsort(order, kind="stable")
    samples, marks = ChosenSamples(pool, found[order_of_split]), wanted.captions[order[order_of_split]]
    told = HeldOutFacts(
        split, scored=len(found), held_out=len(wanted), gone=len(lost), renamed=len(renamed), changed=changed,
        new=len(unknown) - len(renamed) - copies, copies=copies, left_out=int((~fits).sum()),
        trained_on=len(found) if split == "train" else seen, recaptioned=_recaptioned(samples, marks),
        first_gone=wanted.ids[lost[0]] if len(lost) and wanted.ids else "",
    )  # fmt: skip
    return samples, told


def sift(
    kept: KeptSplits, split: str, samples: Sequence[Sample], by_id: bool, whole: bool
) -> tuple[Sequence[Sample], HeldOutFacts]:
    """Pictures of any data set, and how many of them a run was trained on, compared by content.

    Where a whole data set has both pictures that were trained on and such as were held out as `split`, it is the run's data in
    another place: then only what was held out is taken.

    Args:
        by_id: equal ids mean the same picture too, as in the run's own data.
        whole: these are all pictures of a data set, of which none are named for an evaluation.
    """
    trained_ids, trained_contents = kept.trained()
    trained = np.isin(exact_keys_of(samples), trained_ids) if by_id else np.zeros(len(samples), dtype=bool)
    unsure = np.flatnonzero(~trained)
    contents = np.zeros(len(samples), np.uint64)
    found = content_keys(ChosenSamples(samples, unsure))
    if found is not None:
        contents[unsure] = numbers(found)
    trained |= np.isin(contents, trained_contents)
    wanted = kept.part(split)
    of_split = np.isin(contents, known(wanted.contents))
    held = ~trained & of_split
    if not (whole and trained.any() and held.any()):
        unknown = len(unsure) if found is None else 0
        return samples, HeldOutFacts("", scored=len(samples), trained_on=int(trained.sum()), unknown=unknown)
    gone, new = int((~np.isin(known(wanted.contents), contents)).sum()), int((~trained & ~held).sum())
    left_out = int((trained & of_split).sum())
    told = HeldOutFacts(split, scored=int(held.sum()), held_out=len(wanted), gone=gone, new=new, left_out=left_out)
    return ChosenSamples(samples, np.flatnonzero(held)), told


def _recaptioned(samples: Sequence[Sample], marks: np.ndarray) -> int:
    """How many pictures have other captions than those that the marks are of."""
    if not marks.any():
        return 0
    return sum(0 < mark != captions_mark(sample.captions) for sample, mark in zip(samples, marks.tolist(), strict=True))


def _places(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The position of each wanted key in the unsorted `keys`, which contain them all."""
    order = np.argsort(keys, kind="stable")
    return order[np.searchsorted(keys[order], wanted)] if len(wanted) else np.empty(0, np.int64)


def _renamed(
    kept: KeptSplits, wanted: KeptSplit, gone: np.ndarray, pool: Sequence[Sample], unknown: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pictures of unknown names with the content of one that is gone: their positions, their places in the split.

    The third is how many others of unknown names are copies of the run's pictures. If nothing is gone, nothing is read.
    """
    lost = gone[(wanted.contents[gone] != 0) & ~np.isin(wanted.contents[gone], kept.trained()[1])]
    sought = dict(zip(wanted.contents[lost].tolist(), lost.tolist(), strict=True))
    if not sought or not len(unknown):
        return np.empty(0, np.int64), np.empty(0, np.int64), 0
    contents = numbers(content_keys(ChosenSamples(pool, unknown)) or [""] * len(unknown))
    found: dict[int, int] = {}
    for position, content in zip(unknown.tolist(), contents.tolist(), strict=True):
        if content in sought:
            found.setdefault(sought[content], position)
    every = known(np.concatenate([part.contents for part in kept.parts.values()]))
    copies = int(np.isin(contents, every).sum()) - len(found)
    return np.array([*found.values()], np.int64), np.array([*found], np.int64), copies


def _compared(
    kept: KeptSplits, split: str, pool: Sequence[Sample], held: np.ndarray, before: np.ndarray, keys: np.ndarray,
    comparable: bool,
) -> tuple[np.ndarray, int, int]:  # fmt: skip
    """Which of the pictures held out are so still; how many of these have changed; how many the run has learned from too."""
    fits = np.ones(len(held), dtype=bool)
    if split == "train":
        return fits, 0, 0
    ids, contents = kept.trained()
    now = numbers(content_keys(ChosenSamples(pool, held)) or [""] * len(held))
    changed = (now != before) & (now != 0) & (before != 0)
    seen = np.isin(now, contents)
    fits = ~(changed & seen)
    if comparable:
        seen |= np.isin(keys[held], ids)
    return fits, int((changed & fits).sum()), int((seen & fits).sum())
