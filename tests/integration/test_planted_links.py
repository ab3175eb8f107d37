"""Links planted where each command writes: what they lead to stays as it was, and one clear line says why.

Which names a command writes is not listed here: it is seen in an undisturbed run, so that a new one can't be forgotten.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_tools import QUICK, Cli

from captrain.data.machine_captions import FILE, HOME
from captrain.disk.temporary_files import TEMPORARY, clear_litter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")

NEW = {
    "caption": "caption {blip} photos --existing overwrite",
    "caption into one file": "caption {blip} photos --output out/c.jsonl",
    "caption by an engine": "caption {blip} photos --output out/c.jsonl --engine local",
    "evaluate": "evaluate {blip} photos --output out",
    "sidecar": "data convert photos out --to sidecar",
    "kohya": "data convert photos out --to kohya",
    "coco": "data convert photos out --to coco",
    "csv": "data convert photos out --to csv",
    "parquet": "data convert photos out --to parquet",
    "webdataset": "data convert photos out --to webdataset",
    "metadata-jsonl": "data convert photos out --to metadata-jsonl",
    "compile": "data compile captioned",
    "compile elsewhere": "data compile captioned out",
    "preview": "data preview photos out.html",
    "check": "data check captioned",
    "encode": "encode photos out --encoder {blip}",
    "export": "export {blip} out",
    "export as an archive": "export {blip} out.zip",
    "save document frequencies": "score said.jsonl references.json --save-document-frequencies out.gz",
    "train": "train photos out --model {blip} --epochs 1 --trackers tensorboard " + QUICK,
}
"""What is written into folders where nothing was; `out` is what a person names."""
SENT = {
    "go on": "train {photos} run --model {blip} --validation-share 0.25 --epochs 2 --keep memory " + QUICK,
    "begin anew": "train photos run --model {blip} --epochs 1 --overwrite " + QUICK,
    "evaluate": "evaluate run photos",
    "report": "report run",
}
"""What is written into a run that somebody sent."""


PREDICTABLE = {
    "go on": (
        "checkpoints/.writing",
        "checkpoints/checkpoint-1",
        "model.new",
        "model.old",
        ".base.new",
        "tensorboard",
        "test",
    ),
    "begin anew": ("checkpoints/.writing", "model.new", "base", "evaluation", "wandb", "splits.jsonl.gz"),
    "evaluate": (
        "evaluation",
        "evaluation/scores.json",
        "evaluation/predictions.jsonl",
        "evaluation/coco-results.json",
    ),
    "report": ("report.html",),
}
"""Names in a run that a stranger can guess, beside those that are there."""


class Opened:
    """Names that this process opens to write, and folders that it makes, while it `watches`."""

    def __init__(self) -> None:
        self.watching = False
        self.unsafe: list[str] = []
        self.made: set[str] = set()
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[object, ...]) -> None:
        if not self.watching or not args or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if event == "os.mkdir":
            self.made.add(path)
        elif event in ("os.truncate", "os.chmod") and not self._is_fresh(path):
            self.unsafe.append(f"{event} {path}")
        elif event == "open" and isinstance(flags := args[2], int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            if self.unsafe and self.unsafe[-1] == path and args[1] is None and flags & os.O_NOFOLLOW:
                self.unsafe.pop()  # `open` tells its own flags first, then its opener those that count
            elif not (flags & os.O_NOFOLLOW or self._is_fresh(path)) or (flags & os.O_TRUNC and path in self.made):
                self.unsafe.append(path)

    def _is_fresh(self, path: str) -> bool:
        """Whether a path is a device, of a random name, or in a folder that was made meanwhile."""
        random = any(TEMPORARY.fullmatch(part) for part in Path(path).parts)
        return random or path.startswith("/dev/") or any(path.startswith(f"{made}/") for made in self.made)

    @contextmanager
    def watches(self) -> Iterator[None]:
        self.watching, self.unsafe, self.made = True, [], set()
        try:
            yield
        finally:
            self.watching = False


@pytest.fixture(scope="session")
def opened() -> Opened:
    return Opened()


@pytest.fixture
def place(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a folder with pictures to work in, and victims beside it. Nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(photos, folder / "photos")
        (folder / "captioned").mkdir()
        for picture in sorted(photos.glob("*.png"))[:4]:
            shutil.copyfile(picture, folder / "captioned" / picture.name)
            (folder / "captioned" / picture.with_suffix(".txt").name).write_text("a dog runs\n")
        (folder / "captioned" / "broken.png").write_bytes(b"")
        (folder / "said.jsonl").write_text('{"id": "a", "text": "a dog"}\n')
        (folder / "references.json").write_text('{"a": ["a dog"]}\n')
        (folder / "victims").mkdir()
        (folder / "victims" / "mine.txt").write_text("half a line of mine")
        (folder / "victims" / "folder").mkdir()
        (folder / "victims" / "folder" / "mine.txt").write_text("mine too")
        monkeypatch.chdir(folder)
        clear_litter.cache_clear()
        return folder

    return make


def contents(folder: Path) -> dict[str, bytes | None]:
    """All below a folder, without going through links."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            is_file = path.is_file() and not path.is_symlink()
            found[path.relative_to(folder).as_posix()] = path.read_bytes() if is_file else None
    return found


def unharmed(folder: Path) -> bool:
    """Whether the victims are as they were."""
    return contents(folder / "victims") == {
        "mine.txt": b"half a line of mine", "folder": None, "folder/mine.txt": b"mine too",
    }  # fmt: skip


