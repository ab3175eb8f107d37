"""`captrain.data.preview`: what the page shows, and what it must not do."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.data.preview import PictureCard, evenly_spaced, render_preview, write_preview
from captrain.errors import DataError

EVIL = '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7 * 7 }}'


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Twelve pictures; one has an evil caption, one none, one is broken."""
    folder = tmp_path / "album"
    for number in range(12):
        path = folder / ("train" if number < 6 else "test") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC).save(path)
        path.with_suffix(".txt").write_text(EVIL if number == 0 else f"caption {number}", encoding="utf-8")
    (folder / "train" / "01.txt").unlink()
    (folder / "test" / "11.png").write_bytes(b"broken")
    return folder


def kinds_of(page: str) -> list[str]:
    return [(card["data-kinds"] or "").strip() for card in Tags(page).of("article")]


def test_captions_names_and_folders_can_do_nothing() -> None:
    page = render_preview(EVIL, 1, [PictureCard(EVIL, EVIL, (EVIL, EVIL), "", ())])
    tags = Tags(page)
    assert len(tags.of("script")) == 1
    assert not tags.of("img")
    assert "{{ 7 * 7 }}" in page
    assert not [attributes for _, attributes in tags.tags if any(name.startswith("on") for name in attributes)]


def test_the_page_asks_nothing_of_the_network_and_runs_its_own_script_only(album: Path, tmp_path: Path) -> None:
    write_preview(str(album), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in tags.of("img"))
    assert not tags.of("link") and not tags.of("iframe")
    assert not re.search(r"(https?:)?//[a-z0-9]+\.[a-z]", re.sub(r"base64,[^\"]*", "", page))
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = next(meta["content"] for meta in tags.of("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_picture_is_there_small_with_its_problems(album: Path, tmp_path: Path) -> None:
    written = write_preview(str(album), tmp_path / "page.html")
    assert (written.shown, written.images, written.with_problems) == (12, 12, 2)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert sorted(filter(None, kinds_of(page))) == ["no-caption", "unreadable"]
    images = Tags(page).of("img")
    assert len(images) == 11
    data = base64.b64decode((images[0]["src"] or "").split(",")[1])
    assert max(Image.open(BytesIO(data)).size) == 256
    assert all(image["loading"] == "lazy" for image in images)


def test_a_limit_spreads_over_all_splits(album: Path, tmp_path: Path) -> None:
    written = write_preview(str(album), tmp_path / "page.html", limit=4)
    cards = Tags((tmp_path / "page.html").read_text(encoding="utf-8")).of("article")
    assert written.shown == len(cards) == 4
    assert {card["data-split"] for card in cards} == {"train", "test"}


def test_problems_come_first_when_asked_for(album: Path, tmp_path: Path) -> None:
    written = write_preview(str(album), tmp_path / "page.html", limit=3, problems=True)
    assert (written.shown, written.with_problems) == (3, 2)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert sorted(kinds_of(page)) == ["", "no-caption", "unreadable"]


def test_one_split(album: Path, tmp_path: Path) -> None:
    assert write_preview(str(album), tmp_path / "page.html", split="train").images == 6
    with pytest.raises(DataError, match=r"no split 'tset'; it has .* Did you mean 'test'"):
        write_preview(str(album), tmp_path / "page.html", split="tset")


def test_half_a_surrogate_pair_does_not_break_the_page() -> None:
    render_preview("x", 1, [PictureCard("a\ud800", "all", ("b\udfff",), "", ())]).encode("utf-8")


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (10, 3), (10, 10), (3, 10), (100_000, 200)])
def test_spread_gives_as_many_as_asked_for(count: int, limit: int) -> None:
    positions = evenly_spaced(count, limit)
    assert len(positions) == min(count, limit)
    assert 0 <= positions.min() <= positions.max() < count
