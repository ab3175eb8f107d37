"""Adapters on disk and in memory: which base they belong to, how they come onto it, and how they become part of it.

Which modules get LoRA adapters: chosen by part and kind of layer, or by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from captrain.errors import ModelError, nearest
from captrain.models.captioner import CaptionerModel, plain_name
from captrain.models.checkpoint.loading import load_adapter
from captrain.models.checkpoint.located import EXTRAS, in_folder, is_cached, looks_like_path
from captrain.models.checkpoint.weight_files import read_json

CONFIG = "adapter_config.json"
BASE = "base"
"""Folder of an adapter's base model: beside the adapter in a run, inside its folder as exported."""
SAVED = {"save_embedding_layers": False}
"""How adapters are saved: vocabularies do not change, and peft would look on the hub for whether they did."""

LORA = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora"}
"""Settings of adapters, and what peft calls them."""


def is_adapter(folder: str) -> bool:
    """Whether a model folder holds an adapter, which is nothing without its base."""
    return Path(folder, CONFIG).is_file()


def fetched(source: str) -> str:
    """An adapter on the hub as the folder of the hub's cache that it lies in; any other name as it is."""
    if Path(source).exists():
        return source
    folder = in_folder(source)
    return folder if is_adapter(folder) else source


def has_adapter(captioner: CaptionerModel) -> bool:
    """Whether a captioner has an adapter beside its weights."""
    return hasattr(captioner.model, "peft_config")


def base_of(folder: str) -> str:
    """The model that an adapter was trained on: the one that travels with it, else what its configuration names.

    A run's own `base/` comes first, so that a copied or moved run never takes up another's. Raises `ModelError` when there is
    none.
    """
    config = Path(folder, CONFIG)
    name = read_json(config).get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise ModelError(f"{config}: names no base model; expected base_model_name_or_path in it, or give --base")
    inside, beside = Path(folder, BASE), Path(folder).parent / BASE
    if name == BASE and inside.is_dir():
        return str(inside)
    of_a_run = Path(name).name == BASE and Path(folder).name == "model"
    if beside.is_dir() and (of_a_run or not Path(name).exists()):
        return str(beside)
    if ".." in Path(name).parts and not Path(name).is_absolute():  # so captrain notes what was named ../models/base
        raise missing_base(folder, name, "leads out of its folder")
    if not Path(name).exists() and looks_like_path(name):
        raise missing_base(folder, name, "is not there")
    if not Path(name).exists() and not is_cached(name):
        raise missing_base(
            folder, name, "can't be had (it is not on this machine, and nothing is fetched that you did not name)"
        )
    return name


def travels_with(folder: str) -> Path | None:
    """The base that captrain wrote beside an adapter; None where the base has a place of its own."""
    found = Path(base_of(folder))
    beside = found in (Path(folder, BASE), Path(folder).parent / BASE)
    return found if beside and (found / EXTRAS).is_file() else None


def missing_base(folder: str, name: str, why: str) -> ModelError:
    """An error that names the base of an adapter, and what can be done."""
    return ModelError(
        f"{folder}: is an adapter, and its base model {name} {why}; put the base back, "
        f"give it to train or export as --base FOLDER (or hub id), or change base_model_name_or_path in {CONFIG}"
    )


def attach_adapter(captioner: CaptionerModel, folder: str, *, learns: bool = False) -> None:
    """Put an adapter from a folder onto its base. With `learns` its weights go on learning, and nothing else does."""
    captioner.model = load_adapter(captioner.model, folder, learns=learns)
    name_base(captioner)


def name_base(captioner: CaptionerModel) -> None:
    """Let an adapter name the base that it is on; a folder by its whole path, which holds from everywhere."""
    name = str(captioner.core().name_or_path)
    model: Any = captioner.model
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(Path(name).absolute()) if name and Path(name).exists() else name


def merge_adapter(captioner: CaptionerModel) -> None:
    """Add what the adapter learned to the weights it was trained beside; a captioner without one stays as it is.

    The merged model is on no disk yet, so it has no name until it is saved.

    Raises `ModelError` when a merged weight would not be finite, when another layer shares it, or for a kind of adapter that
    can't be merged.
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
    """An adapter that learns, in the words of the settings; other kinds than LoRA have none but the parts.

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
    """Raise `ModelError` where something learns that would not be saved with the adapter."""
    if not has_adapter(captioner):
        return
    saved = {tensor.data_ptr() for tensor in get_peft_model_state_dict(captioner.model, **SAVED).values()}
    lost = [name for name, weight in captioner.named_parameters() if weight.requires_grad]
    lost = [name for name in lost if captioner.get_parameter(name).data_ptr() not in saved]
    if lost:
        raise ModelError(
            f"{len(lost)} weights learn that are not saved with the adapter, first {lost[0]}; merge the adapter before"
        )