def plant(folder: Path, name: str, victim: str) -> bool:
    """Make a name a link to a victim, in place of what is there; whether that was possible."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    path.symlink_to(folder / "victims" / victim)
    return True


@pytest.mark.parametrize("command", NEW)
def test_no_link_is_followed_where_files_are_made(
    cli: Cli, blip: Path, opened: Opened, place: Callable[[str], Path], command: str
) -> None:
    words = NEW[command].format(blip=blip)
    here = place("undisturbed")
    before = contents(here)
    with opened.watches():
        done = cli("-q", words)
    assert done.code in (0, 3), done.err
    assert opened.unsafe == []
    made = _some({name: content is None for name, content in contents(here).items() if before.get(name, 0) != content})
    assert made
    for number, (name, is_folder) in enumerate(made.items()):
        if is_folder and "/" not in name and command != "check":
            continue  # the folder that a person names may be a link
        there = place(str(number))
        assert plant(there, name, "folder" if is_folder else "mine.txt")
        done = cli("-q", words)
        assert unharmed(there), f"{command}: {name}"
        assert done.code in (2, 3), f"{command}: {name}: {done.out}{done.err}"
        assert len(done.err.splitlines()) == 1, done.err
        assert (there / name).is_symlink()


@pytest.mark.parametrize("command", SENT)
def test_no_link_is_followed_in_a_run_that_somebody_sent(
    cli: Cli, blip: Path, photos: Path, trained: Path, place: Callable[[str], Path], command: str
) -> None:
    words = SENT[command].format(blip=blip, photos=photos)
    names = [name for name in contents(trained) if "/" not in name] if command in ("go on", "begin anew") else []
    names += [*PREDICTABLE[command]]
    there = place("there")
    for name in dict.fromkeys(names):
        _sent(trained, there)
        plant(
            there, f"run/{name}", "mine.txt" if Path(name).suffix in (".json", ".jsonl", ".gz", ".html") else "folder"
        )
        done = cli("-q", words)
        assert unharmed(there), name
        assert done.code == 2, f"{name}: {done.err}"
        assert len(done.err.splitlines()) == 1, done.err
        assert name.split("/")[0] in done.err or name == "settings.yaml"  # without it there is no run


@pytest.mark.parametrize("command", SENT)
def test_links_deep_in_a_run_lead_nowhere(
    cli: Cli, blip: Path, photos: Path, trained: Path, place: Callable[[str], Path], command: str
) -> None:
    there = place("there")
    _sent(trained, there)
    deep = [name for name, content in contents(trained).items() if name.count("/") > 1 and content is not None]
    for name in deep:
        plant(there, f"run/{name}", "mine.txt")
        plant(there, f"run/{name}.tmp", "mine.txt")
        plant(there, f"run/{Path(name).parent}/{HOME}", "folder")
    done = cli("-q", SENT[command].format(blip=blip, photos=photos))
    assert unharmed(there)
    assert "Traceback" not in done.err


def _some(names: dict[str, bool]) -> dict[str, bool]:
    """Two of each folder and ending; event files have random names."""
    kept: dict[str, bool] = {}
    alike: Counter[tuple[Path, str]] = Counter()
    for name, is_folder in names.items():
        alike[kind := (Path(name).parent, Path(name).suffix)] += 1
        if alike[kind] <= 2 and "tfevents" not in name and name.count("/") <= 2:
            kept[name] = is_folder
    return kept


def _sent(trained: Path, there: Path) -> None:
    """A run that was not finished, as somebody sends it."""
    shutil.rmtree(there / "run", ignore_errors=True)
    shutil.copytree(trained, there / "run")
    (there / "run" / "finished.json").unlink()


@pytest.mark.parametrize("existing", ["append", "prepend", "overwrite", "skip"])
def test_no_content_is_read_through_a_link(cli: Cli, blip: Path, place: Callable[[str], Path], existing: str) -> None:
    there = place("there")
    (there / "captioned" / "photo-000.txt").unlink()
    plant(there, "captioned/photo-000.txt", "mine.txt")
    assert cli("-q", f"caption {blip} captioned --existing {existing}").code == 3
    listed = (there / "captrain-rejected.jsonl").read_text()
    assert "photo-000" in listed
    for to in ("sidecar", "kohya", "metadata-jsonl", "coco"):
        assert cli("-q", f"data convert captioned out-{to} --to {to}").code == 3
    assert unharmed(there)
    found = contents(there)
    assert not [
        name for name, content in found.items() if b"half a line of mine" in (content or b"") and name[:3] != "vic"
    ]


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "pipe"])
def test_a_planted_ledger_is_neither_read_nor_written(
    cli: Cli, blip: Path, place: Callable[[str], Path], what: str
) -> None:
    there = place("there")
    ledger = there / "photos" / HOME / FILE
    if what == "link to a folder":
        plant(there, f"photos/{HOME}", "folder")
    elif what == "link to a file":
        plant(there, f"photos/{HOME}/{FILE}", "mine.txt")
    else:
        ledger.parent.mkdir()
        os.mkfifo(ledger)
    done = cli("-q", f"caption {blip} photos --extension .cap")
    assert done.code == 3
    assert "captrain does not write through links" in done.err or "is a device or pipe" in done.err
    assert unharmed(there)
    assert cli("-q", "data check photos").code in (0, 3)


@pytest.mark.parametrize("ending", [".tmp", ".partial", ".part", "~"])
def test_guessed_names_beside_pictures_lead_nowhere(
    cli: Cli, blip: Path, place: Callable[[str], Path], ending: str
) -> None:
    there = place("there")
    for picture in sorted((there / "photos").glob("*.png")):
        for begin in ("", "."):
            plant(there, f"photos/{begin}{picture.stem}.txt{ending}", "mine.txt")
    cli("-q", f"caption {blip} photos")
    assert unharmed(there)
    assert len(list((there / "photos").glob("photo-*.txt"))) == 12
