"""The page: everything asked for is on it, nothing hostile gets through, nothing is requested from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from captrain.report.curves import Chart, Line
from captrain.report.page import (
    Card,
    Evolution,
    Gallery,
    Headline,
    Note,
    ReportData,
    Table,
    agreement,
    confidence,
    render,
)
from captrain.report.pictures import Picture

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\" onmouseover='alert(1)' {{ 7 * 7 }} </style>"
PIXEL = Picture(b"pixel", "png", 8, 8, crisp=True)


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def full(text: str) -> ReportData:
    """A report in which every part holds the text."""
    return ReportData(
        title=text,
        subtitle=text,
        headlines=(Headline(text, text, text),),
        explained=(text,),
        commands=((text, text),),
        facts=((text, text),),
        charts=(Chart(text, (Line(text, [1, 2, 3], [3.0, 2.0, 1.0], noisy=True), Line(text, [2], [2.5])), 2, text),),
        evolutions=(Evolution(text, ((text, text, -0.5), (text, "", None)), PIXEL, (text,), ((text, text, None),)),),
        galleries=(Gallery(text, (Card(text, text, PIXEL, -0.2, (text,), True), Card("", text, right=False)), text),),
        tables=(Table(text, (text, text), ((text, text),), open=True),),
        notes=(Note(text, (text,)), Note(text)),
    )


def test_every_part_is_shown() -> None:
    page = render(full("flower"))
    tags = Tags(page)
    assert len(tags.named("svg")) == 2  # the large chart, for broad and for narrow windows
    assert [image["src"] for image in tags.named("img")] == [PIXEL.uri] * 2
    assert all("crisp" in str(image["class"]) for image in tags.named("img"))
    for expected in ("82% sure", "61% sure", "no picture", "(empty)", "smoothed", "best checkpoint, step 2"):
        assert expected in page
    assert [attributes["class"] for attributes in tags.named("span") if "badge" in str(attributes.get("class"))] == [
        "badge right",
        "badge wrong",
    ]


def test_hostile_text_stays_text() -> None:
    plain, hostile = Tags(render(full("plain"))), Tags(render(full(HOSTILE)))
    assert [tag for tag, _ in hostile.found if tag != "mark"] == [tag for tag, _ in plain.found if tag != "mark"]
    assert not any(name.startswith("on") for _, attributes in hostile.found for name in attributes)
    assert "<script>alert" not in render(full(HOSTILE))


def test_nothing_is_requested_and_only_our_script_may_run() -> None:
    page = render(full("flower"))
    tags = Tags(page)
    for _, attributes in tags.found:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert str(attributes.get(name) or "#").startswith(("data:image/", "#"))
    assert not tags.named("link") and not tags.named("iframe") and "@import" not in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = str(next(meta["content"] for meta in tags.named("meta") if meta.get("http-equiv")))
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_an_empty_report_is_a_page_too() -> None:
    page = render(ReportData("nothing yet"))
    assert "<h1" in page and "<section" not in page and page.rstrip().endswith("</html>")


def test_half_a_surrogate_pair_can_be_written() -> None:
    assert "a ? cat" in render(ReportData("a \ud83d cat"))


@pytest.mark.parametrize(
    ("score", "percent"), [(0.0, 100), (-0.6931, 50), (-50.0, 0), (3.0, 100), (None, None), (float("nan"), None)]
)
def test_confidence(score: float | None, percent: int | None) -> None:
    assert confidence(score) == percent


def test_agreement_keeps_the_text_and_finds_shared_words() -> None:
    pieces = agreement("The dog, a DOG runs!", ["two dogs", "a dog runs."])
    assert "".join(piece for piece, _ in pieces) == "The dog, a DOG runs!"
    assert [piece for piece, shared in pieces if shared] == ["dog,", "DOG", "runs!"]
    assert agreement("", ["a dog"]) == []


def test_extra_parts_come_first() -> None:
    run = ReportData("run", "sub", headlines=(Headline("CIDEr", "0.8"),), notes=(Note("n"),))
    both = run.with_extra(ReportData("", "demo", headlines=(Headline("right", "94%"),)))
    assert (both.title, both.subtitle, both.notes) == ("run", "demo", run.notes)
    assert [headline.label for headline in both.headlines] == ["right", "CIDEr"]
