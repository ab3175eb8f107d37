"""One file over HTTP: continued where it stopped, tried again when the server fails, and complete or not there at all.

What has arrived is in `NAME.part`; `NAME.part.json` has the mark (ETag) by which the server knows that version again.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from captrain.data.shards.remote import shown_url
from captrain.disk.folders import remove
from captrain.disk.writing import check_target, open_to_append, write_text
from captrain.errors import DataError
from captrain.version import __version__

CHUNK = 1 << 18  # bytes read at a time
PROGRESS = 1 << 20  # bytes that make up for an attempt that failed
ATTEMPTS = 6
FIRST_WAIT = 1.0  # seconds before the second attempt; doubled each time
LONGEST_WAIT = 60.0
TIMEOUT = 30.0  # seconds without a byte
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers after which another attempt may do

Arrived = Callable[[int], None]
"""Told how many bytes have come; a negative number when some have to come again."""


class TransferError(Exception):
    """One file can't be fetched; the message says why, without the address. `for_good`: another day won't help either."""

    def __init__(self, reason: str, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class _TryAgainError(Exception):
    """This attempt failed. `wait`: seconds that the server asks to wait."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http and https only; not from https to http."""

    max_redirections = 5

    def redirect_request(
        self, request: urllib.request.Request, file: Any, code: int, message: str, headers: Message, url: str
    ) -> urllib.request.Request | None:
        """Go where the server says, if it is somewhere that may be gone to."""
        scheme = urlsplit(url).scheme.lower()
        if scheme not in ("http", "https") or (scheme == "http" and request.type == "https"):
            raise TransferError(
                f"redirected to {shown_url(url)[:100]}, expected an address that is https too", for_good=True
            )
        return super().redirect_request(request, file, code, message, headers, url)  # type: ignore[arg-type]


def _make_opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS through the system's proxies; no files, no FTP, no data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _make_opener()


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much patience and how many bytes a file gets."""

    largest: int
    attempts: int = ATTEMPTS
    timeout: float = TIMEOUT


def check_address(url: str) -> None:
    """Raise `DataError` unless this is a web address."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine:
        raise DataError(f"{shown_url(url)[:200]}: expected an address that begins with https:// or http://")


def download_file(url: str, target: Path, limits: TransferLimits, arrived: Arrived = lambda count: None) -> None:
    """Fetch a file into `target`, which appears once it is complete. The folder must be there.

    Raises:
        TransferError: the server does not have it, or failed too often; what has come stays for the next time.
        DataError: the disk is full, or the file can't be written.
    """
    partial = _Partial(target)
    arrived(partial.size())
    failures = 0
    while True:
        before = partial.size()
        try:
            with _clear_disk_errors(target):
                _attempt(url, partial, limits, arrived)
                partial.finish()
            return
        except _TryAgainError as problem:
            failures = 1 if partial.size() - before >= PROGRESS else failures + 1
            if failures >= limits.attempts:
                raise TransferError(f"{problem} ({failures} attempts)") from None
            time.sleep(_wait(failures, problem.wait))


