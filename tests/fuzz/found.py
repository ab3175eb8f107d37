"""What was found once: kept as small inputs, and run again by each test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz.harness import Fault, fault_of
from fuzz.inputs import Parser, seeds_of
from fuzz.workplace import Files, files_in

FOUND = Path(__file__).parent / "found"
ABOUT = "about.txt"


def keep(parser: Parser, files: Files, fault: Fault) -> Path:
    """Write an input to `found/PARSER/HASH`: its files as far as no valid input has them, and what was wrong.

    `about.txt` says on its first line what was wrong, and on the second from which valid input the other files are.
    """
    name, nearest = max(
        zip(parser.seeds, seeds_of(parser), strict=True),
        key=lambda seed: sum(files.get(name) == content for name, content in seed[1].items()),
    )
    own = {name: content for name, content in files.items() if nearest.get(name) != content}
    missing = sorted(nearest.keys() - files.keys())
    digest = hashlib.sha256(repr(sorted(own.items())).encode() + repr(missing).encode()).hexdigest()[:12]
    folder = FOUND / parser.label / digest
    for file, content in own.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{fault.kind} in {fault.where}: {fault.text}", f"seed {name}", *(f"without {file}" for file in missing)]
    (folder / ABOUT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def kept(parser: Parser) -> dict[str, Files]:
    """The inputs that were found for a parser, by their hash."""
    folders = sorted(path.parent for path in (FOUND / parser.label).glob(f"*/{ABOUT}"))
    if not folders:
        return {}
    seeds = dict(zip(parser.seeds, seeds_of(parser), strict=True))
    return {folder.name: _read(folder, seeds) for folder in folders}


def _read(folder: Path, seeds: dict[str, Files]) -> Files:
    own = files_in(folder)
    _, seed, *missing = own.pop(ABOUT).decode().splitlines()
    files = seeds[seed.removeprefix("seed ")] | own
    return {name: content for name, content in files.items() if f"without {name}" not in missing}


def smaller(parser: Parser, files: Files, fault: Fault, trials: int = 200) -> Files:
    """An input with the same fault and less in it: parts of its files are left out as long as the fault stays."""
    left = trials

    def same(candidate: Files) -> bool:
        nonlocal left
        left -= 1
        found = fault_of(parser, candidate)
        return found is not None and found.signature == fault.signature

    for name in sorted(files, key=lambda name: -len(files[name])):
        if name.endswith(parser.left):
            continue
        step = max(1, len(files[name]) // 2)
        while step >= 1 and left > 0:
            shorter = next(_without(files, name, step, lambda candidate: left > 0 and same(candidate)), None)
            files, step = (
                (files, step // 2) if shorter is None else (shorter, min(step, max(1, len(shorter[name]) // 2)))
            )
    return files


def _without(files: Files, name: str, step: int, same: Callable[[Files], bool]) -> Iterator[Files]:
    """The file without one stretch of `step` bytes, where the fault stays."""
    content = files[name]
    for start in range(0, len(content), step):
        candidate = files | {name: content[:start] + content[start + step :]}
        if same(candidate):
            yield candidate
