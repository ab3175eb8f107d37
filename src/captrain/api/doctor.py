"""`captrain.doctor`: each check of this machine says what it found, whether that is well, and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from captrain.paths import cache_folder
from captrain.version import __version__

OK, NOTE, PROBLEM = "ok", "note", "problem"
GIB = 2**30
HUB_TIMEOUT = 3.0  # seconds
LITTLE_DISK = 5 * GIB  # a large checkpoint and its optimizer fill this
LITTLE_MEMORY = 2 * GIB


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check-up. `advice` is empty where all is well; a `problem` keeps captrain from working."""

    name: str
    status: str
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CheckUp:
    """What a check of this machine found, line by line. It prints as a table."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing essential is broken."""
        return not any(finding.status == PROBLEM for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        """What was found of one thing: `checkup["torch"]`. Raises `KeyError`."""
        return {finding.name: finding for finding in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """What `captrain doctor --json` prints."""
        return {"ok": self.is_healthy, "checks": [finding.to_dict() for finding in self.findings]}

    def __repr__(self) -> str:
        lines = [
            f"{each.status:8}{each.name}: {each.found}{each.advice and f' ({each.advice})'}" for each in self.findings
        ]
        return "\n".join(lines)


def doctor() -> CheckUp:
    """Check this machine, as `captrain doctor` does: libraries, device, memory, disk, hub.

    >>> checkup = doctor()                                    # doctest: +SKIP
    >>> checkup.is_healthy, checkup["device"].found           # doctest: +SKIP
    (True, 'cpu')
    """
    findings = check_packages()
    if not any(finding.status == PROBLEM for finding in findings):
        findings += check_torch()
    return CheckUp((*findings, *check_machine()))


def check_packages() -> list[Finding]:
    """Python, captrain, the libraries it needs, and the optional ones."""
    python = Finding("Python", OK, f"{platform.python_version()} on {platform.platform(terse=True)}")
    captrain = Finding("captrain", OK, __version__)
    try:
        lines = importlib.metadata.requires("captrain") or []
    except importlib.metadata.PackageNotFoundError:
        return [python, Finding("captrain", NOTE, f"{__version__}, not installed", "run: pip install -e .")]
    needed = [Requirement(line) for line in lines]
    return [python, captrain, *(_library(each) for each in needed if each.marker is None), *_extras(needed)]


def check_torch() -> list[Finding]:
    """The device, its memory and arithmetic, threads."""
    try:
        import torch

        from captrain.models.device import choose_device, fast_bf16
    except (ImportError, OSError) as error:
        return [Finding("torch", PROBLEM, f"can't be imported: {error}", "pip install --force-reinstall torch")]
    device = choose_device()
    found = f"{device.type}{_device_name(device.type)}"
    bf16 = fast_bf16(device)
    return [
        Finding(
            "device",
            OK,
            found,
            "" if device.type != "cpu" else "large models need a GPU to train; small ones do well here",
        ),
        Finding("bf16", OK, "fast")
        if bf16
        else Finding("bf16", NOTE, "slow here", "captrain computes in fp32 on this device"),
        Finding("CPU features", OK, _cpu_features()),
        _threads(torch.get_num_threads()),
    ]


def check_machine() -> list[Finding]:
    """Memory, disk, hub, Java."""
    return [_memory(), _disk("disk (cache)", cache_folder()), _disk("disk (here)", Path.cwd()), _hub(), _java()]


def _library(needed: Requirement) -> Finding:
    """A library captrain can't do without."""
    fix = f"pip install '{needed.name}{needed.specifier}'"
    try:
        version = importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(needed.name, PROBLEM, "not installed", fix)
    if not needed.specifier.contains(version, prereleases=True):
        return Finding(needed.name, PROBLEM, f"{version}, expected {needed.specifier}", fix)
    return Finding(needed.name, OK, version)


def _extras(needed: list[Requirement]) -> Iterator[Finding]:
    """Optional packages, with the line that installs them; those for developing captrain itself are left out."""
    for extra in importlib.metadata.metadata("captrain").get_all("Provides-Extra") or []:
        for each in needed:
            if extra not in ("dev", "docs") and each.marker is not None and each.marker.evaluate({"extra": extra}):
                found = _library(each)
                advice = f"optional: pip install 'captrain[{extra}]'"
                yield found if found.status == OK else Finding(each.name, NOTE, found.found, advice)


def _device_name(kind: str) -> str:
    """A GPU's name and memory."""
    import torch

    if kind != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info()
    return f", {torch.cuda.get_device_name()}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def _cpu_features() -> str:
    """What the CPU has for fast matrix products."""
    import torch

    kinds = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX512-BF16": torch.cpu._is_avx512_bf16_supported()}
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *(name for name, there in kinds.items() if there)])


def _threads(threads: int) -> Finding:
    """Threads of torch against the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{threads} for {cores} cores"
    if threads > cores:
        return Finding("threads", NOTE, found, f"more threads than cores is slow: set OMP_NUM_THREADS={cores}")
    if threads == 1 < cores:
        return Finding("threads", NOTE, found, f"one thread only: set OMP_NUM_THREADS={cores}, or unset it")
    return Finding("threads", OK, found)


def _memory() -> Finding:
    """Main memory."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < LITTLE_MEMORY:
        return Finding(
            "memory", NOTE, found, "close other programs, or use a smaller --batch-size and --cache-features disk"
        )
    return Finding("memory", OK, found)


def _disk(name: str, folder: Path) -> Finding:
    """Free space where a folder is, or will be."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.is_dir()), Path.cwd())
    if not os.access(there, os.W_OK):
        advice = "choose another folder with CAPTRAIN_CACHE" if "cache" in name else "change to a folder of your own"
        return Finding(name, NOTE, f"{folder}: is not writable", advice)
    free = shutil.disk_usage(there).free
    found = f"{folder}: {free / GIB:.1f} GiB free"
    if free < LITTLE_DISK:
        return Finding(name, NOTE, found, "free some space: checkpoints and kept features need room")
    return Finding(name, OK, found)


def _hub() -> Finding:
    """Whether models can be downloaded."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", NOTE, "offline (HF_HUB_OFFLINE)", "use models in folders, or unset HF_HUB_OFFLINE")
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
            return Finding("hub", OK, f"{constants.ENDPOINT} answers")
    except urllib.error.HTTPError as error:
        return Finding(
            "hub", NOTE, f"{constants.ENDPOINT} answers {error.code}", "use models in folders, or HF_ENDPOINT"
        )
    except (OSError, ValueError):
        advice = "use models in folders, or HTTPS_PROXY / HF_ENDPOINT"
        return Finding("hub", NOTE, f"{constants.ENDPOINT} not reachable", advice)


def _java() -> Finding:
    """Java, which METEOR and SPICE need."""
    java = shutil.which("java")
    if java is None:
        return Finding("Java", NOTE, "not there", "only METEOR and SPICE need it: install a Java runtime (8 or newer)")
    return Finding("Java", OK, java)
