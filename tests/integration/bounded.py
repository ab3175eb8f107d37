"""Runs command lines, each in a process of its own, and tells the exit code, seconds of a core, peak memory and output of each.

The processes are forked from one that has imported captrain, so that a hundred command lines take seconds. Usage:
`python bounded.py COMMANDS.json`, a list of lists of words; a list of results is printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

SECONDS = 300  # after which a process is ended
ADDRESSES = 12 << 30  # bytes of addresses a process may take: a guard for the machine, should a limit fail


def bounded(words: list[str]) -> dict[str, object]:
    """What one command line does."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            import resource

            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
            code = 70
            try:
                code = main(words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    seconds = round(usage.ru_utime + usage.ru_stime, 1)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "peak": usage.ru_maxrss >> 10, "said": said}


if __name__ == "__main__":
    import pyarrow.parquet  # noqa: F401

    import captrain.data.convert
    import captrain.data.preview  # noqa: F401
    from captrain.cli import main

    print(json.dumps([bounded(words) for words in json.loads(Path(sys.argv[1]).read_text())]))
