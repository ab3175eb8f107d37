"""Good manners on a machine that others use too: how threads wait for each other, and how memory is kept.

torch's threads spin while they wait: one busy neighbour on one of two cores makes encoding many times slower. And glibc gives
large blocks back to the system after each use: a step then waits for pages that it had a moment before.

`captrain` sets these rules in its own processes, before torch is loaded. `import captrain` sets none of them. No result changes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class SharingRule:
    """One rule, by the name of the environment variable that sets it.

    Attributes:
        value: what captrain sets. why: what it is good for.
        also: other variables by which a user decides the same. option: its number for `mallopt`, where glibc has it.
    """

    name: str
    value: str
    why: str
    also: tuple[str, ...] = ()
    option: int | None = None

    def decided(self, environment: Mapping[str, str]) -> str | None:
        """What the user says, as `NAME=value`; None where nothing is said."""
        for name in (self.name, *self.also):
            if name in environment:
                return f"{name}={environment[name]}"
        tunable = f"glibc.malloc.{self.name.removeprefix('MALLOC_').strip('_').lower()}"
        said = environment.get("GLIBC_TUNABLES", "").split(":")
        return next((line for line in said if self.option and line.startswith(f"{tunable}=")), None)


RULES = (
    SharingRule(
        "OMP_WAIT_POLICY",
        "PASSIVE",
        "threads that wait sleep, and leave the core to others",
        ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"),
    ),
    SharingRule("MALLOC_MMAP_THRESHOLD_", str(256 * MIB), "blocks up to 256 MiB are used again", option=-3),
    SharingRule(
        "MALLOC_TRIM_THRESHOLD_", str(1024 * MIB), "up to 1 GiB of free memory is kept for the next step", option=-1
    ),
    SharingRule("MALLOC_TOP_PAD_", str(128 * MIB), "memory grows in pieces of 128 MiB", option=-2),
)
"""The largest block that one family allocates at a time decides the first size; the others keep a step's memory together."""


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule in this process: its name, the value that holds, and who set it (`captrain`, `you` or `nobody`)."""

    name: str
    value: str
    by: str
    why: str


_set_here: dict[str, str] = {}
"""The rules that captrain has set in this process, by name."""


def share_machine() -> list[RuleState]:
    """Set the rules in this process, so that it works well beside others. A rule that you set yourself stays as it is.

    The command `captrain` calls this before it loads torch, and so does each process that captrain starts. In Python it is
    yours to call, before torch is imported: later, threads go on spinning, and only memory is kept. The rules hold until the
    process ends.

    Returns:
        Each rule with its value and who set it.

    >>> share_machine()[0]                                              # doctest: +SKIP
    RuleState(name='OMP_WAIT_POLICY', value='PASSIVE', by='captrain', why='threads that wait sleep, ...')
    """
    for rule in RULES:
        if rule.name not in _set_here and rule.decided(os.environ) is None and _set(rule):
            _set_here[rule.name] = rule.value
    return rule_states()


def rules_for_children() -> dict[str, str]:
    """The variables that set the rules in processes that are started from here, without those that the user has decided."""
    return {rule.name: rule.value for rule in RULES if rule.decided(os.environ) is None}


def rule_states() -> list[RuleState]:
    """Each rule with the value that holds in this process, and who set it. Nothing is changed."""
    return [_state(rule) for rule in RULES]


def _state(rule: SharingRule) -> RuleState:
    if rule.name in _set_here:
        return RuleState(rule.name, _set_here[rule.name], "captrain", rule.why)
    said = rule.decided(os.environ)
    if said is None:
        return RuleState(rule.name, "the system's own", "nobody", rule.why)
    name, _, value = said.partition("=")
    return RuleState(rule.name, value if name == rule.name else said, "you", rule.why)


def _set(rule: SharingRule) -> bool:
    """Set one rule; False where it can't hold, because torch is loaded or this is not glibc.

    OpenMP reads its variable when torch is loaded, and the processes that this one starts have it too. glibc reads its
    variables before the first line of Python, so it is told by a call, in each process anew.
    """
    if rule.option is None:
        if "torch" in sys.modules:
            return False
        os.environ[rule.name] = rule.value
        return True
    return _mallopt(rule.option, int(rule.value))


def _mallopt(option: int, value: int) -> bool:
    """Tell glibc's allocator; False where the C library is another one, or does not take the value."""
    import ctypes

    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(option, value))
