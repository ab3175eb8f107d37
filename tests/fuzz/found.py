"""What was found once: kept as small inputs, and run again by each test."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fuzz.harness import Fault, Parser, seeds_of
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
