"""The check-up says what it found and what to do, and fails only when something essential is broken."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from huggingface_hub import constants

from captrain.api import doctor as checkup
from captrain.cli import main


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    """No test asks the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def by_name(capsys) -> dict[str, dict[str, str]]:
    """The findings that `--json` printed."""
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"ok", "checks"}
    return {check["name"]: check for check in found["checks"]}


def test_a_healthy_machine(capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    checks = by_name(capsys)
    assert {"Python", "captrain", "torch", "transformers", "device", "bf16", "threads", "CPU features"} <= set(checks)
    assert {"memory", "disk (cache)", "disk (here)", "hub", "Java"} <= set(checks)
    assert checks["torch"]["status"] == "ok"
    assert checks["hub"]["status"] == "note"
    assert all(check["advice"] for check in checks.values() if check["status"] != "ok")


def test_a_table_for_people(capsys, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("note") and "METEOR" in line for line in lines)


def test_a_missing_library_is_a_problem_with_its_remedy(capsys, monkeypatch) -> None:
    real = importlib.metadata.version
    versions = {"peft": None, "transformers": "4.40.0", "tensorboard": None}

    def version(name: str) -> str:
        found = versions.get(name, "") if name in versions else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor", "--json"]) == 1
    checks = by_name(capsys)
    assert checks["peft"]["status"] == "problem"
    assert checks["peft"]["advice"].startswith("pip install 'peft>=")
    assert checks["transformers"]["status"] == "problem"
    assert checks["tensorboard"] == {
        "name": "tensorboard",
        "status": "note",
        "found": "not installed",
        "advice": "optional: pip install 'captrain[track]'",
    }
    assert "device" not in checks, "what needs torch is left out while libraries are wrong"


def test_little_room_is_noted(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPTRAIN_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=checkup.GIB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=checkup.GIB, total=2 * checkup.GIB))
    findings = {finding.name: finding for finding in checkup.check_machine()}
    assert findings["disk (cache)"].status == findings["memory"].status == "note"
    assert "1.0 GiB free" in findings["disk (cache)"].found


def test_a_hub_that_does_not_answer_is_noted(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub = next(finding for finding in checkup.check_machine() if finding.name == "hub")
    assert (hub.status, hub.found) == ("note", "http://127.0.0.1:9 not reachable")


@pytest.mark.parametrize(("threads", "status"), [(1, "note"), (4, "ok"), (9, "note")])
def test_threads_that_do_not_fit_the_cores_are_noted(threads: int, status: str, monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert checkup._threads(threads).status == status
