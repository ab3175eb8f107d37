"""The files that a checkpoint's weights lie in, checked before a library reads them: where they are, and how much they hold.

Weights are safetensors wherever there are any. What else there may be, pickles, is read by torch's reader that builds tensors
and runs nothing, and not at all with `--safetensors-only`. Loads no torch.

Sizes that a checkpoint's files state, held against the weights that are there, before anything of such a size is built.
"""

from __future__ import annotations

import logging
import math
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.initialization import meta_device_safe_creation_ops, no_init_weights, no_tie_weights

from captrain.disk.reading import POINTER, is_pointer_file
from captrain.errors import ModelError
from captrain.models.checkpoint.archive import check_directory
from captrain.models.checkpoint.located import asked
from captrain.records import parse_json

logger = logging.getLogger(__name__)

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
SAFE_ADAPTER, PICKLED_ADAPTER = "adapter_model.safetensors", "adapter_model.bin"
INDEX = ".index.json"
PLAIN = re.compile(r"[^/\\:\0\n]{1,255}")
"""Names that stay in their folder, on every system; `.` and `..` are no names of files."""
MOST_SETTINGS, MOST_TENSORS = 200_000, 2_000_000
"""Values in a file of settings (21,841 classes of ImageNet have two each), tensors in an index (the largest have 100,000)."""
MOST_STORAGES = 100_000  # members of a file of torch.save, a tensor each; the largest models have some thousands
LARGEST_JSON = 64 << 20  # bytes; indices of the largest models have 10 MB, configurations far less


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What a checkpoint's weights are.

    Attributes:
        safe: whether they are safetensors. numbers: how many there are at most.
        tensors: of how many tensors, None where only reading them all would tell. dims: the sizes that their shapes have.
    """

    safe: bool
    numbers: int
    tensors: int | None = None
    dims: frozenset[int] = frozenset()


def find_weights(folder: str, safe: str = SAFE, pickled: str = PICKLED) -> WeightFiles:
    """The weights of a folder, whole or in shards.

    Raises `ModelError` when there are none, when they lie outside of the folder, when they are damaged, or when they are
    pickles and those are refused.
    """
    place = Path(folder)
    for name in (safe, pickled):
        for index in ("", INDEX):
            if (place / f"{name}{index}").is_file():
                files = _shards(place, name + index) if index else [inside(place, name)]
                return _safe(files) if name == safe else _pickled(files)
    raise ModelError(f"{folder}: incomplete, {safe} is missing; copy or download it again")


def check_pickle(path: Path) -> None:
    """Raise `ModelError` for a file of `torch.save` that unpacks to more than it is: torch writes such files uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    check_directory(path, MOST_STORAGES)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: is damaged ({error}); copy or download it again") from None
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise ModelError(f"{path}: unpacks to more than its size, which torch.save never writes; get it from elsewhere")


def inside(folder: Path, name: str) -> Path:
    """A file of a model's folder. Raises `ModelError` when its name or a link leads out of the folder, or it is no file.

    The hub's cache is a folder of links, into a folder beside it that belongs to the same model.
    """
    path = folder / name
    if not PLAIN.fullmatch(name) or Path(name).name != name:
        raise ModelError(f"{folder}: names the file {name[:80]!r}, which could lead out of it; expected plain names")
    try:
        there, home = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError):
        raise ModelError(f"{folder}: incomplete, {name} is missing; copy or download it again") from None
    homes = (home, home.parent.parent / "blobs") if home.parent.name == "snapshots" else (home,)
    if not any(there.is_relative_to(place) for place in homes):
        raise ModelError(f"{path}: is a link that leads out of the model's folder; put the file itself there")
    if not there.is_file():
        raise ModelError(f"{path}: is no file; copy or download it again")
    return path


def read_json(path: Path, most: int = MOST_SETTINGS) -> dict[str, Any]:
    """A checkpoint's JSON file. Raises `ModelError` naming the file when it holds no JSON object, or one too large.

    Args:
        most: how many values it may hold. transformers copies settings a dozen times, which takes a second for 10,000 of them.
    """
    inside(path.parent, path.name)
    if path.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{path}: has {path.stat().st_size:,} bytes, expected at most {LARGEST_JSON:,}")
    try:
        text = path.read_text(encoding="utf-8")
        if text.count(",") > most:
            raise ModelError(
                f"{path}: holds over {most:,} values, which no model's file does; copy or download it again"
            )
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); copy or download the checkpoint again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: found a JSON {type(content).__name__}, expected an object")
    return content


