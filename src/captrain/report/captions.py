"""What a run wrote about pictures: captions that grew during training, and captions of the finished model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from captrain.report.logs import Problems, finite, keep, read_lines
from captrain.report.page import Card, Evolution, Gallery
from captrain.report.pictures import Picture, thumbnail

MOST_EVOLUTIONS = 12
MOST_MOMENTS = 4  # captions shown of one picture at first, the first and the last always among them
MOST_FOLDED = 100  # captions of one picture that are there when its history is unfolded
LONGEST_TEXT = 1000
MOST_REFERENCES = 10
LONGEST_PATH = 4096


def evolutions(run: Path, most: int, problems: Problems) -> tuple[Evolution, ...]:
    """samples.jsonl, picture by picture: at most `most` of them (and never more than 12), in the order of the file."""
    by_id: dict[str, dict[float, dict[str, Any]]] = {}
    most = min(most, MOST_EVOLUTIONS)
    for line in read_lines(run / "samples.jsonl", problems):
        id, step = text_of(line.get("id")), finite(line.get("step"))
        if step is None or (id not in by_id and len(by_id) >= most):
            continue
        keep(by_id.setdefault(id, {}), step, _shown(line, step))
    return tuple(_evolution(run, id, [lines[step] for step in sorted(lines)]) for id, lines in by_id.items())


def _shown(line: dict[str, Any], step: float) -> dict[str, Any]:
    """What is shown of a line."""
    image = line.get("image")
    return {
        "step": step,
        "text": text_of(line.get("text")),
        "score": finite(line.get("score")),
        "image": image if isinstance(image, str) and len(image) <= LONGEST_PATH else None,
        "references": list(_references(line)),
    }


def gallery(run: Path, most: int, problems: Problems) -> Gallery | None:
    """predictions.jsonl as cards: `most` of them, spread evenly over the file; None if there are no predictions."""
    path = run / "predictions.jsonl"
    total = sum(1 for _ in read_lines(path, Problems()))
    if not total or most <= 0:
        return None
    wanted = set(evenly(range(total), most))
    chosen = [line for place, line in enumerate(read_lines(path, problems)) if place in wanted]
    remark = f"{len(chosen):,} of {total:,}, spread evenly: not picked for looks." if total > len(chosen) else ""
    if any(_cider(line) is not None for line in chosen):
        chosen.sort(key=lambda line: _cider(line) or 0.0)
        remark = f"{remark} Lowest CIDEr first.".strip()
    marks = "Underlined words also occur in a reference." if any(line.get("references") for line in chosen) else ""
    return Gallery("Captions", tuple(_card(run, line) for line in chosen), f"{remark} {marks}".strip())


def evenly(items: Iterable[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spread, the first and the last among them.

    >>> evenly("abcdefg", 3), evenly("ab", 3)
    (['a', 'd', 'g'], ['a', 'b'])
    """
    every = list(items)
    if len(every) <= most:
        return every
    if most == 1:
        return every[-1:]
    return [every[round(place * (len(every) - 1) / (most - 1))] for place in range(most)]


def picture(run: Path, image: Any) -> Picture | None:
    """A thumbnail of the path that a line names (as it stands, or within the run folder); None if there is none."""
    if not isinstance(image, str) or not image:
        return None
    return thumbnail(Path(image)) or thumbnail(run / image)


def text_of(value: Any) -> str:
    """Any JSON value as text of bearable length."""
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def _card(run: Path, line: dict[str, Any]) -> Card:
    return Card(
        text=text_of(line.get("text")),
        id=text_of(line.get("id")),
        picture=picture(run, line.get("image")),
        score=finite(line.get("score")),
        references=_references(line),
        measured="" if (cider := _cider(line)) is None else f"CIDEr {cider:.2f}",
    )


def _cider(line: dict[str, Any]) -> float | None:
    """What a line says of its caption's CIDEr."""
    measured = line.get("measured")
    return finite(measured.get("cider")) if isinstance(measured, dict) else None


def _evolution(run: Path, id: str, lines: list[dict[str, Any]]) -> Evolution:
    moments = [
        (_steps([line["step"] for line in same]), text, finite(same[-1].get("score")))
        for text, same in _unchanged(lines)
    ]
    last = lines[-1]
    shown, every = tuple(evenly(moments, MOST_MOMENTS)), tuple(evenly(moments, MOST_FOLDED))
    return Evolution(
        id, shown, picture(run, last.get("image")), _references(last), every if len(every) > len(shown) else ()
    )


def _unchanged(lines: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Neighbouring lines with the same text, together."""
    for text, same in itertools.groupby(lines, lambda line: text_of(line.get("text"))):
        yield text, list(same)


def _steps(steps: list[float]) -> str:
    first, last = f"{steps[0]:,.0f}", f"{steps[-1]:,.0f}"
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _references(line: dict[str, Any]) -> tuple[str, ...]:
    found = line.get("references")
    return tuple(text_of(reference) for reference in found[:MOST_REFERENCES]) if isinstance(found, list) else ()
