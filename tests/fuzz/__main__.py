"""The command line: `python -m fuzz [--inputs 10000] [--parser NAME ...] [--seed 0] [--jobs 1] [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

for _name in ("OMP_NUM_THREADS", "ARROW_IO_THREADS", "MALLOC_ARENA_MAX"):
    os.environ.setdefault(_name, "1")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from fuzz.found import keep, kept, smaller  # noqa: E402
from fuzz.harness import Report, fault_of, fuzz  # noqa: E402
from fuzz.inputs import FORK, Drawn, Parser, seeds_of  # noqa: E402
from fuzz.parsers import GROUPS, PARSERS  # noqa: E402


def main() -> int:
    """Fuzz, print the table, keep what was found. Exit code 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--parser", nargs="*", default=[], help="names, how they begin, or groups; default: all")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each parser")
    parser.add_argument("--seed", type=int, default=0, help="that all draws begin with")
    parser.add_argument("--jobs", type=int, default=1, help="parsers at a time")
    parser.add_argument(
        "--quick", action="store_true", help="a bounded run: as many inputs as take about a second each"
    )
    parser.add_argument("--trail", help="run this one input of the parser, and say what comes of it")
    parser.add_argument("--replay", action="store_true", help="run what was found before, and nothing else")
    parser.add_argument("--keep", action="store_true", help="make what is found small, and keep it in found/")
    given = parser.parse_args()
    chosen = [each for each in PARSERS if not given.parser or _is_named(each, given.parser)]
    if not chosen:
        parser.error(
            f"no such parser; there are {', '.join(each.label for each in PARSERS)}; groups: {', '.join(GROUPS)}"
        )
    for module in dict.fromkeys(name for each in chosen for name in each.needs):
        importlib.import_module(module)
    if given.trail:
        print(fault_of(chosen[0], Drawn(chosen[0], given.seed, seeds_of(chosen[0])).files(given.trail)))
        return 0
    if given.replay:
        return _replay(chosen)
    began, reports = time.monotonic(), []
    print(f"{'parser':24} {'inputs':>7} {'rejected':>9} {'accepted':>9} {'found':>6} {'ms':>7} {'MB':>6}", flush=True)
    with ProcessPoolExecutor(given.jobs, mp_context=FORK) as pool:
        inputs = [each.quick if given.quick else given.inputs for each in chosen]
        for report in pool.map(_fuzz, [each.name for each in chosen], inputs, [given.seed] * len(chosen)):
            reports.append(report)
            print(_line(report), flush=True)
            for fault, trail in report.faults.values():  # while others run; the table is told whole at the end
                print(f"  {trail}: {fault.kind} in {fault.where}"[:80], flush=True)
    total = sum(report.inputs for report in reports)
    print(
        f"{len(reports)} parsers, {total:,} inputs in {time.monotonic() - began:.0f} s; ms and MB: of the worst input"
    )
    return _tell(reports, {each.name: each for each in chosen}, given.seed, given.keep)


def _replay(parsers: list[Parser]) -> int:
    """Run what was found before; exit code 1 if anything of it is still wrong."""
    wrong = count = 0
    for parser in parsers:
        for digest, files in kept(parser).items():
            fault, count = fault_of(parser, files), count + 1
            if fault is not None:
                wrong += 1
                print(f"{parser.label}/{digest}: {fault.kind} in {fault.where}\n  {fault.text}")
    print(f"{count} inputs that were found before: {wrong} still wrong")
    return 1 if wrong else 0


def _is_named(parser: Parser, names: list[str]) -> bool:
    return any(parser in GROUPS.get(name, ()) or parser.label.startswith(name.replace(" ", "-")) for name in names)


def _fuzz(name: str, inputs: int, seed: int) -> Report:
    return fuzz(next(each for each in PARSERS if each.name == name), inputs, seed)


def _line(report: Report) -> str:
    numbers = f"{report.inputs:7,} {report.rejected:9,} {report.accepted:9,} {len(report.faults):6}"
    return f"{report.parser:24} {numbers} {report.slowest * 1000:7.0f} {report.peak / 2**20:6.0f}"


def _tell(reports: list[Report], parsers: dict[str, Parser], seed: int, kept: bool) -> int:
    """Say what was found, and how to see it again."""
    for report in reports:
        for signature, (fault, trail) in report.faults.items():
            print(
                f"\n--parser {report.parser.replace(' ', '-')} --seed {seed} --trail {trail}: "
                f"{fault.kind} in {fault.where} ({report.counts[signature]} times)"
            )
            print(f"  {fault.text}")
            if kept and fault.kind != "seed":
                parser = parsers[report.parser]
                files = Drawn(parser, seed, seeds_of(parser)).files(trail)
                print(f"  kept: {keep(parser, smaller(parser, files, fault), fault)}")
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
