"""Files and folders that captrain writes: whole or not at all, through no link, and without litter of killed processes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captrain.data.writers import new_folder
from captrain.disk import temporary_files
from captrain.disk.folders import (
    aside,
    check_way,
    fresh_folder,
    link_tree,
    make_folder,
    make_folders,
    put_back,
    remove,
    replace_folder,
    sync_all,
    sync_tree,
)
from captrain.disk.locks import FOLDER_LOCK
from captrain.disk.temporary_files import TEMPORARY, clear_litter, temporary_name
from captrain.disk.writing import NewFile, check_target, new_file, open_to_append, read_own, write_bytes, write_text
from captrain.errors import DataError, UserError
from captrain.records import append_jsonl, drop_half_line, write_jsonl

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
SYSTEM_CALLS = ("open", "chmod", "fsync", "replace", "lstat", "close", "unlink", "link", "mkdir", "rename", "scandir")


@pytest.fixture(autouse=True)
def _looks_again() -> None:
    """Each test looks for litter as a new process would."""
    clear_litter.cache_clear()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Faults:
    """Runs work in a child whose chosen system call, the N-th of all, is the last (`kill`) or fails (`fail`)."""

    def __init__(self, at: int, kill: bool) -> None:
        self.left, self.kill = at, kill

    def _faulty(self, call: Callable[..., object]) -> Callable[..., object]:
        def faulty(*words: object, **named: object) -> object:
            self.left -= 1
            if self.left == 0:
                if self.kill:
                    os._exit(9)
                raise OSError(28, "No space left on device")
            return call(*words, **named)

        return faulty

    def run(self, work: Callable[[], object]) -> int:
        """9 killed, 1 failed, 0 done before it came so far."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for name in SYSTEM_CALLS:
                    setattr(os, name, self._faulty(getattr(os, name)))
                work()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@POSIX
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.none() | st.binary(max_size=40), new=st.binary(max_size=40), at=st.integers(1, 14), kill=st.booleans()
)  # fmt: skip
def test_an_interrupted_file_is_the_old_or_the_new(
    tmp_path_factory: pytest.TempPathFactory, old: bytes | None, new: bytes, at: int, kill: bool
) -> None:
    path = tmp_path_factory.mktemp("new") / "captions.txt"
    if old is not None:
        path.write_bytes(old)
    code = Faults(at, kill).run(lambda: write_bytes(path, new))
    found = path.read_bytes() if path.exists() else None
    assert found in (old, new)
    assert code or found == new
    clear_litter.cache_clear()
    write_bytes(path, new)
    assert path.read_bytes() == new
    assert names(path.parent) == ["captions.txt"]


@POSIX
@pytest.mark.parametrize("kill", [True, False])
@pytest.mark.parametrize("at", range(1, 40))
def test_an_interrupted_folder_is_the_old_or_the_new(tmp_path: Path, at: int, kill: bool) -> None:
    final = tmp_path / "photos"
    write_jsonl(_made(final) / "old.jsonl", [{"id": 1}])

    def work() -> None:
        with new_folder(final, [], overwrite=True) as folder:
            write_text(folder / "new.txt", "new")

    code = Faults(at, kill).run(work)
    if final.exists():
        assert [name for name in names(final) if name != FOLDER_LOCK] in (["old.jsonl"], ["new.txt"])
    else:
        assert code == 9  # between two renames: the next start puts the old one back, or makes the new one
    clear_litter.cache_clear()
    work()
    assert names(tmp_path) == ["photos"]
    assert names(final) == ["new.txt"]


def test_a_folder_that_was_set_aside_comes_back(tmp_path: Path) -> None:
    final = tmp_path / "photos"
    write_text(_made(final) / "old.txt", "old")
    os.replace(final, aside(final))  # what a kill between two renames leaves
    with pytest.raises(DataError, match="is there already"), new_folder(final, [], overwrite=False):
        pass
    assert names(final) == ["old.txt"]


