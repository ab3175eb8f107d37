"""What a source of tar shards names: a tar, a folder of them, `{00000..00012}`, a glob, a list with commas, URLs.

Names only; `remote` opens URLs, `tars` walks what was opened.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from captrain.data.safe_paths import Root, existing, is_remote
from captrain.data.shards.remote import glob_urls, path_of, protocol_of, shown_url
from captrain.data.splits import SPLIT_NAMES
from captrain.errors import DataError
from captrain.records import Rejects

MOST_SHARDS = 1_000_000  # of one source; a slip of the keyboard in a brace pattern names more
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".lz4")
_NOT_A_SPLIT = ("all",)


@dataclass(frozen=True, slots=True)
class TarShard:
    """One tar. `name` tells it from the others of its source ("train/00000.tar"); `prefix` begins its samples' ids."""

    url: str
    name: str
    prefix: str = ""

    @property
    def label(self) -> str:
        """The path or URL as people may see it: without the keys that signed URLs carry."""
        return shown_url(self.url)

    @property
    def split(self) -> str | None:
        """The split that its name says, if it says one.

        >>> [TarShard("", name).split for name in ("train/0.tar", "cc12m-val-0001.tar", "0.tar", "train/test.tar")]
        ['train', 'validation', None, None]
        """
        words = re.split(r"[^a-z]+", self.name.removesuffix(".tar").lower())
        found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES and word not in _NOT_A_SPLIT}
        return found.pop() if len(found) == 1 else None


def expand(
    source: str | Sequence[str], rejects: Rejects | None = None, *, follow_links: bool = False
) -> list[TarShard]:
    """All shards that a source names, in the order of their names within each of its parts, each once.

    Ids of samples begin with the shard's name, unless the source is a single tar. Links that leave a folder go to
    `rejects`. Raises `DataError` for what is not there, is compressed, or would run a command (`pipe:`).

    >>> [shard.name for shard in expand("s3://photos/{train,val}/{00..01}.tar")]
    ['train/00.tar', 'train/01.tar', 'val/00.tar', 'val/01.tar']
    """
    if isinstance(source, str) and os.path.isdir(source):
        return _in_folder(Root(Path(source), follow_links=follow_links), rejects if rejects is not None else Rejects())
    parts = split_list(source) if isinstance(source, str) else list(source)
    urls = list(dict.fromkeys(url for part in parts for url in _urls(part, follow_links)))
    if not urls:
        raise DataError("no shard is named; expected a .tar file, a folder of them, a pattern or a URL")
    for url in urls:
        refuse(url)
    _require(urls)
    single = len(parts) == 1 and urls == [parts[0]]
    return [
        TarShard(url, name, "" if single else f"{name.removesuffix('.tar')}/")
        for url, name in zip(urls, _names(urls), strict=True)
    ]


