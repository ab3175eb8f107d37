"""`captrain report`."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, /, *, output: Path | None = None) -> int:
    """Turn a run folder into one HTML file, and print where it is.

    Args:
        run: Run folder.
        output: File to write. Default: report.html in the run folder.
    """
    from captrain.report.run import write_report

    print(write_report(run, output))
    return 0