def test_a_replacement_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    final = _made(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", final, aside(final))
    assert names(tmp_path) == ["model"]
    put_back(final, aside(final))


@POSIX
def test_permissions_and_umask(tmp_path: Path) -> None:
    kept, made = tmp_path / "kept.txt", tmp_path / "made.txt"
    kept.write_text("old")
    kept.chmod(0o640)
    before = os.umask(0o027)
    try:
        write_text(kept, "new")
        write_text(made, "new")
        append_jsonl(tmp_path / "log.jsonl", [{}])
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, made, tmp_path / "log.jsonl")] == [0o640] * 3


@POSIX
def test_other_names_of_a_file_keep_its_bytes(tmp_path: Path) -> None:
    log, backup = tmp_path / "log.jsonl", tmp_path / "backup.jsonl"
    log.write_text('{"a": 1}\n{"b"')
    os.link(log, backup)
    drop_half_line(log)
    append_jsonl(log, [{"c": 2}])
    assert (log.read_text(), backup.read_text()) == ('{"a": 1}\n{"c": 2}\n', '{"a": 1}\n{"b"')
    os.link(log, tmp_path / "again.jsonl")
    write_text(log, "")
    assert (tmp_path / "again.jsonl").read_text() == '{"a": 1}\n{"c": 2}\n'


WRITES: dict[str, Callable[[Path], object]] = {
    "write_text": lambda path: write_text(path, "new"),
    "new_file": lambda path: NewFile(path).finish(),
    "append": lambda path: append_jsonl(path, [{}]),
    "open_to_append": lambda path: open_to_append(path).close(),
    "drop_half_line": drop_half_line,
    "write_jsonl": lambda path: write_jsonl(path, []),
}


@POSIX
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", ["link", "dangling", "loop", "pipe", "folder"])
def test_what_is_no_file_is_not_written(tmp_path: Path, write: str, kind: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "target"
    victim.write_text("half a line")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "not-there")
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    before = names(tmp_path)
    with pytest.raises(UserError, match=r"is a link to|is a device or pipe|is a folder"):
        WRITES[write](path)
    assert victim.read_text() == "half a line"
    assert names(tmp_path) == before


@POSIX
def test_a_link_that_comes_while_a_file_is_written_stays(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "target"
    victim.write_text("mine")
    with pytest.raises(UserError, match="is a link"), new_file(path):
        path.symlink_to(victim)
    assert victim.read_text() == "mine"
    assert names(tmp_path) == ["target", "victim"]


@POSIX
def test_names_of_255_bytes(tmp_path: Path) -> None:
    for name in ("a" * 255, "é" * 127, "\U0001f415" * 63):
        write_text(tmp_path / name, "dog")
        with new_folder(tmp_path / f"{name[:-1]}f", [], overwrite=False) as folder:
            write_text(folder / name, "dog")
        assert (tmp_path / f"{name[:-1]}f" / name).read_text() == (tmp_path / name).read_text() == "dog"


@POSIX
def test_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    (tmp_path / temporary_name()).write_text("half")
    (_made(tmp_path / temporary_name()) / "deep").mkdir()
    planted = tmp_path / temporary_name()
    planted.symlink_to(_made(tmp_path / "victim"))
    write_text(tmp_path / "victim" / "mine.txt", "mine")
    os.mkfifo(pipe := tmp_path / temporary_name())
    others = [".captrain", ".captrain-12.partial", "captions.jsonl.partial"]
    for name in others:
        (tmp_path / name).write_text("")
    with new_file(tmp_path / "one.txt") as file, fresh_folder(tmp_path) as folder:
        held = {Path(file.name).name, folder.name}
        clear_litter.cache_clear()
        child = os.fork()  # another process, and this one has not ended
        if child == 0:
            try:
                write_text(tmp_path / "two.txt", "")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert set(names(tmp_path)) == {"victim", "two.txt", planted.name, pipe.name, *others, *held}
    assert set(names(tmp_path)) == {"victim", "one.txt", "two.txt", planted.name, pipe.name, *others}
    assert names(tmp_path / "victim") == ["mine.txt"]


@POSIX
def test_without_locks_only_what_is_a_day_old_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    young, old, deep = (tmp_path / temporary_name() for _ in range(3))
    young.write_text("")
    old.write_text("")
    (deep / "inner").mkdir(parents=True)
    (deep / "inner" / "young").write_text("")
    for path in (old, deep, deep / "inner"):
        os.utime(path, (time.time() - 2 * temporary_files.FORGOTTEN,) * 2)
    write_text(tmp_path / "one.txt", "")
    assert names(tmp_path) == sorted([young.name, deep.name, "one.txt"])


def test_a_large_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[object] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), real(path))[1])
    for number in range(20):
        write_text(tmp_path / f"{number}.txt", "")
    assert listed == [tmp_path]


