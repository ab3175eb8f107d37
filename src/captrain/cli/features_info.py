"""`captrain features info`."""

from __future__ import annotations

import json as json_format

from captrain.cli.early import check_stores
from captrain.cli.show import show_table
from captrain.cli.switch import Switch


def info(store: str, /, *, json: Switch = False) -> int:
    """Say what a feature store holds.

    Args:
        store: Feature store, or embedding folder of clip-retrieval.
        json: Print one JSON object instead of a table.
    """
    check_stores(store)
    from captrain.features.manage import describe_store

    found = describe_store(store)
    if json:
        print(json_format.dumps(found, ensure_ascii=False))
        return 0
    splits = ", ".join(f"{name} {count:,}" for name, count in found["splits"].items() if name != "all")
    preparation = ", ".join(f"{name} {value}" for name, value in (found["preparation"] or {}).items())
    rows = [
        ("images", f"{found['images']:,}" + (f" ({splits})" if splits else "")),
        ("captions", f"{found['captions']:,}"),
        ("shards", f"{found['shards']:,}"),
        ("size", f"{found['bytes'] / 1e6:,.1f} MB"),
        ("features", found["features"]),
        ("encoder", found["encoder"] or "not known"),
        ("preparation", preparation or "not known"),
    ]
    rows += [("rejected", f"{found['rejected']:,}")] if found.get("rejected") else []
    rows += [("not read", ", ".join(found["unread"]))] if found.get("unread") else []
    show_table(rows)
    return 0
