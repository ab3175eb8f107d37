"""Locks: one holder whatever happens, taken over from the dead, and nothing that lies there is harmed."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captrain.disk import lock_file, lock_owner, locks
from captrain.disk.lock_owner import Owner
from captrain.disk.locks import FOLDER_LOCK, lock_of, locked, locked_folder, locked_folders
from captrain.errors import BusyError, CaptrainError, UserError

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and links")

HOLD = """
import os, sys, time
from pathlib import Path
from captrain.disk.locks import locked, locked_folder
path = Path(sys.argv[1])
with locked_folder(path) if path.is_dir() else locked(path):
    {before}
    print("held", flush=True)
    time.sleep(60)
"""
FORK = "if not os.fork(): time.sleep(60)"
RUN = """import subprocess; subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)"""
INHERIT = """
    import subprocess
    from captrain.disk import locks
    subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, pass_fds=[held.handle for held in locks._held.values()])
"""


@contextmanager
def holding(path: Path, before: str = "pass") -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a lock; at the end it and whatever it has started are killed."""
    words = [sys.executable, "-c", HOLD.format(before=before), str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def refusal(path: Path) -> str:
    with pytest.raises(BusyError) as caught, locked(path):
        pass
    return str(caught.value)


@posix
def test_another_process_is_refused_and_told_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with holding(path) as process:
        said = refusal(path)
        assert said.startswith(f"{path}: is being written by `python` of {Owner.me().user} on {socket.gethostname()}")
        assert f"(process {process.pid}, for 0 s); wait until it is done, or choose another name" in said
        with locked(tmp_path / "other.jsonl"):
            pass
    with locked(path):
        assert left_in(tmp_path) == [".out.jsonl.lock"]
    assert left_in(tmp_path) == []


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_the_killed_left_is_taken_over_and_what_the_stopped_hold_is_not(tmp_path: Path, how: int) -> None:
    path = tmp_path / "out"
    path.mkdir()
    with holding(path) as process:
        process.send_signal(how)
        if how == signal.SIGKILL:
            process.wait()
            with locked_folder(path):
                assert left_in(path) == [FOLDER_LOCK]
            assert left_in(path) == []
        else:
            with pytest.raises(BusyError), locked_folder(path):
                pass


@posix
@pytest.mark.parametrize("started", [FORK, RUN], ids=["forked", "run"])
def test_a_worker_that_outlives_its_killed_parent_holds_nothing(tmp_path: Path, started: str) -> None:
    path = tmp_path / "out"
    with holding(path, started) as process:
        assert f"process {process.pid}" in refusal(path)
        process.kill()
        process.wait()
        with locked(path):
            pass
    assert left_in(tmp_path) == []


@posix
def test_a_lock_that_was_handed_on_is_respected_and_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with holding(path, INHERIT.strip().replace("\n    ", "; ")) as process:
        process.kill()
        process.wait()
        assert "left behind when it died; end that process" in refusal(path)


@posix
def test_a_forked_process_that_leaves_the_block_lets_nothing_go(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with locked(path):
        child = multiprocessing.get_context("fork").Process(target=_leave_and_try, args=(path,))
        child.start()
        child.join()
        assert child.exitcode == 0 and lock_of(path).exists()
    assert left_in(tmp_path) == []


def _leave_and_try(path: Path) -> None:
    from captrain.disk import locks

    assert not locks._held
    assert f"process {os.getppid()}" in refusal(path)


def test_one_thread_may_nest_and_another_is_refused(tmp_path: Path) -> None:
    path, said = tmp_path / "out", []
    with locked(path), locked(path), locked(tmp_path / "." / "out"):
        thread = threading.Thread(target=lambda: said.append(refusal(path)))
        thread.start()
        thread.join()
        assert lock_of(path).exists()
    assert f"process {os.getpid()}" in said[0]
    assert left_in(tmp_path) == []


def test_an_error_in_the_block_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked_folder(tmp_path / "new" / "folder"):
        raise KeyboardInterrupt
    assert left_in(tmp_path / "new") == []


def test_a_folder_that_was_made_and_holds_something_stays(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "run"):
        (tmp_path / "run" / "settings.yaml").write_text("")
    assert left_in(tmp_path / "run") == ["settings.yaml"]
    with pytest.raises(UserError, match="is a file"), locked_folder(tmp_path / "run" / "settings.yaml"):
        pass


def test_a_folder_that_vanishes_is_told_at_the_end_unless_it_was_to_go(tmp_path: Path) -> None:
    with pytest.raises(CaptrainError, match="was removed while it was being written"), locked_folder(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
    with locked_folder(tmp_path / "run", goes=True):
        shutil.rmtree(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        raise ZeroDivisionError
    assert left_in(tmp_path) == []


def test_a_lock_that_somebody_removed_leaves_the_next_holders_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(CaptrainError, match=r"or its lock .*captrain\.lock was"),
        locked_folder(tmp_path / "run"),
    ):
        (tmp_path / "run" / FOLDER_LOCK).unlink()
        with _in_thread(tmp_path / "run"):
            held = locks._held[os.path.realpath(tmp_path / "run" / FOLDER_LOCK), threading.get_ident()]
            assert lock_file.is_lost(held.handle)
    assert left_in(tmp_path) == []


@contextmanager
def _in_thread(folder: Path) -> Iterator[None]:
    """A second holder of a folder whose first lock was deleted: when the first one goes, the second one's file stays."""
    ready, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locked_folder(folder):
            ready.set()
            over.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(5)
    try:
        yield
    finally:
        assert (folder / FOLDER_LOCK).exists()
        over.set()
        thread.join()


NAMES = ["x" * 255, "é" * 127, "🐕" * 62 + ".zip", "\udcff.txt", "a\nb\x1b[31m.jsonl", " .jsonl", "-o", "a.lock", "con"]


@posix
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_that_a_file_can_have_can_be_locked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whole")
    with locked(tmp_path / name):
        assert len(left_in(tmp_path)) == 2
    assert left_in(tmp_path) == [name]


@posix
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "file", "hard link", "socket", "huge"])
def test_what_was_planted_is_not_harmed_and_nothing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, victim = tmp_path / "out.jsonl", tmp_path / "victim"
    victim.write_bytes(b"precious")
    lock = lock_of(path)
    plant: dict[str, Callable[[], Any]] = {
        "link": lambda: lock.symlink_to(victim),
        "dangling": lambda: lock.symlink_to(tmp_path / "made"),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
        "file": lambda: lock.write_bytes(b"mine"),
        "hard link": lambda: os.link(victim, lock),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(os.path.relpath(lock)),
        "huge": lambda: lock.write_bytes(b'{"pid": 1' + b" " * 100_000),
    }
    monkeypatch.chdir(tmp_path)
    plant[kind]()
    before = left_in(tmp_path)
    with pytest.raises(UserError, match=r"can't be locked, .* remove it"), locked(path):
        pass
    assert victim.read_bytes() == b"precious" and left_in(tmp_path) == before


def test_an_empty_lock_is_of_one_that_died_before_it_wrote(tmp_path: Path) -> None:
    lock_of(tmp_path / "out").touch()
    with locked(tmp_path / "out"):
        pass
    assert left_in(tmp_path) == []


DEAD = {"pid": 2**22 + 1}
ELSEWHERE = {"host": "elsewhere", "boot": "another"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "wait until it is done, or choose another name"),
        (DEAD, None),
        ({"started": 1.0}, None),  # the number came again
        ({"boot": "another"}, None),  # the machine was started again
        (ELSEWHERE, "or remove {lock} if it has died"),
        ({"host": "container", "space": "pid:[1]"}, "or remove {lock} if it has died"),
    ],
)
def test_where_the_system_holds_nothing_the_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: str | None
) -> None:
    monkeypatch.setattr(lock_file, "_hold", lambda handle: None)
    monkeypatch.setattr(lock_file, "WAITS", (0.0, 0.01, 0.02))
    path = tmp_path / "out"
    lock_of(path).write_bytes(replace(Owner.me(), **change).to_json())
    if expected is None:
        with locked(path):
            assert Owner.parse(lock_of(path).read_bytes()) != replace(Owner.me(), **change)
        assert left_in(tmp_path) == []
    else:
        assert expected.format(lock=lock_of(path)) in refusal(path)
        lock_of(path).write_bytes(b"")
        assert f"or remove {lock_of(path)}" in refusal(path)


