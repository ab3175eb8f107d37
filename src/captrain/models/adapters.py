"""Adapters: their base models, how they are attached and merged, and which modules LoRA adapts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import load_adapter
from captrain.models.checkpoint.located import EXTRAS, in_folder, is_cached, looks_like_path
from captrain.models.checkpoint.weight_files import read_model_json
from captrain.models.contract import CaptionerModel

CONFIG = "adapter_config.json"
BASE = "base"
"""The folder of an adapter's base model: beside the adapter in a run, inside the adapter's folder in an export."""
SAVED = {"save_embedding_layers": False}
"""Options for saving adapters. Vocabularies do not change; without this, peft would ask the hub whether they did."""

LORA = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora"}
"""The settings of adapters, and the names that peft has for them."""


def is_adapter(folder: str) -> bool:
    """Whether a model folder holds an adapter, which needs its base model."""
    return Path(folder, CONFIG).is_file()


def fetched_adapter(source: str) -> str:
    """The folder in the hub's cache of an adapter on the hub; any other name unchanged."""
    if Path(source).exists():
        return source
    folder = in_folder(source)
    return folder if is_adapter(folder) else source


def has_adapter(captioner: CaptionerModel) -> bool:
    """Whether a captioner has an adapter that is not merged."""
    return hasattr(captioner.model, "peft_config")


def check_plain(captioner: CaptionerModel) -> None:
    """Raise `ModelError` if there is an adapter already: a second one, or its base, would learn and not be saved."""
    if has_adapter(captioner):
        raise ModelError("the captioner has an adapter already; merge it first, or continue its training")


def base_of(folder: str) -> str:
    """The model that an adapter was trained on: the one that travels with it, else the one that its configuration names.

    A run's own `base/` comes first, so that a copied or moved run never uses the base of another. Raises `ModelError` if there
    is no base.
    """
    config = Path(folder, CONFIG)
    name = read_model_json(config).get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise ModelError(f"{config}: names no base model; expected base_model_name_or_path in it, or give --base")
    inside, beside = Path(folder, BASE), Path(folder).parent / BASE
    if name == BASE and inside.is_dir():
        return str(inside)
    of_a_run = Path(name).name == BASE and Path(folder).name == "model"
    if beside.is_dir() and (of_a_run or not Path(name).exists()):
        return str(beside)
    if (
        ".." in Path(name).parts and not Path(name).is_absolute()
    ):  # captrain writes this for a base that was named ../models/base
        raise missing_base(folder, name, "leads out of its folder")
    if not Path(name).exists() and looks_like_path(name):
        raise missing_base(folder, name, "is not there")
    if not Path(name).exists() and not is_cached(name):
        raise missing_base(
            folder, name, "can't be loaded (it is not on this machine, and nothing is fetched that you did not name)"
        )
    return name


def travels_with(folder: str) -> Path | None:
    """The base that captrain wrote beside an adapter; None if the base is elsewhere."""
    found = Path(base_of(folder))
    beside = found in (Path(folder, BASE), Path(folder).parent / BASE)
    return found if beside and (found / EXTRAS).is_file() else None


def missing_base(folder: str, name: str, why: str) -> ModelError:
    """The error for an adapter whose base can't be loaded."""
    return ModelError(
        f"{folder}: is an adapter, and its base model {name} {why}; put the base back, "
        f"give it to train or export as --base FOLDER (or hub id), or change base_model_name_or_path in {CONFIG}"
    )


def attach_adapter(captioner: CaptionerModel, folder: str, *, learns: bool = False) -> None:
    """Attach an adapter from a folder to its base. With `learns`, the adapter goes on learning, and nothing else does."""
    captioner.model = load_adapter(captioner.model, folder, learns=learns)
    name_base(captioner)


def name_base(captioner: CaptionerModel) -> None:
    """Write the name of the base into the adapter's configuration; for a folder, its absolute path."""
    name = str(captioner.core().name_or_path)
    model: Any = captioner.model
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(Path(name).absolute()) if name and Path(name).exists() else name


def merge_adapter(captioner: CaptionerModel) -> None:
    """Add the adapter to the weights of its base. A captioner without an adapter is left as it is.

    The merged model has no name until it is saved.

    Raises `ModelError` if a merged weight would be non-finite, if another layer shares it, or if this kind of adapter can't be
    merged.
    """
    if not has_adapter(captioner):
        return
    _check_shared(captioner)
    try:
        captioner.model = captioner.model.merge_and_unload(safe_merge=True)
    except (ValueError, AttributeError, NotImplementedError, TypeError) as error:
        raise ModelError(f"the adapter can't be merged: {' '.join(str(error).split())}") from None
    captioner.core().name_or_path = ""


def lora_of(captioner: CaptionerModel) -> dict[str, Any]:
    """The settings of an adapter that learns; of other kinds than LoRA, only the parts.

    >>> lora_of(captioner)                                                                    # doctest: +SKIP
    {'lora_parts': ('language',), 'rank': 16, 'alpha': 32, 'dropout': 0.05, 'rslora': False, 'dora': False}
    """
    model: Any = captioner.model
    config = model.peft_config["default"]
    members = captioner.parts().items()
    parts = tuple(part for part, weights in members if any(weight.requires_grad for _, weight in weights))
    names = {name: attribute for name, attribute in LORA.items() if hasattr(config, attribute)}
    return {"lora_parts": parts, **{name: getattr(config, attribute) for name, attribute in names.items()}}


def check_saved_whole(captioner: CaptionerModel) -> None:
    """Raise `ModelError` if a weight learns that would not be saved with the adapter."""
    if not has_adapter(captioner):
        return
    from peft import get_peft_model_state_dict

    saved = {tensor.data_ptr() for tensor in get_peft_model_state_dict(captioner.model, **SAVED).values()}
    lost = [name for name, weight in captioner.named_parameters() if weight.requires_grad]
    lost = [name for name in lost if captioner.get_parameter(name).data_ptr() not in saved]
    if lost:
        raise ModelError(
            f"{len(lost)} weights learn but would not be saved with the adapter, first {lost[0]}; merge the adapter first"
        )


def _check_shared(captioner: CaptionerModel) -> None:
    """Raise `ModelError` if a layer without the adapter shares an adapted weight: merging would change that layer, too."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    owners: dict[int, list[str]] = {}
    adapted: dict[int, str] = {}
    for name, module in captioner.core().named_modules(remove_duplicate=False):
        if isinstance(module, BaseTunerLayer):
            weight = getattr(module.get_base_layer(), "weight", None)
            adapted[id(weight)] = name
        elif (weight := getattr(module, "weight", None)) is not None:
            owners.setdefault(id(weight), []).append(name.removesuffix(".base_layer"))
    for number, name in adapted.items():
        if others := [other for other in owners.get(number, []) if other != name]:
            raise ModelError(
                f"the adapter can't be merged: {name} shares its weight with {others[0]}, which would change too; "
                "keep the adapter apart (export --keep-adapter, train --continue-adapter)"
            )
