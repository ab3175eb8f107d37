"""Do what a plan says: fetch files in parallel, check and note each, unpack archives, fetch pictures by address.

A zip may come from anywhere: nothing is written outside of the folder, links are left out, no more bytes are unpacked than
announced, and only whole files are kept.
"""

from __future__ import annotations

import re
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from captrain.data.get.catalogue import MB, CatalogueFile
from captrain.data.get.pictures import FetchedPictures, fetch_pictures
from captrain.data.get.plan import FetchLedger, Plan, Step, check_digest, saved_at
from captrain.data.get.transfer import TransferError, TransferLimits, download_file
from captrain.data.shards.remote import shown_url
from captrain.disk.folders import make_folders, sync, sync_tree
from captrain.disk.locks import locked_folder
from captrain.disk.reading import ZIP_ERRORS, within_file
from captrain.disk.writing import check_target, new_file
from captrain.errors import CaptrainError, DataError
from captrain.progress import track

AT_A_TIME = 4  # files; pictures by address have their own number
SLACK = 64 * MB  # bytes that a file of unknown length may have anyway


class _StoppedError(Exception):
    """Another file failed, or the user stopped; what came stays."""


class _Meter:
    """Adds up bytes of several transfers for one progress bar, and stops them all when asked to."""

    def __init__(self, advance: Callable[[int], None], total: int) -> None:
        self.advance, self.left = advance, total
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.bytes = self.told = 0

    def __call__(self, count: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        with self.lock:
            self.bytes += count
            news = min(self.bytes // MB - self.told, self.left)
            if news > 0:
                self.told += news
                self.left -= news
                self.advance(news)

    def finish(self) -> None:
        """Everything is there: the catalogue's sizes may be rough."""
        self.advance(self.left)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: an outcome for each list of pictures."""

    lists: tuple[FetchedPictures, ...]

    @property
    def failed(self) -> int:
        """Pictures that did not come."""
        return sum(outcome.failed for outcome in self.lists)


def fetch_data_set(plan: Plan, workers: int) -> Fetched:
    """Fetch all that is missing.

    Raises:
        BusyError: another process fetches into the folder.
        DataError: not enough room, a wrong checksum, an archive or table that is broken.
        CaptrainError: a server failed too often; the same plan goes on where this stopped.
    """
    _make_room(plan)
    with locked_folder(plan.folder):
        return _fetch_all(plan, workers)


def _fetch_all(plan: Plan, workers: int) -> Fetched:
    ledger = FetchLedger(plan.folder)
    _delete_unpacked(plan.steps, plan.folder, ledger)
    _fetch_files([step for step in plan.steps if step.source == "web"], plan.folder, ledger)
    for step in plan.steps:
        if step.source == "local":
            _copy(step, plan.folder, ledger)
    for step in plan.steps:
        if step.source != "here" and step.file.unpack:
            _unpack(step, plan.folder, ledger)
    return Fetched(tuple(fetch_pictures(listed, plan.folder, workers, plan.mirror) for listed in plan.lists))


def _make_room(plan: Plan) -> None:
    """Make the folder, and see that the disk has room."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(plan.folder).free
    except OSError as error:
        raise DataError(f"{plan.folder}: can't be made ({error.strerror}); give another folder") from None
    partial = sum(path.stat().st_size for path in plan.folder.glob("*.part"))
    if free + partial < plan.room:
        raise DataError(
            f"{plan.folder}: {plan.name} needs about {plan.room / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
            "make room, or give another folder"
        )


def _fetch_files(steps: list[Step], folder: Path, ledger: FetchLedger) -> None:
    """All files over the network, several at a time; the first that fails stops the others."""
    total = sum(-(-step.file.size // MB) for step in steps)
    with track("fetch", total, "MB") as advance, ThreadPoolExecutor(AT_A_TIME) as pool:
        meter = _Meter(advance, total)
        futures = [pool.submit(_fetch_file, step, folder, ledger, meter) for step in steps]
        try:
            done = wait(futures, return_when=FIRST_EXCEPTION).done
            failed = [future.exception() for future in done if future.exception()]
        finally:
            meter.stop.set()
            pool.shutdown(cancel_futures=True)
        if failed:
            raise failed[0]  # type: ignore[misc]
        meter.finish()


def _fetch_file(step: Step, folder: Path, ledger: FetchLedger, meter: _Meter) -> None:
    """One file, checked and noted."""
    file = step.file
    target = folder / (file.saved_as or file.name)
    largest = file.size if file.exact else 4 * file.size + SLACK
    if not (file.unpack and target.is_file()):  # an archive that was fetched but not completely unpacked
        try:
            download_file(step.place, target, TransferLimits(largest), meter)
        except TransferError as problem:
            raise CaptrainError(
                f"{shown_url(step.place)}: {problem}; the same command goes on where this stopped; "
                "--mirror or --from take the file from elsewhere"
            ) from None
    try:
        entry = check_digest(target, file.checksum, ledger.entries.get(file.name), shown_url(step.place))
    except DataError:
        target.unlink(missing_ok=True)
        raise
    sync(target)
    with meter.lock:
        ledger.note(file.name, entry)


def _copy(step: Step, folder: Path, ledger: FetchLedger) -> None:
    """A file of the local copy, checked, into the folder; archives are unpacked where they are."""
    file, source = step.file, Path(step.place)
    if file.unpack and source.name == file.name:
        ledger.note(file.name, check_digest(source, file.checksum, ledger.entries.get(file.name), str(source)))
        return
    target = saved_at(file, folder)
    if file.unpack:  # a member that was taken out already: published is the archive's checksum
        entry = replace(check_digest(source, "", None, str(source)), unpacked=1)
    else:
        entry = check_digest(source, file.checksum, ledger.entries.get(file.name), str(source))
    if source.resolve() != target.resolve():
        try:
            with source.open("rb") as content, new_file(target) as copy:
                shutil.copyfileobj(content, copy)
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror or error})") from None
    ledger.note(file.name, entry)


def _unpack(step: Step, folder: Path, ledger: FetchLedger) -> None:
    """Members of an archive into the folder; an archive that was fetched is deleted then."""
    file = step.file
    archive = Path(step.place) if step.source == "local" else folder / file.name
    if archive.name != file.name:  # the local copy had the member itself
        return
    count = unpack_zip(archive, folder, file.unpack, _largest_unpacked(file))
    ledger.note(file.name, replace(ledger.entries[file.name], unpacked=count, left=step.source == "web"))
    _delete_unpacked([step], folder, ledger)


def _delete_unpacked(steps: Iterable[Step], folder: Path, ledger: FetchLedger) -> None:
    """Delete archives that were fetched and unpacked, also those of a fetch that was cut off just then."""
    for name in [step.file.name for step in steps]:
        entry = ledger.entries.get(name)
        if entry is not None and entry.left:
            (folder / name).unlink(missing_ok=True)
            ledger.note(name, replace(entry, left=False))


def _largest_unpacked(file: CatalogueFile) -> int:
    """Bytes that an archive may unpack to: pictures hardly shrink in a zip, text shrinks to a tenth."""
    return (2 if file.pictures else 20) * file.size + SLACK


MOST_MEMBERS = 1_000_000
LARGEST_MEMBER = 4 << 30  # bytes
CHUNK = 1 << 20
_SAFE = re.compile(r"[\w. ()+-]+(?:/[\w. ()+-]+)*", re.ASCII)


def unpack_zip(archive: Path, folder: Path, pattern: str, largest: int) -> int:
    """Take the members that match `pattern` (`train2014/*.jpg`) out of a zip; those that are there already stay.

    Returns how many there are. Raises `DataError` for an archive that is broken, unsafe, or more than `largest` bytes in all.
    """
    try:
        with within_file(), zipfile.ZipFile(archive) as opened:
            members = list(_members(opened, archive, pattern))
            if (total := sum(member.file_size for member in members)) > largest:
                raise DataError(f"{archive}: {total} bytes unpacked, expected at most {largest}")
            with track(f"unpack {archive.name}", len(members), "files") as advance:
                for member in members:
                    _take(opened, member, folder, archive)
                    advance(1)
                for name in dict.fromkeys(member.filename.partition("/")[0] for member in members):
                    sync_tree(folder / name)
    except ZIP_ERRORS as error:
        raise DataError(f"{archive}: a broken archive ({error}); delete it, and run the same command again") from None
    if not members:
        raise DataError(f"{archive}: holds no {pattern}; expected the archive that the source hands out")
    return len(members)


def _members(opened: zipfile.ZipFile, archive: Path, pattern: str) -> Iterator[zipfile.ZipInfo]:
    """The wanted members, each looked at."""
    infos = opened.infolist()
    if len(infos) > MOST_MEMBERS:
        raise DataError(f"{archive}: {len(infos)} members, expected at most {MOST_MEMBERS}")
    for info in infos:
        if not info.filename or info.is_dir() or not fnmatchcase(info.filename, pattern):
            continue
        if not _SAFE.fullmatch(info.filename) or any(part in (".", "..") for part in info.filename.split("/")):
            raise DataError(
                f"{archive}: {info.filename[:100]!r} is not a name that may be unpacked; this archive is not safe"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{archive}: {info.filename!r} is a link; this archive is not safe")
        if info.file_size > LARGEST_MEMBER:
            raise DataError(
                f"{archive}: {info.filename!r} has {info.file_size} bytes, expected at most {LARGEST_MEMBER}"
            )
        yield info


def _take(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, archive: Path) -> None:
    """One member into a file that appears when it is complete; not on the disk yet."""
    target = folder / member.filename
    try:
        make_folders(target.parent, folder)
        if check_target(target) is not None and target.stat().st_size == member.file_size:
            return
        with opened.open(member) as source, new_file(target, sync=False) as file:
            left = member.file_size
            while data := source.read(min(CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    raise DataError(
                        f"{archive}: {member.filename!r} is longer than announced; this archive is not safe"
                    )
                file.write(data)
    except OSError as error:
        raise DataError(
            f"{target}: can't be written ({error.strerror or error}); make room, then run the command again"
        ) from None