class _Partial:
    """What has come of a file so far."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.mark_path = target.with_name(target.name + ".part.json")
        for path in (self.target, self.path, self.mark_path):
            check_target(path)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def mark(self) -> str:
        """What the server called this version; "" if it did not say, or what it said is lost."""
        try:
            mark = json.loads(self.mark_path.read_text(encoding="utf-8"))["mark"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        return mark if isinstance(mark, str) and mark.isprintable() else ""

    def begin(self, mark: str) -> None:
        """Forget what came of another version."""
        remove(self.path)
        write_text(self.mark_path, json.dumps({"mark": mark}))

    def finish(self) -> None:
        open_to_append(self.path).close()  # nothing came
        self.path.replace(self.target)
        remove(self.mark_path)


def _attempt(url: str, partial: _Partial, limits: TransferLimits, arrived: Arrived) -> None:
    """Ask for what is missing and write it down. Raises `_TryAgainError` when that did not bring the whole file."""
    start, mark = partial.size(), partial.mark()
    if start and not mark:  # nothing tells whether the rest would be of the same version
        arrived(-start)
        start = 0
    headers = {"User-Agent": f"captrain/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark}
    response = _open(url, headers, limits.timeout, partial, arrived)
    if response is None:
        return
    with response:
        whole = _begin(response, start, partial, arrived)
        if whole is not None and whole > limits.largest:
            raise TransferError(f"has {whole} bytes, expected at most {limits.largest}", for_good=True)
        _write(response, partial, limits.largest, arrived)
    if whole is not None and partial.size() != whole:
        raise _TryAgainError(f"{partial.size()} of {whole} bytes came")


def _open(url: str, headers: dict[str, str], timeout: float, partial: _Partial, arrived: Arrived) -> Any:
    """The server's answer, if it is one of success; None if nothing is missing any more."""
    try:
        with _clear_network_errors():
            return _OPENER.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            return _after_416(error.headers, partial, arrived)
        if error.code in AGAIN:
            raise _TryAgainError(f"the server answers {error.code}", _asked_wait(error.headers)) from None
        raise TransferError(f"the server answers {error.code} {error.reason}"[:100], for_good=True) from None


def _after_416(headers: Message, partial: _Partial, arrived: Arrived) -> None:
    """No such range: either everything is here already, or what is here can't be used."""
    if headers.get("Content-Range") == f"bytes */{partial.size()}":
        return
    arrived(-partial.size())
    partial.begin("")
    raise _TryAgainError("the server has no such range")


def _begin(response: Any, start: int, partial: _Partial, arrived: Arrived) -> int | None:
    """How many bytes the whole file has, if the server says; what came before is kept if this answer goes on with it."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TransferError(f"came packed as {headers['Content-Encoding'][:40]}, expected the bare file", for_good=True)
    length = _number(headers.get("Content-Length"))
    if response.status == 206 and start:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if found and int(found[1]) == start:
            return _number(found[3])
        arrived(-start)
        partial.begin("")
        raise _TryAgainError("the server answers with a range other than the one asked for")
    if response.status != 200:
        raise _TryAgainError(f"the server answers {response.status}")
    arrived(-start)
    partial.begin(_mark(headers))
    return length


def _write(response: Any, partial: _Partial, largest: int, arrived: Arrived) -> None:
    """Add what comes to the partial file."""
    size = partial.size()
    with open_to_append(partial.path) as file:
        while data := _read(response):
            size += len(data)
            if size > largest:
                raise TransferError(f"has more than {largest} bytes", for_good=True)
            file.write(data)
            arrived(len(data))


def _read(response: Any) -> bytes:
    """The next bytes of an answer."""
    with _clear_network_errors():
        return bytes(response.read(CHUNK))


@contextmanager
def _clear_network_errors() -> Iterator[None]:
    """Make an attempt that failed of whatever the network raises; answers of the server pass."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except TimeoutError:
        raise _TryAgainError("the server is silent") from None
    except urllib.error.URLError as error:
        raise _TryAgainError(f"no connection ({error.reason})"[:200]) from None
    except (OSError, EOFError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the connection broke ({type(error).__name__})") from None
    except ValueError as error:  # an address that urllib can't take
        raise TransferError(f"is not an address that can be asked ({error})"[:200], for_good=True) from None


@contextmanager
def _clear_disk_errors(target: Path) -> Iterator[None]:
    """One line about a disk that is full, or a folder that can't be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{target}: can't be written ({error.strerror or error}); make room, then run the same command again"
        ) from None


def _mark(headers: Message) -> str:
    """By what the server would know this version again: a strong ETag, or the time of the last change."""
    tag = headers.get("ETag", "")
    mark = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    return mark if mark.isprintable() else ""


def _asked_wait(headers: Message | None) -> float:
    """Seconds of a `Retry-After`."""
    return float(_number(headers.get("Retry-After") if headers else None) or 0)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _wait(failures: int, asked: float) -> float:
    """Seconds before the next attempt: doubled each time, a little random, at least what the server asks for."""
    return min(max(FIRST_WAIT * 2 ** (failures - 1) * random.uniform(0.8, 1.2), asked), LONGEST_WAIT)