def test_two_that_find_a_dead_owner_do_not_both_remove_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_file, "_hold", lambda handle: None)
    monkeypatch.setattr(lock_file, "WAITS", (0.0, 0.01))
    path = tmp_path / "out"
    lock_of(path).write_bytes(replace(Owner.me(), **DEAD).to_json())
    second = Path(f"{lock_of(path)}.second")
    second.touch()
    assert f"remove {lock_of(path)} and {second} if it has died" in refusal(path)
    assert left_in(tmp_path) == [lock_of(path).name, second.name]


@posix
def test_who_is_in_another_container_and_holds_it_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_file, "WAITS", (0.0, 0.01))
    path = tmp_path / "out"
    with holding(path):
        lock_of(path).write_bytes(replace(Owner.me(), host="container", space="pid:[1]").to_json())
        said = refusal(path)
        assert (
            "on container" in said and "wait until it is done, or choose another name" in said and "remove" not in said
        )


@pytest.mark.parametrize("reaches", [True, False])
def test_a_lock_of_another_machine_that_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaches: bool
) -> None:
    """Where locks reach all machines it is a dead one's; where they do not, nobody can know, and the path is named."""
    monkeypatch.setattr(lock_file, "reaches_all", lambda lock: reaches)
    path = tmp_path / "out"
    lock_of(path).write_bytes(replace(Owner.me(), **ELSEWHERE, since="2026-12-01T08:00:00Z").to_json())
    if reaches:
        with locked(path):
            pass
        assert left_in(tmp_path) == []
    else:
        said = refusal(path)
        assert "on elsewhere" in said and "since 2026-12-01T08:00:00Z" in said and f"remove {lock_of(path)}" in said


