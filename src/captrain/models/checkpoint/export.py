"""Exporting captioners (adapter merged, weights in a chosen precision, a model card), and the model hub: upload and download."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from captrain.disk.folders import fresh_folder, make_folder, sync_folder, sync_tree
from captrain.disk.locks import locked
from captrain.disk.writing import write_text
from captrain.errors import CaptrainError, ModelError
from captrain.models.adapters import BASE, has_adapter, merge_adapter
from captrain.models.checkpoint.archive import SUFFIX, check_out_free, unpacked, write_archive
from captrain.models.checkpoint.card import RECIPE, model_card, training_recipe
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.checkpoint.located import current_trust, fetch_snapshot, find_model_folder
from captrain.models.contract import CaptionerModel

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export(source: str, out: Path, *, merge: bool = True, dtype: Precision = "fp32", base: str | None = None) -> Path:
    """Write a captioner to a new folder, or to one file when `out` ends in `.zip`; returns where it is.

    Args:
        source: run folder, model folder, archive or hub id.
        merge: add the adapter to the weights; otherwise keep it apart, beside its base model unless that is on the hub.
        dtype: the precision of the written weights.
        base: the model that an adapter was trained on, if it is not where the adapter says.

    Raises `ModelError` if there is no such captioner, if `out` exists, or if the weights do not fit into `dtype`.
    """
    check_out_free(out)
    make_folder(out.parent)
    with locked(out), fresh_folder(out.parent) as staging:  # on the same disk: one rename publishes it
        folder = staging / "model"
        write_model(source, folder, out.name.removesuffix(SUFFIX), merge=merge, dtype=dtype, base=base)
        if out.suffix.lower() == SUFFIX:
            write_archive(folder, out)
        else:
            sync_tree(folder)
            os.replace(folder, out)
            sync_folder(out.parent)
    return out


def write_model(
    source: str,
    folder: Path,
    name: str,
    *,
    merge: bool = True,
    dtype: Precision = "fp32",
    hub_id: str = "",
    base: str | None = None,
) -> None:
    """Write a captioner, its card and the recipe of its training to a folder; see `export`.

    `name` is for the card; `hub_id` is its future hub id.
    """
    with unpacked(find_model_folder(source)) as there:  # open until the end: a kept adapter's base may be in there
        captioner = load_captioner(there) if base is None else load_captioner(there, base=base)
        found = str(captioner.core().name_or_path)
        if merge:
            merge_adapter(captioner)
        elif not has_adapter(captioner):
            raise ModelError(
                f"{source}: has no adapter to keep, as all its weights were trained; leave out --keep-adapter"
            )
        elif Path(found).exists():
            save_captioner(load_captioner(found), folder / BASE)
            captioner.model.peft_config["default"].base_model_name_or_path = BASE
        cast_weights(captioner, dtype)
        save_captioner(captioner, folder)
        write_text(folder / "README.md", model_card(Path(source), captioner, name, found, hub_id))
        if recipe := training_recipe(Path(source)):
            write_text(folder / RECIPE, recipe)


def cast_weights(captioner: CaptionerModel, dtype: Precision) -> None:
    """Convert all weights to a precision. Raises `ModelError` if one is too large for it."""
    kind = DTYPES[dtype]
    largest = torch.finfo(kind).max
    for name, weight in captioner.model.named_parameters():
        if bool((weight.detach().abs() > largest).any()):
            raise ModelError(f"{name} has a weight that is too large for {dtype} (over {largest:g}); use --dtype bf16")
    captioner.model.to(kind)


def push(source: str, hub_id: str, *, public: bool = False, merge: bool = True, dtype: Precision = "fp32") -> str:
    """Upload an exported captioner with its card; returns its address.

    A new repository is private unless `public`; an existing one stays as it is.

    Raises `ModelError` for an invalid hub id, or without a token; `CaptrainError` if the hub refuses or can't be reached.
    """
    check_hub_id(hub_id)
    if get_token() is None:
        raise ModelError("no token for the model hub; run 'hf auth login', or set HF_TOKEN to a token that can write")
    hub = HfApi()
    with TemporaryDirectory(prefix="captrain-") as staging:
        folder = Path(staging) / "model"
        write_model(source, folder, hub_id.rpartition("/")[2], merge=merge, dtype=dtype, hub_id=hub_id)
        try:
            place = hub.create_repo(hub_id, private=not public, exist_ok=True)
            hub.upload_folder(
                repo_id=hub_id, folder_path=folder, commit_message="Upload a captioner made with captrain"
            )
        except HfHubHTTPError as error:
            raise CaptrainError(
                f"{hub_id}: the hub refused it ({_one_line(error)}); check that the token may write there"
            ) from None
        except Exception as error:  # of every kind: httpx's and requests' errors have no common parent
            raise CaptrainError(
                f"{hub_id}: the hub can't be reached ({_one_line(error)}); check the network and try again"
            ) from None
    return str(place)


def download_model(hub_id: str, cache: Path) -> str:
    """Copy a model of the hub below `cache`; returns its folder. Files that are there already are not fetched again.

    Raises `ModelError` if it can't be downloaded.
    """
    check_hub_id(hub_id)
    try:
        return fetch_snapshot(hub_id, cache, code=current_trust().remote_code)
    except Exception as error:  # of every kind, as above
        raise ModelError(f"{hub_id}: can't be fetched from the hub to {cache} ({_one_line(error)})") from None


def check_hub_id(hub_id: str) -> None:
    """Raise `ModelError` unless a name is a valid hub id."""
    try:
        validate_repo_id(hub_id)
    except HFValidationError:
        raise ModelError(f"{hub_id}: is not a valid hub id; expected owner/name, such as ada/cat-captions") from None


def _one_line(error: Exception) -> str:
    """The first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
