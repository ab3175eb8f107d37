"""`captrain features verify`."""

from __future__ import annotations

from captrain.cli.early import check_stores
from captrain.cli.show import show_table

DAMAGED = 1


def verify(store: str, /) -> int:
    """Check every file of a feature store: checksums, shapes, counts.

    Exit code 1 when something is wrong.

    Args:
        store: Feature store.
    """
    check_stores(store)
    from captrain.features.manage import verify_store as verify_store

    problems = verify_store(store)
    if problems:
        show_table([(problem.file, problem.reason) for problem in problems], ("file", "problem"))
        return DAMAGED
    print("all files are as the manifest says")
    return 0
