"""The one place where transformers, peft and the hub's library load anything for captrain.

What comes from the hub is first put into this machine's cache, of the one repository that was named; from there on everything
is read from a folder, with the network closed. Nothing that a model's files say runs code, names another repository, or takes
a kernel from the hub. Held by `tests/unit/test_models_loading.py`: nobody else calls `from_pretrained` and its kin.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
import transformers.dynamic_module_utils
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captrain.errors import ModelError
from captrain.models.checkpoint.located import asked, in_folder, offline
from captrain.models.checkpoint.trusted_code import announce_tokenizer, check_code, register_code
from captrain.models.checkpoint.weight_files import (
    PICKLED_ADAPTER,
    SAFE_ADAPTER,
    check_built,
    check_counts,
    find_weights,
    inside,
    read_json,
)

logger = logging.getLogger(__name__)

ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Ways of computing attention that take nothing from the hub."""
EXPERTS = (None, "eager", "grouped_mm", "batched_mm")
"""The same of mixtures of experts."""
QUANTIZED = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit")
"""Kinds of few-bit weights whose code is in an installed package; others take theirs from the hub."""
ADAPTERS = frozenset(
    (
        *("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "VERA", "FOURIERFT", "LN_TUNING", "RANDLORA"),
        *("MISS", "C3A", "ROAD", "SHIRA", "HIRA", "WAVEFT"),
    )
)
"""Kinds of adapters that lie on layers; others may name tokenizers and adapters elsewhere."""

SETTINGS_FILES = ("generation_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json")
"""Files that the library reads, too, and that are looked at before."""
PATTERNS = (
    *("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern", "target_parameters"),
    "modules_to_save",
)
"""Settings of an adapter in which peft finds regular expressions."""
_REPEATED = re.compile(r"\)(?:[*+]|\{[0-9]*,)")  # a group that repeats: what is in it may match in 2^n ways
_UNBOUNDED = re.compile(r"(?<!\\)(?:[*+]|\{[0-9]*,[0-9]*\})")
MOST_UNBOUNDED = 6
_ROUNDS = re.compile(r"pissa_niter_[0-9]{1,2}")

transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # nothing is ever asked on the terminal


def read_config(source: str) -> PreTrainedConfig:
    """A checkpoint's configuration, of which nothing can lead to code or to another model.

    Raises `ModelError` where it needs code of its own, unless `--trust-remote-code` was given.
    """
    folder = in_folder(source)
    content = read_json(Path(folder, "config.json"))
    check_counts(source, content, None)
    check_code(source, content)
    with offline():
        if asked().remote_code:
            register_code(source, folder, content)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config._name_or_path = source
    return _tamed(config, source)


def part_config(values: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a part, from what the whole model's says of it."""
    settings = dict(values)
    with offline():
        return _tamed(
            AutoConfig.for_model(settings.pop("model_type"), **settings), str(values.get("_name_or_path", ""))
        )


def new_model(kind: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of a kind (an Auto class) without weights."""
    return cast(PreTrainedModel, kind.from_config(config, trust_remote_code=False))


def class_for(kind: Any, config: PreTrainedConfig) -> Any:
    """The class that an Auto class has for a configuration."""
    found = kind._model_mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found


def load_model(kind: Any, source: str, config: PreTrainedConfig | None = None, **how: Any) -> PreTrainedModel:
    """A model of a class, in fp32 unless it is quantised; see `load_with_report`."""
    return load_with_report(kind, source, config, **how)[0]


def load_with_report(
    kind: Any, source: str, config: PreTrainedConfig | None = None, **how: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of a class, and what was missing from its files.

    Raises `ModelError` where its weights do not lie in its folder, or do not fit its configuration.
    """
    folder = in_folder(source)
    config = read_config(source) if config is None else config
    weights = find_weights(folder)
    for name in SETTINGS_FILES:
        if Path(folder, name).exists():
            read_json(Path(folder, name))
    check_counts(source, config.to_dict(), weights)
    with offline():
        check_built(source, kind, config, weights)
        model, report = kind.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False,
            local_files_only=True, use_safetensors=weights.safe, weights_only=True, **how,
        )  # fmt: skip
    model.name_or_path = model.config._name_or_path = source
    return model, report


def load_tokenizer_files(source: str) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer. With `--trust-remote-code` one that is made by code of its own, too."""
    folder = in_folder(source)
    for file in sorted(Path(folder).iterdir()):
        if file.suffix in (".json", ".txt", ".model", ".jinja"):
            inside(Path(folder), file.name)
    stated = Path(folder, "tokenizer_config.json")
    code = read_json(stated) if stated.is_file() else {}
    if runs := asked().remote_code and "auto_map" in code:
        announce_tokenizer(source, folder, code)
    with offline():
        return cast(
            PreTrainedTokenizerBase,
            AutoTokenizer.from_pretrained(folder, trust_remote_code=runs, local_files_only=True),
        )


def load_adapter(model: PreTrainedModel, folder: str, *, learns: bool) -> PeftModel:
    """An adapter of a folder on its base. Raises `ModelError` for kinds of adapters that could lead elsewhere."""
    config = read_json(Path(folder, "adapter_config.json"))
    kind = str(config.get("peft_type", "")).upper()
    if kind not in ADAPTERS:
        raise ModelError(
            f"{folder}: an adapter of kind {kind[:40]!r} is not loaded; expected {', '.join(sorted(ADAPTERS))}"
        )
    if config.get("megatron_config"):
        raise ModelError(
            f"{folder}: adapter_config.json names code to import (megatron_core); take megatron_config out of it"
        )
    _check_patterns(folder, config)
    weights = find_weights(folder, SAFE_ADAPTER, PICKLED_ADAPTER)
    _check_ranks(folder, config, weights.dims if weights.safe else None)
    with offline():
        return PeftModel.from_pretrained(model, folder, is_trainable=learns, local_files_only=True)


def _check_patterns(folder: str, config: dict[str, Any]) -> None:
    """Raise `ModelError` for patterns of modules' names that could take for ever: Python's `re` has no limit of time."""
    for key in PATTERNS:
        value = config.get(key)
        for pattern in value if isinstance(value, (list, dict)) else [value]:
            if _REPEATED.search(str(pattern)) or len(_UNBOUNDED.findall(str(pattern))) > MOST_UNBOUNDED:
                raise ModelError(
                    f"{folder}: adapter_config.json has the pattern {str(pattern)[:80]!r} in {key}, which could take for ever; "
                    "list the names of the modules there"
                )


def _check_ranks(folder: str, config: dict[str, Any], dims: frozenset[int] | None) -> None:
    """Raise `ModelError` for a rank that no tensor of the adapter has; of pickles, for one beyond all reason."""
    ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
    for rank in ranks:
        if isinstance(rank, int) and rank > 64 and (rank not in dims if dims is not None else rank > 65536):
            raise ModelError(
                f"{folder}: adapter_config.json states rank {rank:,}, which none of its weights has; copy it again"
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and "niter" in start and not _ROUNDS.fullmatch(start):
        raise ModelError(
            f"{folder}: adapter_config.json has init_lora_weights {start[:80]!r}; expected at most 99 rounds"
        )
    if config.get("layer_replication"):
        raise ModelError(
            f"{folder}: its adapter repeats layers of its base (layer_replication), which is not supported"
        )


def _tamed(config: PreTrainedConfig, source: str) -> PreTrainedConfig:
    """A configuration, and those inside it, without what could lead to code or to files elsewhere."""
    for part in _configs(config):
        if getattr(part, "transformers_weights", None):
            del part.transformers_weights
        if part._attn_implementation not in ATTENTION:
            logger.warning(
                "%s: attention %r is code from elsewhere, and is not taken", source, part._attn_implementation
            )
            part._attn_implementation = None
        if part._experts_implementation not in EXPERTS:
            logger.warning(
                "%s: experts %r are code from elsewhere, and are not taken", source, part._experts_implementation
            )
            part._experts_implementation = None
        if not asked().remote_code and hasattr(part, "auto_map"):
            del part.auto_map
        _check_quantized(source, getattr(part, "quantization_config", None))
    return config


def _check_quantized(source: str, how: Any) -> None:
    """Raise `ModelError` for few-bit weights whose code would come from the hub."""
    kind = (how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)) if how else None
    kind = getattr(kind, "value", kind)
    if how and kind not in QUANTIZED:
        raise ModelError(
            f"{source}: its weights are quantised by {str(kind)[:40]!r}, which could take code from the hub; expected plain "
            "weights, or bitsandbytes"
        )


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and all inside it."""
    waiting, seen = [config], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting.extend(value for value in vars(part).values() if isinstance(value, PreTrainedConfig))
