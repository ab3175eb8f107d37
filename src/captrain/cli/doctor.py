"""`captrain doctor`."""

from __future__ import annotations

import json as json_format

from captrain.cli.show import show_table
from captrain.cli.switch import Switch


def doctor(*, json: Switch = False) -> int:
    """Look over this machine and say what to do about what is found. The exit code is 1 when something essential is broken.

    Args:
        json: Print one JSON object instead of a table.
    """
    from captrain.cli import checkup

    findings = checkup.check_packages()
    if not any(finding.status == checkup.PROBLEM for finding in findings):
        findings += checkup.check_torch()
    findings += checkup.check_machine()
    healthy = not any(finding.status == checkup.PROBLEM for finding in findings)
    if json:
        print(json_format.dumps({"ok": healthy, "checks": [finding.to_dict() for finding in findings]}))
    else:
        rows = [(finding.status, finding.name, finding.found, finding.advice) for finding in findings]
        show_table(rows, ("", "what", "found", "what to do"))
    return 0 if healthy else 1
