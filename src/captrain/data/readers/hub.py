"""Data sets of the Hugging Face library `datasets`: a folder written by `save_to_disk`, or one on the hub.

The source is the folder, `hf://datasets/owner/name` (with `@revision`), or `hub:owner/name` (with `:configuration`). Pictures
stay encoded and captions in their memory-mapped table; a sample is read when it is asked for. No code of a data set is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captrain.data.arrow import check_file
from captrain.data.image_tables import ImageTable, RowSamples
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import Root
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.tables import refuse_links
from captrain.data.samples import Joined
from captrain.disk.reading import read_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample, parse_json

if TYPE_CHECKING:
    from datasets import Dataset

_LARGEST_NOTE = 64 << 20  # bytes of the JSON beside a table
_ON_HUB = re.compile(r"(?:hf://datasets/|hub:)((?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?(?::([\w.-]+))?/?")


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a folder that `save_to_disk` wrote, or names a data set on the hub."""
    here = {
        name for name in ("state.json", "dataset_info.json", "dataset_dict.json") if os.path.isfile(f"{source}/{name}")
    }
    return "dataset_dict.json" in here or len(here) == 2 or _ON_HUB.fullmatch(source) is not None


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All rows with a picture, split by split. Rejected are rows without picture or caption.

    Raises `DataError` if the data set can't be loaded, its columns can't be told, or nothing is left.
    """
    loaded, roots = _from_hub(source) if _ON_HUB.fullmatch(source) else _from_disk(Path(source), options.follow_links)
    found: dict[str, list[Sequence[Sample]]] = {}
    wanted = ""
    for name, dataset in loaded.items():
        split = SPLIT_NAMES.get(name.lower(), name)
        label, prefix = (source, "") if name == "all" else (f"{source}/{name}", f"{name}/")
        table = ImageTable(dataset, label, prefix, roots, options)
        wanted = table.wanted
        if len(rows := table.usable(rejects, captioned)):
            found.setdefault(split, []).append(RowSamples(table, rows))
    if not found:
        problem = rejects.summary() if rejects else "no rows"
        raise DataError(f"{source}: nothing to use ({problem}); expected rows with a picture and {wanted}")
    return {split: parts[0] if len(parts) == 1 else Joined(parts) for split, parts in found.items()}


def _from_disk(folder: Path, follow_links: bool) -> tuple[dict[str, Dataset], tuple[Root, ...]]:
    """The splits of a saved folder ("all" of one without), and where its pictures may lie."""
    root = Root(folder, follow_links=follow_links)
    splits = [""]
    if (note := folder / "dataset_dict.json").is_file():
        refuse_links(folder, [note], follow_links)
        splits = _note(note).get("splits") or []
        if not isinstance(splits, list) or not all(
            isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in splits
        ):
            raise DataError(f"{note}: its splits are no names; expected what save_to_disk writes")
    for name in splits:
        _stay_inside(root, f"{name}/" if name else "")
    loaded = _loading(
        str(folder), lambda datasets: {name: datasets.load_from_disk(str(folder / name)) for name in splits}
    )
    return {name or "all": dataset.with_format(None) for name, dataset in loaded.items()}, (root,)


def _stay_inside(root: Root, prefix: str) -> None:
    """Raise `DataError` if a saved table has files outside its folder: they are opened by the names in a JSON file."""
    where = root.folder / prefix / "state.json"
    refuse_links(root.folder, where.parent.glob("*.json"), root.follow_links)
    files = _note(where).get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files]
        if isinstance(files, list)
        else [None]
    )
    for name in names:
        found = root.exact(prefix + name, str(where)) if isinstance(name, str) else None
        if found is None:
            raise DataError(
                f"{where}: names a file that is not there ({str(name)[:80]}); expected what save_to_disk writes"
            )
        check_file(root.folder / found)


def _note(path: Path) -> dict[str, Any]:
    """A small JSON object."""
    try:
        if path.stat().st_size > _LARGEST_NOTE:
            raise DataError(f"{path}: over {_LARGEST_NOTE} bytes; expected what save_to_disk writes")
        value = parse_json(read_file(path).decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); expected what save_to_disk writes") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; expected what save_to_disk writes") from None
    return value if isinstance(value, dict) else {}


def _from_hub(source: str) -> tuple[dict[str, Dataset], tuple[Root, ...]]:
    """All splits of a data set on the hub, copied into the library's own cache."""
    name, revision, configuration = _ON_HUB.fullmatch(source).groups()  # type: ignore[union-attr]
    loaded = _loading(source, lambda datasets: datasets.load_dataset(name, configuration, revision=revision))
    import datasets
    from huggingface_hub import constants

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_MODULES_CACHE, constants.HF_HUB_CACHE)
    return dict(loaded), tuple(Root(Path(cache)) for cache in caches)


def _loading(source: str, load: Any) -> dict[str, Dataset]:
    """What `load(datasets)` gives; whatever goes wrong in the library is one clear line."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source}: needs a package that is not installed; pip install datasets") from None
    try:
        return load(datasets)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        offline = isinstance(error, (ConnectionError, TimeoutError)) or "Offline" in type(error).__name__
        hint = (
            "no network? give a folder written by save_to_disk" if offline else "check name, configuration and access"
        )
        hint = hint if _ON_HUB.fullmatch(source) else "expected what save_to_disk writes"
        raise DataError(f"{source}: can't be loaded ({' '.join(lines)[:300]}); {hint}") from None
