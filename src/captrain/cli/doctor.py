"""`captrain doctor`."""

from __future__ import annotations

import json as json_format

from captrain.api.doctor import doctor as check_up
from captrain.cli.arguments import Switch
from captrain.cli.show import show_table


def doctor(*, json: Switch = False) -> int:
    """Check this machine, and say what to do about what is found. The exit code is 1 if something essential is broken.

    Args:
        json: Print one JSON object instead of a table.
    """
    found = check_up()
    if json:
        print(json_format.dumps(found.to_dict()))
    else:
        rows = [(finding.status, finding.name, finding.found, finding.advice) for finding in found.findings]
        show_table(rows, ("", "what", "found", "what to do"))
    return 0 if found.is_healthy else 1