@pytest.mark.parametrize(
    ("kind", "options", "reaches"),
    [
        ("ext4", "rw", True), ("nfs4", "rw,vers=4.2,local_lock=none", True), ("nfs", "rw,local_lock=flock", False),
        ("nfs", "rw,nolock", False), ("fuse.sshfs", "rw", False), ("9p", "rw", False), ("cifs", "rw,nobrl", False),
    ],
)  # fmt: skip
def test_which_file_systems_tell_all_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: str, reaches: bool
) -> None:
    import psutil
    from psutil._ntuples import sdiskpart  # type: ignore[import-not-found,unused-ignore]

    parts = [sdiskpart("root", "/", "ext4", "rw"), sdiskpart("share", str(tmp_path.resolve()), kind, options)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert lock_file.reaches_all(tmp_path / ".out.lock") is reaches


@posix
@pytest.mark.parametrize("jump", [-3e8, -60.0, 3600.0, 3e8])
def test_a_clock_that_jumps_changes_neither_who_holds_nor_for_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    path = tmp_path / "out"
    with holding(path) as process:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + jump)
        os.utime(lock_of(path), (now - jump, now - jump))
        assert f"(process {process.pid}, for 0 s)" in refusal(path)
        process.kill()
        process.wait()
        os.utime(lock_of(path), (now - jump, now - jump))
        with locked(path):
            pass
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_can_not_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(number, os.strerror(number), str(args[0]))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError) as caught, locked(tmp_path / "out"):
        pass
    assert str(caught.value) == f"{tmp_path / 'out'}: can't be written ({os.strerror(number)}); choose another place"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'none'}"), locked(tmp_path / "none" / "out"):
        pass


def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lock_file.os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught, locked(tmp_path / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "out") and left_in(tmp_path) == []


@posix
def test_more_folders_than_files_may_be_open(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    folders = [tmp_path / str(number) for number in range(300)]
    for folder in folders:
        folder.mkdir()
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with locked_folders([*folders, tmp_path / "not there"]):
            assert all((folder / FOLDER_LOCK).exists() for folder in folders)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert not list(tmp_path.glob(f"*/{FOLDER_LOCK}"))


STRESS = """
import os, random, sys, time
from pathlib import Path
from captrain.disk import lock_file
from captrain.disk.locks import locked
from captrain.errors import BusyError
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "nothing held":
    lock_file._hold = lambda handle: None
lock_file.WAITS = (0.0, 0.001, 0.002)
draw, until = random.Random(seed), time.monotonic() + 1.0
while time.monotonic() < until:
    try:
        with locked(folder / "out"):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails where two are inside
            time.sleep(draw.random() * 0.002)
            os.unlink(folder / "inside")
            if draw.random() < 0.02:
                os.kill(os.getpid(), 9)
    except BusyError:
        pass
"""


@posix
@pytest.mark.parametrize("held", ["held by the system", "nothing held"])
def test_many_that_want_it_and_die_with_it_are_never_two(tmp_path: Path, held: str) -> None:
    running: list[subprocess.Popen[bytes]] = []
    for seed in range(8):
        words = [sys.executable, "-c", STRESS, str(tmp_path), str(seed), held]
        running.append(subprocess.Popen(words, stderr=subprocess.PIPE))
    ends = [(process.communicate()[1], process.returncode) for process in running]
    assert all(code in (0, -signal.SIGKILL) and not said for said, code in ends), ends


@given(st.binary(max_size=300))
def test_no_bytes_upset_the_reader_of_owners(content: bytes) -> None:
    found = Owner.parse(content)
    assert found is None or Owner.parse(found.to_json()) == found


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)


@given(st.fixed_dictionaries({name: JSON for name in Owner.__dataclass_fields__}))
@example(json.loads(Owner.me().to_json()) | {"clock": 1e308, "started": 1e308})
@example(json.loads(Owner.me().to_json()) | {"pid": 10**400, "clock": float("inf")})
@example(json.loads(Owner.me().to_json()) | {"pid": -1, "clock": -1e300})
def test_no_json_upsets_those_who_are_told_of_owners(content: dict[str, Any]) -> None:
    found = Owner.parse(json.dumps(content).encode())
    if found is not None:
        assert len(str(found)) < 1000 and found.is_dead() in (True, False, None)


def test_without_proc_a_process_is_known_by_its_start_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_owner, "_boot", lambda: "")
    monkeypatch.setattr(lock_owner, "_space", lambda: "")
    me = Owner.me()
    assert me.is_dead() is False and replace(me, started=me.started - 100).is_dead() is True
    assert replace(me, **DEAD).is_dead() is True and replace(me, host="elsewhere").is_dead() is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_lock_that_was_half_written_is_taken_over(tmp_path: Path, share: float) -> None:
    """A process may be killed, or its disk be full, while it writes its name into a lock."""
    path, whole = tmp_path / "captions.jsonl", Owner.me().to_json()
    lock_of(path).write_bytes(whole[: int(share * len(whole))])
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []
