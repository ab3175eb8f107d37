"""How a step is cut does not matter: one batch or several accumulated, captions packed or one a row, features cached or live.

Through the command line, for each family, in fp32 and without dropout: the same loss at every step, to five digits.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_tools import Cli, lines_of, losses_of

from captrain.testing import tiny_photos

COMMON = "--validation-share 0 --device cpu --precision fp32 --log-every 1 --learning-rate 0.003 --epochs 4"
NEW = "--encoder {encoder} --decoder-layers 1 --decoder-width 32 --decoder-heads 4 --decoder-dropout 0"
FAMILIES = {
    "blip, lora": "--model {blip} --dropout 0",
    "blip, whole": "--model {blip} --method full",
    "encoder-decoder": NEW,
    "prefix": f"{NEW} --join prefix --prefix-length 3",
    "prefix, whole": f"{NEW} --join prefix --prefix-length 3 --no-freeze",
}
WHOLE = ("blip, whole", "prefix, whole")
CUTS = {"8 x 1": (8, 1), "4 x 2": (4, 2), "1 x 8": (1, 8)}
CLOSE = 1e-5


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos: a step of eight is an epoch. Their numbers of captions differ, so that batches differ in tokens."""
    folder = tiny_photos(tmp_path_factory.mktemp("eight") / "photos", count=8)
    table = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    few = [{**line, "captions": line["captions"][: 1 + number % 5]} for number, line in enumerate(lines)]
    table.write_text("".join(json.dumps(line) + "\n" for line in few))
    return folder


@pytest.fixture(scope="module")
def plain(eight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos with one caption each: a photo of five captions is there five times."""
    folder = tmp_path_factory.mktemp("plain")
    lines = []
    for line in lines_of(eight / "metadata.jsonl"):
        for number, caption in enumerate(line["captions"]):
            name = f"{number}-{line['file_name']}"
            shutil.copy(eight / line["file_name"], folder / name)
            lines.append(json.dumps({"file_name": name, "captions": [caption]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def known() -> dict[str, list[float]]:
    """By the command line, losses of a training that several tests compare with."""
    return {}


class Curve:
    """Trains and returns the losses of all steps; the same training is done once."""

    def __init__(self, cli: Cli, folder: Path, words: str, known: dict[str, list[float]]) -> None:
        self.cli, self.folder, self.words, self.known = cli, folder, words, known

    def __call__(self, name: str, photos: Path, changes: str) -> list[float]:
        key = f"{photos} {self.words} {changes}"
        if key not in self.known:
            run = self.folder / name.replace(" ", "")
            result = self.cli("-q train", photos, run, self.words, changes)
            assert result.code == 0, result.err
            self.known[key] = losses_of(run)
        return self.known[key]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture
def curve(family: str, cli: Cli, tmp_path: Path, blip: Path, encoder: Path, known: dict[str, list[float]]) -> Curve:
    """The losses of a training of that family."""
    words = FAMILIES[family].format(blip=blip, encoder=encoder)
    return Curve(cli, tmp_path, f"{words} {COMMON}", known)


def test_accumulated_batches(curve: Curve, eight: Path) -> None:
    """The loss is the mean over all tokens of a step, however many each of its batches has."""
    curves = {
        name: curve(name, eight, f"--batch-size {size} --accumulate {times}") for name, (size, times) in CUTS.items()
    }
    assert len(curves["8 x 1"]) == 4
    assert curves["8 x 1"][-1] < curves["8 x 1"][0]
    for name, losses in curves.items():
        assert losses == pytest.approx(curves["8 x 1"], rel=CLOSE), name


def test_packed_captions_are_one_row_each(curve: Curve, eight: Path, plain: Path) -> None:
    """All captions of a photo in one row, or a row for each caption with the photo repeated."""
    rows = len(lines_of(plain / "metadata.jsonl"))
    assert rows == 21
    packed = curve("8 x 1", eight, "--batch-size 8 --accumulate 1")
    assert curve("one row each", plain, f"--batch-size {rows}") == pytest.approx(packed, rel=CLOSE)


def test_kept_is_live(curve: Curve, family: str, eight: Path) -> None:
    """Features of a frozen encoder, else pixels, in memory, on disk, or computed at every step."""
    live = curve("live", eight, "--batch-size 4 --keep off")
    places = ("memory",) if family in WHOLE else ("memory", "disk")
    for keep in places:
        assert curve(keep, eight, f"--batch-size 4 --keep {keep}") == pytest.approx(live, rel=CLOSE), keep
