"""Code beside a model's weights: refused, or with `--trust-remote-code` named and then run.

With the switch, the classes of the folder are registered with transformers' Auto classes, and the model loads like any other.
Only files of that folder are run; for a model of the hub, those of the commit that is named.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.dynamic_module_utils import (
    custom_object_save,
    get_class_from_dynamic_module,
    get_relative_import_files,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from captrain.errors import ModelError
from captrain.models.checkpoint.located import current_trust
from captrain.models.checkpoint.weight_files import inside, nested_configs

logger = logging.getLogger(__name__)

MODULES = "transformers_modules"
"""The package in which transformers keeps code of models."""
_named: set[tuple[str, str]] = set()


def check_code(source: str, content: dict[str, Any]) -> None:
    """Raise `ModelError` if a configuration needs code beside it."""
    if current_trust().remote_code:
        return
    for part in _with_code(content):
        files = ", ".join(sorted(set(_files(source, part))))
        raise ModelError(
            f"{source}: a '{part.get('model_type')}' needs the code that came with it ({files}), which captrain does not run; "
            "read that code, then run the command again with --trust-remote-code"
        )


def register_code(source: str, folder: str, content: dict[str, Any]) -> None:
    """Run the code that a configuration needs, after naming it, and register its classes with the Auto classes."""
    for part in _with_code(content):
        _announce(source, folder, sorted(set(_files(source, part))))
        references = part["auto_map"]
        if not isinstance(references.get("AutoConfig"), str):
            raise ModelError(f"{source}: its auto_map names no AutoConfig; expected one for '{part.get('model_type')}'")
        config = _class(references["AutoConfig"], folder)
        AutoConfig.register(str(part.get("model_type")), config, exist_ok=True)
        for auto, reference in references.items():
            kind: Any = getattr(transformers, str(auto), None)
            if str(auto).startswith("AutoModel") and isinstance(reference, str) and hasattr(kind, "register"):
                kind.register(config, _class(reference, folder), exist_ok=True)


def announce_tokenizer(source: str, folder: str, content: dict[str, Any]) -> None:
    """Name the code that a tokenizer is about to run."""
    _announce(source, folder, sorted(set(_files(source, {"auto_map": content["auto_map"]}))))


def save_code(model: PreTrainedModel, folder: Path) -> None:
    """Save a model's own code beside its weights, which nobody could load without it."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            for made in (type(module), type(module.config)):
                if made.__module__.startswith(MODULES):
                    custom_object_save(made, folder)


def _with_code(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a configuration that name code, and whose kind transformers does not know."""
    for part in nested_configs(content):
        if isinstance(part.get("auto_map"), dict) and "model_type" in part and part["model_type"] not in CONFIG_MAPPING:
            yield part


def _files(source: str, part: dict[str, Any]) -> Iterator[str]:
    """The files that an `auto_map` names. Raises `ModelError` if they belong to another repository."""
    references = part["auto_map"]
    values = references.values() if isinstance(references, dict) else [references]
    for value in values:
        for reference in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(reference, str):
                continue
            if "--" in reference:
                raise ModelError(
                    f"{source}: asks for code of another repository, {reference.partition('--')[0][:80]}; only code that is "
                    "beside the model is ever run"
                )
            yield f"{reference.partition('.')[0]}.py"


def _announce(source: str, folder: str, files: list[str]) -> None:
    """Log once what is about to run: the repository and its commit, or the folder, and the checksums of the files."""
    place = Path(folder)
    commit = place.name if not Path(source).exists() else ""
    where = f"{source} at commit {commit}" if commit else str(place.resolve())
    named = [inside(place, name) for name in files]
    others = [Path(path) for file in named for path in get_relative_import_files(file)]
    told = []
    for file in sorted({*named, *others}):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        told.append(f"{file.name} (sha256 {digest})")
    if (where, str(told)) not in _named:
        _named.add((where, str(told)))
        logger.warning("--trust-remote-code: runs code of %s: %s", where, ", ".join(told))


def _class(reference: str, folder: str) -> type[Any]:
    """A class of a file in the folder, which is run for it."""
    try:
        return get_class_from_dynamic_module(reference, folder, local_files_only=True)
    except Exception as error:  # of every kind: whatever a stranger's file raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(f"{folder}: its code can't be run ({reason})") from error
