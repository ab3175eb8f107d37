"""`captrain export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from captrain.cli.early import check_free, check_models
from captrain.cli.flags import TrustFlags, trust
from captrain.cli.logs import quiet_libraries

Merge = Annotated[bool, Parameter(name="--merge", negative="--keep-adapter")]
Precision = Literal["fp32", "fp16", "bf16"]


def export(
    run: str,
    out: Path,
    /,
    *,
    merge: Merge = True,
    dtype: Precision = "fp32",
    base: str | None = None,
    model_files: TrustFlags = None,
) -> int:
    """Write a trained captioner as a plain model: a folder, or one file when OUT ends in .zip.

    Both have all that captioning takes (weights, tokenizer, image preparation, decoding settings) and a card; they load with
    `captrain.load`, the folder with transformers as well.

    Args:
        run: Run folder, model folder or hub id.
        out: New folder, or a file name that ends in .zip.
        merge: Add the adapter to the weights, or keep it beside its base model.
        dtype: Precision of the written weights; the last two halve the size.
        base: Of an adapter, the model that it was trained on (folder or hub id), where that is no longer at its place.
    """
    trust(model_files)
    check_models(run)
    check_free(out)
    quiet_libraries()
    from captrain.models.checkpoint.export import export as export_captioner

    moved: dict[str, str] = {} if base is None else {"base": base}
    print(export_captioner(run, out, merge=merge, dtype=dtype, **moved))
    return 0
