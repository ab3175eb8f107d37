"""Rules for shared machines: set before torch, never against the user, and only where captrain's own processes begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from captrain import manners
from captrain.manners import RULES, rule_states, rules_for_children, share_machine

NAMES = [rule.name for rule in RULES]
GLIBC = sys.platform == "linux" and os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") else ""


def states(code: str, **environment: str) -> dict[str, list[str]]:
    """Value and setter of each rule in a fresh interpreter, after some code."""
    code += "\nimport json; from captrain.manners import rule_states"
    code += "\nprint(json.dumps({state.name: [state.value, state.by] for state in rule_states()}))"
    clean = {name: value for name, value in os.environ.items() if name not in (*NAMES, "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = json.loads(output.splitlines()[-1])
    return found


def test_an_import_sets_nothing() -> None:
    assert {by for _, by in states("import captrain; captrain.train; captrain.load").values()} == {"nobody"}


def test_the_call_sets_every_rule_and_says_so() -> None:
    found = states("import captrain; captrain.share_machine()")
    assert found["OMP_WAIT_POLICY"] == ["PASSIVE", "captrain"]
    setters = {by for name, (_, by) in found.items() if name.startswith("MALLOC")}
    assert setters == ({"captrain"} if GLIBC else {"nobody"})


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE", "OMP_WAIT_POLICY"),
        ("GOMP_SPINCOUNT", "100", "OMP_WAIT_POLICY"),
        ("MALLOC_TRIM_THRESHOLD_", "131072", "MALLOC_TRIM_THRESHOLD_"),
        ("GLIBC_TUNABLES", "glibc.malloc.top_pad=4096", "MALLOC_TOP_PAD_"),
    ],
)
def test_what_the_user_set_wins(variable: str, value: str, rule: str) -> None:
    found = states("import captrain; captrain.share_machine()", **{variable: value})
    assert found[rule][1] == "you"
    assert value in found[rule][0]


def test_too_late_for_threads_once_torch_is_there() -> None:
    found = states("import sys; sys.modules['torch'] = sys; import captrain; captrain.share_machine()")
    assert found["OMP_WAIT_POLICY"][1] == "nobody"


def test_openmp_reads_the_rule_when_torch_is_loaded() -> None:
    """libgomp itself says what it took (OMP_DISPLAY_ENV), so this fails if the variable came too late or was renamed."""
    code = "import captrain; captrain.share_machine(); import torch"
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", code]
    told = subprocess.run(
        command, env=clean | {"OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True, check=True
    ).stderr
    if "OMP_WAIT_POLICY" not in told:
        pytest.skip("this OpenMP does not show its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told


def test_the_command_sets_them_before_torch_and_doctor_shows_them() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-m", "captrain", "doctor", "--json"]
    environment = clean | {"HF_HUB_OFFLINE": "1", "MALLOC_TOP_PAD_": "4096"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    checks = {check["name"]: check["found"] for check in json.loads(output)["checks"]}
    assert checks["OMP_WAIT_POLICY"].startswith("PASSIVE, set by captrain: ")
    assert checks["MALLOC_TOP_PAD_"].startswith("4096, set by you: ")
    assert set(NAMES) <= set(checks)


def test_processes_that_are_started_have_what_the_user_has_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert list(rules_for_children()) == [name for name in NAMES if name != "OMP_WAIT_POLICY"]


def test_another_c_library_has_none_of_the_memory_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manners, "_mallopt", lambda option, value: False)
    monkeypatch.setattr(manners, "_set_here", {})
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    share_machine()
    assert {state.by for state in rule_states()} == {"nobody"}, "torch is loaded in this process"