def _shards(folder: Path, index: str) -> list[Path]:
    """The files that an index names."""
    names = read_json(folder / index, MOST_TENSORS).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{folder / index}: has no weight_map of names; copy or download it again")
    suffix = Path(index.removesuffix(INDEX)).suffix
    files = sorted(set(names.values()))
    if odd := next((name for name in files if not name.endswith(suffix)), None):
        raise ModelError(f"{folder / index}: names {odd[:80]!r}, expected files that end in {suffix}")
    return [inside(folder, name) for name in files]


def _safe(files: list[Path]) -> WeightFiles:
    """By the headers, which the library checks against the files."""
    shapes = [shape for file in files for shape in _shapes(file)]
    dims = frozenset(size for shape in shapes for size in shape)
    return WeightFiles(True, sum(math.prod(shape) for shape in shapes), len(shapes), dims)


def _shapes(file: Path) -> Iterator[list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a dict)
                yield weights.get_slice(name).get_shape()
    except (SafetensorError, OSError, ValueError) as error:
        why = POINTER if is_pointer_file(file) else f"damaged or cut short ({error}); copy or download it again"
        raise ModelError(f"{file}: {why}") from None


def _pickled(files: list[Path]) -> WeightFiles:
    """Old weights: allowed, but told. A number takes at least a byte."""
    first = files[0]
    if asked().safetensors_only:
        raise ModelError(
            f"{first}: is a pickle, which --safetensors-only refuses; expected {first.stem}.safetensors or {SAFE} in its place"
        )
    for file in files:
        if is_pointer_file(file):
            raise ModelError(f"{file}: {POINTER}")
        check_pickle(file)
    logger.warning(
        "%s: is a pickle; only its tensors are read, nothing in it is run (--safetensors-only refuses it)", first
    )
    return WeightFiles(False, sum(file.stat().st_size for file in files))


COUNTS = re.compile(r"(layers?|depths?|blocks|stages|experts|heads?)$")
"""How the names of settings end that say how many modules are made."""
ALWAYS = 1000
"""Modules of a kind that may be made whatever the weights are."""
MOST_LABELS = 1_000_000
"""Classes, each of which gets a name; ImageNet's largest list has 21,843."""
SPARE = 50_000_000
"""Numbers that a model may have beyond those in its files: tables of positions, and parts that are new."""
TIMES = 4
"""How many times the numbers in its files a model may have: weights that are shared, or packed two to a byte."""


def check_counts(source: str, content: Any, weights: WeightFiles | None) -> None:
    """Raise `ModelError` where a configuration asks for more modules than its weights have tensors.

    >>> check_counts("model", {"text_config": {"num_hidden_layers": 12}}, None)
    """
    most = max(ALWAYS, (weights and weights.tensors) or 0)
    for name, value in settings_of(content):
        limit = MOST_LABELS if name == "num_labels" else most if COUNTS.search(name) else None
        if limit is None:
            continue
        parts = value if isinstance(value, list) else [value]
        count = sum(part for part in parts if isinstance(part, (int, float)) and not isinstance(part, bool))
        if max(count, len(parts)) > limit:
            raise ModelError(
                f"{source}: config.json states {name} {count:,}, but its weights have at most {limit:,} of it; "
                "copy or download it again"
            )


def check_built(source: str, kind: type[nn.Module], config: Any, weights: WeightFiles) -> None:
    """Raise `ModelError` where the model that a configuration describes has far more weights than its files.

    It is built without memory for its weights, which takes milliseconds.
    """
    contexts = (torch.device("meta"), meta_device_safe_creation_ops(), no_init_weights(), no_tie_weights())
    with contexts[0], contexts[1], contexts[2], contexts[3]:
        model = kind(deepcopy(config))
    tensors = {id(tensor): tensor.numel() for tensor in chain(model.parameters(), model.buffers())}
    numbers = sum(tensors.values())
    if numbers > TIMES * weights.numbers + SPARE:
        raise ModelError(
            f"{source}: its configuration describes a model of {numbers:,} weights, but its files hold {weights.numbers:,}; "
            "copy or download it again"
        )


def settings_of(content: Any) -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, those of its parts too: numbers, words, and lists.

    >>> list(settings_of({"a": 1, "vision": {"b": [2, 3]}}))
    [('a', 1), ('b', [2, 3])]
    """
    for part in parts_of(content):
        for name, value in part.items():
            if not isinstance(value, dict):
                yield str(name), value


def parts_of(content: Any) -> Iterator[dict[str, Any]]:
    """A configuration, and the configurations inside it; without recursion, so that depth costs nothing."""
    waiting: deque[Any] = deque([content])
    while waiting:
        part = waiting.popleft()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, Sequence) and not isinstance(part, str):
            waiting.extend(part)
