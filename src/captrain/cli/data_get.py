"""`captrain data get`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.show import exit_code, show_table
from captrain.cli.switch import Switch
from captrain.errors import UserError

if TYPE_CHECKING:
    from captrain.data.get.fetch import Fetched
    from captrain.data.get.plan import Plan, Step

Name = Literal["coco-karpathy", "flickr8k", "flickr30k", "cc3m", "nocaps"]


def get(
    name: Name,
    folder: Path | None = None,
    /,
    *,
    mirror: str = "",
    local: Annotated[Path | None, Parameter(name="--from")] = None,
    annotations_only: Switch = False,
    yes: Switch = False,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=256))] = 16,
) -> int:
    """Fetch a known data set: says what, from where, how large and under which licence, asks, then fetches.

    The same command goes on where an interrupted one stopped.

    Args:
        name: Which data set.
        folder: Where to put it. Default: a folder of the data set's name.
        mirror: Address of a folder that has the files under the same names, instead of the source.
        local: Folder with a copy of the files, or of the pictures alone (they stay there; train with --image-root).
        annotations_only: Leave out the pictures.
        yes: Do not ask.
        workers: Pictures fetched at a time, where each has an address of its own.
    """
    from captrain.data.get.fetch import fetch_data_set
    from captrain.data.get.plan import make_plan

    plan = make_plan(name, folder or Path(name), mirror=mirror, local=local, annotations_only=annotations_only)
    show_plan(plan)
    if plan.to_fetch and not yes:
        _ask()
    fetched = fetch_data_set(plan, workers)
    show_result(plan, fetched, annotations_only)
    return exit_code(fetched.failed)


def show_plan(plan: Plan) -> None:
    """What would be fetched, from where, how large, under which licence."""
    rows = [_file_row(step) for step in plan.steps]
    for listed in plan.lists:
        source = "the addresses in it" if listed.own_hosts or not plan.mirror else plan.mirror
        rows.append((f"{listed.count:,} pictures of {listed.table}", f"about {size(listed.size)}", source, "none"))
    show_table(rows, header=("file", "size", "from", "checksum"))
    facts = [
        ("data set", plan.data_set.title),
        ("licence", plan.data_set.licence),
        ("about it", plan.data_set.page),
        ("to fetch", size(plan.to_fetch) if plan.to_fetch else "nothing"),
        ("disk", f"about {size(plan.room)}, into {plan.folder}"),
    ]
    if plan.image_root:
        facts.append(("pictures", f"stay in {plan.image_root}"))
    show_table(facts)


def show_result(plan: Plan, fetched: Fetched, annotations_only: bool) -> None:
    """What is there now, and how to train on it."""
    rows = [("pictures", f"{sum(outcome.there for outcome in fetched.lists):,}")] if fetched.lists else []
    for outcome in fetched.lists:
        if outcome.failed:
            rows.append(("failed", f"{outcome.failed:,} (listed in {outcome.failures})"))
    if plan.data_set.request and not plan.image_root and not annotations_only:
        rows.append(
            ("pictures", f"are handed out by hand: ask at {plan.data_set.request}, unpack them, then --from FOLDER")
        )
    root = f" --image-root {plan.image_root}" if plan.image_root else ""
    rows.append(("train on it", f"captrain train {plan.folder} RUN{root}"))
    show_table(rows)


def size(count: int) -> str:
    """Bytes for people.

    >>> size(13_510_573_713), size(3_000_000)
    ('13.5 GB', '3.0 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _file_row(step: Step) -> tuple[str, str, str, str]:
    from captrain.data.shards.remote import shown_url

    file = step.file
    length = f"{'' if file.exact else 'about '}{size(file.size)}"
    checksum = file.checksum.partition(":")[0] or "noted when it comes first"
    where = {"web": shown_url(step.place), "local": step.place, "here": "is here already"}[step.source]
    return file.name, length, where, checksum


def _ask() -> None:
    """Go on only if the user says so."""
    if not sys.stdin.isatty():
        raise UserError("found no terminal to ask on, expected --yes: the list above says what would be fetched")
    if input("Fetch it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was fetched, as the answer was not y")
