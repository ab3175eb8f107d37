"""`captrain features merge`."""

from __future__ import annotations

from captrain.cli.early import check_stores
from captrain.cli.show import show_table


def merge(out: str, stores: list[str], /) -> int:
    """Make one feature store of several that one encoder made. (To use several together, list them with commas.)

    Args:
        out: Folder or URL for the new store.
        stores: Feature stores to copy.
    """
    check_stores(*stores)
    from captrain.features.manage import merge_stores as merge_stores

    counts = merge_stores(stores, out).counts()
    show_table([("images", f"{counts['images']:,}"), ("shards", f"{counts['shards']:,}"), ("store", out)])
    return 0