def _check_shared(captioner: CaptionerModel) -> None:
    """Merging changes the weight itself: a layer without the adapter that shares it would change as well."""
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


LAYERS = ("attention", "feed-forward", "all-linear")
"""Kinds of layers that adapters can be asked for."""

ATTENTION_BLOCK = re.compile(r"attn|attention", re.IGNORECASE)
ATTENTION_LAYER = re.compile(r"query|key|value|qkv|(q|k|v|o|qkv|out|in)_proj|[qkvo]|to_(queries|keys_values)")


def lora_modules(
    captioner: CaptionerModel,
    parts: Sequence[str] = ("language",),
    layers: Sequence[str] = ("attention", "feed-forward"),
    target_modules: Sequence[str] = (),
    fresh_modules: Sequence[str] = (),
) -> list[str]:
    """Full names of the modules that get adapters, in the model's order.

    Args:
        parts: of `vision`, `bridge` and `language`. layers: of `LAYERS`; `all-linear` is every matrix of the part but the
            vocabulary's, in blocks or not.
        target_modules: ends of module names, instead of parts and layers. fresh_modules: modules that learn whole instead.

    Raises `ModelError` when a name or a part matches nothing.
    """
    fresh = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, fresh_modules))})(\..*)?") if fresh_modules else None
    names = [name for name in linear_modules(captioner) if not (fresh and fresh.fullmatch(name))]
    if target_modules:
        return _named(names, target_modules)
    chosen: set[str] = set()
    for part in parts:
        found = _of_part(captioner, part, names)
        wanted = [name for name in found if "all-linear" in layers or kind_of(name) in layers]
        if "all-linear" not in layers:
            wanted = _matching(captioner.lora_targets(part), wanted)
        if not wanted:
            raise _nothing_there(captioner, part, layers)
        chosen.update(wanted)
    return [name for name in names if name in chosen]


def kind_of(name: str) -> str:
    """Whether a layer belongs to its block's attention or to its feed-forward half, by the names people give them.

    >>> kind_of("h.0.crossattention.c_proj"), kind_of("h.0.mlp.c_proj"), kind_of("layer.1.output.dense")
    ('attention', 'feed-forward', 'feed-forward')
    """
    inside = re.split(r"\.\d+\.", name)[-1]  # what comes after the number of the block
    block, _, last = inside.rpartition(".")
    is_attention = ATTENTION_BLOCK.search(block) or ATTENTION_LAYER.fullmatch(last)
    return "attention" if is_attention else "feed-forward"


def linear_modules(captioner: CaptionerModel) -> list[str]:
    """Names of all modules that an adapter can be put on."""
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, Conv1D)
    return [plain_name(name) for name, module in captioner.named_modules() if isinstance(module, kinds)]


def _of_part(captioner: CaptionerModel, part: str, names: Sequence[str]) -> list[str]:
    """A part's matrices, the vocabulary's left out."""
    modules = {plain_name(name): module for name, module in captioner.part_modules(part)}
    head = captioner.decoder.get_output_embeddings()
    return [
        name for name in names if isinstance(module := modules.get(name), (nn.Linear, Conv1D)) and module is not head
    ]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that a family's pattern matches whole; an empty pattern matches none."""
    return [name for name in names if pattern and re.fullmatch(pattern, name)]


def _named(names: Sequence[str], ends: Sequence[str]) -> list[str]:
    """Modules whose names end as asked, as peft matches them; an end that matches nothing is an error."""
    for end in ends:
        if not any(name == end or name.endswith("." + end) for name in names):
            kinds = sorted({re.sub(r".*\.\d+\.", "", name) for name in names})
            hint = nearest(end, [*kinds, *(kind.rpartition(".")[2] for kind in kinds)])
            raise ModelError(
                f"target_modules: '{end}' matches no module of this model.{hint} It has: {', '.join(kinds)}"
            )
    return [name for name in names if any(name == end or name.endswith("." + end) for end in ends)]


def _nothing_there(captioner: CaptionerModel, part: str, layers: Sequence[str]) -> ModelError:
    """A part that should learn has no such layers; if it has others, they are named."""
    names = linear_modules(captioner)
    known = _matching(captioner.lora_targets(part), names)
    others = sorted({kind_of(name) for name in known})
    if not others and _of_part(captioner, part, names):
        others = ["all-linear"]
    asked = " or ".join(layers)
    hint = f"; it has {' and '.join(others)}" if others else ""
    return ModelError(
        f"lora_parts: the part '{part}' of a {captioner.family} captioner has no layers for adapters ({asked}){hint}"
    )