def split_list(source: str) -> list[str]:
    """The parts of a list with commas; a file that has a comma in its name is one part, and so are braces.

    >>> split_list("{a,b}.tar, c.tar")
    ['{a,b}.tar', 'c.tar']
    """
    if os.path.exists(source):
        return [source]
    parts, depth = [""], 0
    for letter in source:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def expand_braces(pattern: str) -> Iterator[str]:
    """Patterns as a shell expands them: `{00..12}` and `{a,b}`.

    >>> list(expand_braces("{train,val}-{8..10}.tar"))[:4]
    ['train-8.tar', 'train-9.tar', 'train-10.tar', 'val-8.tar']
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [[piece] if place % 2 == 0 else _choices(piece, pattern) for place, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_SHARDS:
        raise DataError(f"{shown_url(pattern)}: names {count} shards, over {MOST_SHARDS}; check the numbers in braces")
    return ("".join(combination) for combination in product(*choices))


def _choices(inside: str, pattern: str) -> list[str]:
    if span := re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside):
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= MOST_SHARDS:
            raise DataError(f"{shown_url(pattern)}: {{{inside}}} names over {MOST_SHARDS} shards; check the numbers")
        step = 1 if last >= first else -1
        return [f"{number:0{len(span[1])}d}" for number in range(first, last + step, step)]
    if "," in inside:
        return inside.split(",")
    raise DataError(
        f"{shown_url(pattern)}: can't expand {{{inside}}}; expected numbers {{00000..00012}} or words {{a,b}}"
    )


def _urls(part: str, follow_links: bool) -> list[str]:
    refuse(part)
    if os.path.exists(part):
        if os.path.isdir(part):
            return [shard.url for shard in _in_folder(Root(Path(part), follow_links=follow_links), Rejects())]
        return [part]
    found: list[str] = []
    for url in expand_braces(part):
        found.extend(_globbed(url) if _is_glob(url) else [url])
    return found


def _is_glob(url: str) -> bool:
    """Whether there are wildcards in a path; in a web address a question mark begins the query."""
    return any(letter in url for letter in ("*[" if is_remote(url) else "*?["))


def _globbed(pattern: str) -> list[str]:
    if is_remote(pattern):
        return glob_urls(pattern)
    found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not found:
        raise DataError(f"{pattern}: no file matches; expected a pattern of .tar shards")
    return found


def refuse(url: str) -> None:
    """Raise `DataError` for a shard that is never read."""
    if url.lower().lstrip().startswith("pipe:"):
        raise DataError(
            "pipe: runs commands, which a data set must not; expected a path or an s3://, gs:// or https:// URL"
        )
    if path_of(url).lower().endswith(COMPRESSED):
        raise DataError(
            f"{shown_url(url)}: is compressed, so that its pictures can't be reached one by one; "
            f"unpack it to a .tar{_unpacking(url)}"
        )


def _unpacking(url: str) -> str:
    """The command that makes a .tar of a compressed one, in brackets; "" if there is none that everybody has."""
    name = path_of(url).rpartition("/")[2]
    for endings, command in (
        ((".tar.gz", ".tgz"), "gunzip"),
        ((".tar.bz2", ".tbz2"), "bunzip2"),
        ((".tar.xz", ".txz"), "unxz"),
    ):
        if ending := next((ending for ending in endings if name.lower().endswith(ending)), ""):
            return f" ({command} -c {name} > {name[: -len(ending)]}.tar)"
    return ""


def _in_folder(root: Root, rejects: Rejects) -> list[TarShard]:
    """The tars below a folder, sorted; links that leave it, and what is no file, are rejected."""
    names: list[str] = []
    folders, left = root.folders(), [""]
    while left:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError as error:
            rejects.add(prefix, f"{root.folder}/{prefix}", f"can't be listed ({error.strerror})")
            continue
        for entry in entries:
            is_shard = not entry.is_folder and entry.name.lower().endswith(".tar")
            if entry.fault and (is_shard or entry.is_link):
                rejects.add(prefix + entry.name, str(root.folder / prefix / entry.name), entry.fault)
            elif entry.is_folder:
                left.append(f"{prefix}{entry.name}/")
            elif is_shard:
                names.append(prefix + entry.name)
    if not names:
        found = f" ({rejects.summary()})" if rejects else ""
        raise DataError(f"{root.folder}/: no shard{found}; expected .tar files in it")
    return [TarShard(str(root.folder / name), name, f"{name.removesuffix('.tar')}/") for name in sorted(names)]


def _require(urls: list[str]) -> None:
    """Raise `DataError` if a local shard is not there."""
    missing = [url for url in urls if not is_remote(url) and not os.path.isfile(url)]
    if missing and len(urls) == 1:
        existing(Path(missing[0]))
        raise DataError(f"{missing[0]}: not a file; expected a .tar")
    if missing:
        raise DataError(
            f"{missing[0]}: not found ({len(missing)} of {len(urls)} shards are missing); check the pattern"
        )
    for url in urls:
        if is_remote(url):
            protocol_of(url)


def _names(urls: list[str]) -> list[str]:
    """What tells paths and URLs apart: their ends, from where they first differ."""
    paths = [path_of(url) for url in urls]
    columns = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    shared = next((place for place, column in enumerate(columns) if len(set(column)) > 1), None)
    if shared is None:  # all above the shortest path is shared
        shared = min(path.count("/") for path in paths)
    names = ["/".join(path.split("/")[shared:]) for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{place}/{name}" for place, name in enumerate(names)]  # of other hosts, or told apart by their queries


def reject(rejects: Rejects, shard: TarShard, name: str, reason: str) -> None:
    """Note a member of a shard, or without a name the shard itself, that can't be used."""
    if name:
        rejects.add(shard.prefix + name, f"{shard.label}/{name}", reason)
    else:
        rejects.add(shard.name, shard.label, reason)
