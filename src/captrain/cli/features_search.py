"""`captrain features search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.cli.early import check_models, check_stores
from captrain.cli.flags import TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import show_table


def search(
    store: str,
    picture: Path,
    /,
    *,
    count: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    encoder: str | None = None,
    model_files: TrustFlags = None,
) -> int:
    """Find the pictures whose features are nearest to a picture's.

    Args:
        store: Feature store, or several with commas between them.
        picture: Picture to compare with.
        count: How many to show.
        encoder: Where the store's encoder lies (folder or hub id). Default: where it lay when the store was written.
    """
    trust(model_files)
    check_stores(store)
    check_models(encoder)
    quiet_libraries()
    from captrain.data.shards.sources import split_list
    from captrain.features.manage import search as search_stores

    found = search_stores(split_list(store), picture, encoder=encoder, count=count)
    rows = [(f"{near.cosine:.3f}", near.id, " / ".join(near.captions[:2])) for near in found]
    show_table(rows, ("cosine", "id", "captions"))
    return 0
