"""Runs command lines, each in a process of its own, and tells the exit code, seconds of a core, peak memory and output of each.

The processes are forked from one that has imported captrain, so that a hundred command lines take seconds. It reads a line of
JSON for each, the folder to work in and the words, and answers with a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile

SECONDS = 300  # after which a process is ended
ADDRESSES = 12 << 30  # bytes of addresses a process may take: a guard for the machine, should a limit fail


def bounded(folder: str, words: list[str]) -> dict[str, object]:
    """What one command line does in a folder."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            import resource

            os.setsid()
            os.chdir(folder)
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

    for line in sys.stdin:
        print(json.dumps(bounded(*json.loads(line))), flush=True)
