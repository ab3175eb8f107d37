"""The one place where transformers, peft and the hub's library load anything for captrain.

A repository of the hub is first copied to this machine's cache; then everything is read from a folder, without the network.
Nothing in a model's files can run code, name another repository, or take a kernel from the hub. A test makes sure that no
other module calls `from_pretrained` and the like (`tests/unit/test_models_loading.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers.dynamic_module_utils
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from captrain.errors import ModelError
from captrain.models.checkpoint.located import current_trust, in_folder, offline
from captrain.models.checkpoint.trusted_code import announce_tokenizer, check_code, register_code
from captrain.models.checkpoint.weight_files import (
    PICKLED_ADAPTER,
    SAFE_ADAPTER,
    check_built,
    check_counts,
    find_weights,
    inside,
    read_model_json,
)
from captrain.models.families import FAMILIES, import_object

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Implementations of attention that take nothing from the hub."""
EXPERTS = (None, "eager", "grouped_mm", "batched_mm")
"""The same for mixtures of experts."""
QUANTIZED = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit")
"""Quantised weights whose code is in an installed package; that of others comes from the hub."""
ADAPTERS = frozenset(
    (
        *("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "VERA", "FOURIERFT", "LN_TUNING", "RANDLORA"),
        *("MISS", "C3A", "ROAD", "SHIRA", "HIRA", "WAVEFT"),
    )
)
"""Adapters on layers; other kinds may name tokenizers and adapters elsewhere."""

SETTINGS_FILES = ("generation_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json")
"""Other files that the library reads, which are checked first."""
PATTERNS = (
    *("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern", "target_parameters"),
    "modules_to_save",
)
"""Settings of an adapter that peft takes for regular expressions."""
_REPEATED = re.compile(r"\)(?:[*+]|\{[0-9]*,)")  # a group that repeats: its content may match in 2^n ways
_UNBOUNDED = re.compile(r"(?<!\\)(?:[*+]|\{[0-9]*,[0-9]*\})")
MOST_UNBOUNDED = 6
_ROUNDS = re.compile(r"pissa_niter_[0-9]{1,2}")

transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # never ask on the terminal


_registered: set[str] = set()


def register_own_models() -> None:
    """Register the models that families define themselves (`Family.own_models`) with the Auto classes of transformers.

    This is the one place that does so. It runs before any configuration is read.
    """
    for place in (place for family in FAMILIES.values() for place in family.own_models):
        if place not in _registered:
            _registered.add(place)
            model = import_object(place)
            config = model.config_class
            if config.model_type not in CONFIG_MAPPING:
                AutoConfig.register(config.model_type, config)
            AutoModel.register(config, model, exist_ok=True)


def read_config(source: str) -> PreTrainedConfig:
    """The configuration of a checkpoint, without anything that leads to code or to another model.

    Raises `ModelError` if it needs its own code, unless `--trust-remote-code` was given.
    """
    folder = in_folder(source)
    content = read_model_json(Path(folder, "config.json"))
    check_counts(source, content, None)
    check_code(source, content)
    register_own_models()
    with offline():
        if current_trust().remote_code:
            register_code(source, folder, content)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config._name_or_path = source
    return _tamed(config, source)


def part_config(values: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a part, from its values in the configuration of the whole model."""
    register_own_models()
    settings = dict(values)
    with offline():
        return _tamed(
            AutoConfig.for_model(settings.pop("model_type"), **settings), str(values.get("_name_or_path", ""))
        )


def new_model(kind: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of an Auto class with new weights."""
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
    """A model of a class, and transformers' report on missing weights.

    Raises `ModelError` if the weights are not in its folder, or do not fit its configuration.
    """
    folder = in_folder(source)
    config = read_config(source) if config is None else config
    weights = find_weights(folder)
    for name in SETTINGS_FILES:
        if Path(folder, name).exists():
            read_model_json(Path(folder, name))
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
    """The tokenizer of a checkpoint; with `--trust-remote-code`, also one that needs its own code."""
    folder = in_folder(source)
    for file in sorted(Path(folder).iterdir()):
        if file.suffix in (".json", ".txt", ".model", ".jinja"):
            inside(Path(folder), file.name)
    stated = Path(folder, "tokenizer_config.json")
    code = read_model_json(stated) if stated.is_file() else {}
    if runs := current_trust().remote_code and "auto_map" in code:
        announce_tokenizer(source, folder, code)
    with offline():
        return cast(
            PreTrainedTokenizerBase,
            AutoTokenizer.from_pretrained(folder, trust_remote_code=runs, local_files_only=True),
        )


def load_adapter(model: PreTrainedModel, folder: str, *, learns: bool) -> PeftModel:
    """A model with the adapter of a folder. Raises `ModelError` for kinds of adapters that could lead elsewhere."""
    config = read_model_json(Path(folder, "adapter_config.json"))
    kind = str(config.get("peft_type", "")).upper()
    if kind not in ADAPTERS:
        raise ModelError(
            f"{folder}: an adapter of kind {kind[:40]!r} is not supported; expected {', '.join(sorted(ADAPTERS))}"
        )
    if config.get("megatron_config"):
        raise ModelError(
            f"{folder}: adapter_config.json names code to import (megatron_core); remove megatron_config from it"
        )
    _check_patterns(folder, config)
    weights = find_weights(folder, SAFE_ADAPTER, PICKLED_ADAPTER)
    _check_ranks(folder, config, weights.dims if weights.safe else None)
    from peft import PeftModel

    with offline():
        return PeftModel.from_pretrained(model, folder, is_trainable=learns, local_files_only=True)


def _check_patterns(folder: str, config: dict[str, Any]) -> None:
    """Raise `ModelError` for patterns that could take forever: Python's `re` has no time limit."""
    for key in PATTERNS:
        value = config.get(key)
        for pattern in value if isinstance(value, (list, dict)) else [value]:
            if _REPEATED.search(str(pattern)) or len(_UNBOUNDED.findall(str(pattern))) > MOST_UNBOUNDED:
                raise ModelError(
                    f"{folder}: adapter_config.json has the pattern {str(pattern)[:80]!r} in {key}, which could take forever; "
                    "list the names of the modules instead"
                )


def _check_ranks(folder: str, config: dict[str, Any], dims: frozenset[int] | None) -> None:
    """Raise `ModelError` for a rank that no tensor of the adapter has, or, in pickles, for an absurd one."""
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
    """A configuration, and those inside it, without anything that leads to code or to files elsewhere."""
    for part in _configs(config):
        if getattr(part, "transformers_weights", None):
            del part.transformers_weights
        if part._attn_implementation not in ATTENTION:
            logger.warning(
                "%s: attention %r is code from elsewhere, and is not used", source, part._attn_implementation
            )
            part._attn_implementation = None
        if part._experts_implementation not in EXPERTS:
            logger.warning(
                "%s: experts %r are code from elsewhere, and are not used", source, part._experts_implementation
            )
            part._experts_implementation = None
        if not current_trust().remote_code and hasattr(part, "auto_map"):
            del part.auto_map
        _check_quantized(source, getattr(part, "quantization_config", None))
    return config


def _check_quantized(source: str, how: Any) -> None:
    """Raise `ModelError` for quantised weights whose code would come from the hub."""
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