@POSIX
def test_no_link_on_the_way(tmp_path: Path) -> None:
    run, elsewhere = _made(tmp_path / "run"), _made(tmp_path / "elsewhere")
    write_text(elsewhere / "mine.txt", "mine")
    make_folders(run / "a" / "b", run)
    (run / "a" / "link").symlink_to(elsewhere)
    (run / "named").symlink_to(elsewhere)
    write_text(run / "file", "")
    for fault in (
        lambda: make_folders(run / "a" / "link" / "c", run),
        lambda: check_way(run / "a" / "link", run),
        lambda: make_folders(run / "file" / "c", run),
        lambda: remove(run / "a" / "link"),
        lambda: link_tree(run / "a", tmp_path / "copy", copies=True),
    ):
        with pytest.raises(UserError, match=r"is a link to|is a file"):
            fault()
    make_folders(run / "named" / "sub", run / "named")  # the folder that a person names may be reached through a link
    assert names(elsewhere) == ["mine.txt", "sub"]
    remove(run)
    remove(run)
    assert names(elsewhere) == ["mine.txt", "sub"]


@POSIX
def test_own_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "file", "mine")
    assert read_own(tmp_path / "file") == b"mine"
    for name in ("pipe", "link", "missing"):
        with pytest.raises(OSError):
            read_own(tmp_path / name)


def test_many_files_come_to_the_disk(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        path.write_text("")
    sync_all(paths)
    sync_tree(tmp_path)
    sync_all([tmp_path / "missing"])
    assert not any(TEMPORARY.fullmatch(name) for name in names(tmp_path))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@POSIX
@pytest.mark.parametrize("way", ["a file", "a link that leads nowhere", "a link that leads to itself", "a pipe"])
@pytest.mark.parametrize("deep", [False, True])
def test_what_lies_in_the_way_of_a_named_folder_is_told(tmp_path: Path, way: str, deep: bool) -> None:
    place = tmp_path / "out"
    if way == "a file":
        place.write_text("mine")
    elif way == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("out" if way.endswith("itself") else "nowhere")
    folder = place / "deep" if deep else place
    for write in (make_folder, lambda at: make_folders(at / "below", at), lambda at: check_target(at / "c.txt")):
        if way == "a link that leads nowhere" and write not in (make_folder,):
            continue  # there is no such file, and to make its folder is refused
        with pytest.raises(
            UserError, match=r"out: is (a file|a pipe|a link to .*, which is not a folder), expected a folder"
        ):
            write(folder)
    assert names(tmp_path) == ["out"]


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    for write in (make_folder, check_target):
        with pytest.raises(UserError, match="too long for the disk"):
            write(tmp_path / ("x" * 256))


@POSIX
@pytest.mark.parametrize("reaches", [False, True])
def test_where_machines_may_not_see_locks_litter_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaches: bool
) -> None:
    """Whatever the clock says of what this machine holds."""
    monkeypatch.setattr(temporary_files, "reaches_all", lambda path: reaches)
    left, held = tmp_path / temporary_name(), NewFile(tmp_path / "one.txt")
    left.write_text("")
    os.utime(held.name, (0, 0))
    clear_litter(tmp_path, shared=True)
    assert held.name.exists()
    assert left.exists() is not reaches
    held.finish()
