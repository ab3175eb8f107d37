"""Not written yet."""

from __future__ import annotations


def recognises(source: str) -> bool:
    """Never."""
    return False
