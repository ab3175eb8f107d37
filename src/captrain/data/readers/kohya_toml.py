"""The data sets that a configuration of sd-scripts names: `dataset.toml` with [[datasets]] and [[datasets.subsets]].

A subset is the pictures right in an `image_dir`, with caption files beside them or with a `metadata_file`, shown
`num_repeats` times an epoch. `caption_extension`, `class_tokens` (the caption of a picture without a file), `caption_prefix`
and `caption_suffix` are taken over; keys that are not are named, with the flags that do the same. What [general] and a
data set say holds for all their subsets. Subsets of regularisation pictures (`is_reg`) are left out.

Paths are relative to the configuration's folder, or to `image_root`. Those of another machine are found by their last parts.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import sidecar
from captrain.data.readers.columns import on_one_line
from captrain.data.readers.json_objects import has_keys, load_object
from captrain.data.readers.kohya import gather_metadata, holds_image
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.readers.tables import refuse_links
from captrain.data.safe_paths import Root, existing, is_hidden
from captrain.data.samples import ChosenSamples, JoinedSamples, LazySamples
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample

LARGEST_FILE = 1 << 20  # bytes; no configuration is larger
MOST_DOTS = 1000  # in a line: a key of so many parts takes quadratic time

_SUBSETS = re.compile(rb"^\s*\[\[\s*datasets(\.subsets)?\s*\]\]", re.MULTILINE)
_DRIVE = re.compile(r"^[A-Za-z]:")
_FLAGS = {  # keys that say how captions and pictures vary in training → the flags that do
    "shuffle_caption": "--shuffle-tags",
    "keep_tokens": "--keep-tags {}",
    "caption_tag_dropout_rate": "--drop-tags {}",
    "caption_dropout_rate": "--drop-captions {}",
    "flip_aug": "--flip 0.5",
    "random_crop": "--crop-scale 0.5 1",
    "validation_split": "--validation-share {}",
    "batch_size": "--batch-size {}",
}
_TAKEN = frozenset(
    {
        "image_dir",
        "image_directory",
        "metadata_file",
        "num_repeats",
        "caption_extension",
        "class_tokens",
        "caption_prefix",
    }
    | {"caption_suffix", "is_reg", "subsets"}
)
_EXAMPLE = 'expected [[datasets]] with [[datasets.subsets]] and in each image_dir = "..."'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subset:
    """The pictures of one folder, and how they are shown."""

    folder: Path
    metadata: Path | None
    extension: str
    class_tokens: str
    prefix: str
    suffix: str
    repeats: int


class SubsetSamples(LazySamples):
    """The pictures of a subset, with what it adds to their captions and ids."""

    def __init__(self, samples: Sequence[Sample], prefix: str, subset: Subset) -> None:
        self.samples, self.prefix, self.subset = samples, prefix, subset

    def __len__(self) -> int:
        return len(self.samples)

    def sample_at(self, index: int) -> Sample:
        sample, subset = self.samples[index], self.subset
        captions = sample.captions or ((subset.class_tokens,) if subset.class_tokens else ())
        around = [" ".join(part for part in (subset.prefix, text, subset.suffix) if part) for text in captions]
        return replace(sample, id=self.prefix + sample.id, captions=tuple(around), repeats=subset.repeats)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is such a .toml or .json file, or a folder with one and without pictures."""
    path = Path(source)
    try:
        if path.is_dir():
            return len(_files_in(path)) == 1 and not holds_image(Root(path, follow_links=options.follow_links))
        return _is_configuration(path)
    except (OSError, ValueError):
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All pictures of all subsets; ids are their paths below the configuration's folder, or below their own.

    Rejects are those of folders with caption files and of metadata files. Raises `DataError` for a
    configuration of another form, a folder that is not there or leaves the configuration's, and if nothing is left.
    """
    path = existing(Path(source))
    file = path if path.is_file() else next(iter(_files_in(path)), None)
    if file is None:
        raise DataError(f"{path}/: no configuration of sd-scripts; expected dataset.toml")
    refuse_links(path, [file], options.follow_links)
    config = _loaded(file)
    places = _Places(file, options)
    parts = [
        SubsetSamples(_samples(subset, rejects, options, captioned), prefix, subset)
        for prefix, subset in places.named(_subsets(config, places, options))
    ]
    _tell(file, config)
    joined = JoinedSamples([part for part in parts if len(part)])
    if not len(joined):
        raise nothing_to_use(file, rejects, _EXAMPLE, [places.root], none="no pictures")
    return {"all": joined}


def _files_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.toml")) if not is_hidden(file.name) and _is_configuration(file)]


def _is_configuration(path: Path) -> bool:
    if path.suffix.lower() == ".json":
        return has_keys(path, "datasets", "subsets", "image_dir")
    if path.suffix.lower() != ".toml" or not path.is_file():
        return False
    with open_file(path) as file:
        return _SUBSETS.search(file.read(LARGEST_FILE)) is not None


def _loaded(file: Path) -> dict[str, Any]:
    """What a configuration says. Raises `DataError` if it is no TOML, or no JSON."""
    if file.suffix.lower() == ".json":
        return load_object(file)
    try:
        with open_file(file) as opened:
            content = opened.read(LARGEST_FILE).decode("utf-8-sig")
        if max((line.count(".") for line in content.splitlines()), default=0) > MOST_DOTS:
            raise DataError(f"{file}: has a line with over {MOST_DOTS} dots; {_EXAMPLE}")
        return tomllib.loads(content)
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not valid TOML ({error}); {_EXAMPLE}") from None


def _tables(config: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """What holds for each subset: its own keys, and those of its data set and of [general] that it does not set itself."""
    general, datasets = config.get("general", {}), config.get("datasets")
    if not isinstance(general, dict) or not _are_tables(datasets) or not datasets:
        raise DataError(f"{file}: no data sets; {_EXAMPLE}")
    found = []
    for dataset in datasets:
        subsets = dataset.get("subsets", [{}])  # without, a data set is one: musubi-tuner's are
        if not _are_tables(subsets):
            raise DataError(f"{file}: 'subsets' is not a list of tables; {_EXAMPLE}")
        found += [{**general, **dataset, **subset} for subset in subsets]
    return found


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


class _Places:
    """Where the folders and files that a configuration names are."""

    def __init__(self, file: Path, options: ReadOptions) -> None:
        given = options.image_root
        self.file = file
        self.base = file.parent if given is None else existing(given)
        self.root = Root(self.base, given=given is not None, follow_links=options.follow_links)
        self.told: set[Path] = set()

    def folder(self, written: str) -> Path:
        """The folder of an `image_dir`. Raises `DataError` if there is none, or it leaves the configuration's by `..`."""
        return self._found(written, "image_dir", Path.is_dir)

    def named_file(self, written: str) -> Path:
        """The file of a `metadata_file`. Raises `DataError` as `folder`."""
        return self._found(written, "metadata_file", Path.is_file)

    def _found(self, written: str, key: str, is_kind: Callable[[Path], bool]) -> Path:
        shown = f"{self.file}: {key} '{on_one_line(written)}'"
        plain = posixpath.normpath(written.replace("\\", "/"))
        is_absolute = plain.startswith(("/", "~")) or bool(_DRIVE.match(plain))
        if plain == ".." or plain.startswith("../"):
            raise DataError(f"{shown} leaves the folder {self.base}; expected a path below it, or give --image-root")
        here = Path(written).expanduser()
        if is_absolute and not self.root.confined and is_kind(here):
            if here not in self.told and not self.root.holds(str(here)):
                self.told.add(here)
                logger.info("%s is outside of %s; --image-root confines such paths to a folder", shown, self.base)
            return here
        parts = PurePosixPath(_DRIVE.sub("", plain)).parts
        for start in range(len(parts) or 1):
            tail = self.base.joinpath(*(part for part in parts[start:] if part not in ("/", "~")))
            if is_kind(tail) and self.root.holds(str(tail)):
                return tail
        raise DataError(
            f"{shown} is not there, and neither are its last parts below {self.base}; expected a path of this machine or "
            "relative to the configuration, or give --image-root"
        )

    def named(self, subsets: Iterable[Subset]) -> Iterator[tuple[str, Subset]]:
        """Each subset with what its ids begin with. What is named twice (at two resolutions) is shown as often as both say."""
        repeats: Counter[Subset] = Counter()
        for subset in subsets:
            repeats[replace(subset, repeats=1)] += subset.repeats
        taken: Counter[str] = Counter()
        for subset, times in repeats.items():
            inside = os.path.relpath(subset.folder, self.base).replace(os.sep, "/")
            name = subset.folder.name if inside.startswith("..") or os.path.isabs(inside) else inside
            taken[name] += 1
            name = name if taken[name] == 1 else f"{name}-{taken[name]}"
            yield "" if name == "." else f"{name}/", replace(subset, repeats=times)


def _subsets(config: dict[str, Any], places: _Places, options: ReadOptions) -> Iterator[Subset]:
    """The subsets that are shown at all."""
    for table in _tables(config, places.file):
        repeats = table.get("num_repeats", 1)
        if not isinstance(repeats, int):
            raise DataError(f"{places.file}: num_repeats is {on_one_line(repr(repeats))}; expected a whole number")
        text = {key: value for key, value in table.items() if isinstance(value, str)}
        image_dir = text.get("image_dir") or text.get("image_directory")
        if image_dir is None:
            raise DataError(f"{places.file}: a subset names no image_dir; {_EXAMPLE}")
        if repeats < 1 or table.get("is_reg") is True:
            continue
        metadata = text.get("metadata_file")
        yield Subset(
            places.folder(image_dir),
            places.named_file(metadata) if metadata else None,
            options.caption_extension or text.get("caption_extension", ""),
            text.get("class_tokens", "").strip(),
            text.get("caption_prefix", "").strip(),
            text.get("caption_suffix", "").strip(),
            repeats,
        )


def _samples(subset: Subset, rejects: Rejects, options: ReadOptions, captioned: bool) -> Sequence[Sample]:
    """The pictures of a subset's folder, by its metadata or with those right in it that have caption files."""
    if subset.metadata is not None:
        gathered = GatheredCaptions(Root(subset.folder, follow_links=options.follow_links), subset.metadata)
        gather_metadata(gathered, options.caption_column, rejects)
        return JoinedSamples(list(gathered.samples(rejects, captioned=captioned).values()))
    before = len(rejects.lines)
    needed = captioned and not subset.class_tokens
    files = replace(options, caption_extension=subset.extension)
    found = JoinedSamples(list(sidecar.read(str(subset.folder), rejects, files, captioned=needed).values()))
    rejects.lines[before:] = [line for line in rejects.lines[before:] if "/" not in line["id"]]
    return ChosenSamples(
        found, np.array([at for at, sample in enumerate(found) if "/" not in sample.id], dtype=np.int64)
    )


def _tell(file: Path, config: dict[str, Any]) -> None:
    """Log on one line which keys and subsets are not taken over, and what does the same."""
    tables = _tables(config, file)
    values = {key: table[key] for table in reversed(tables) for key in table if key not in _TAKEN and table[key]}
    keys = [f"{key} ({_FLAGS[key].format(values[key])} does it)" if key in _FLAGS else key for key in sorted(values)]
    regular = sum(table.get("is_reg") is True for table in tables)
    left = [*keys, *([f"{regular} subset{'s' if regular > 1 else ''} of regularisation pictures"] if regular else [])]
    if left:
        logger.info("%s: not taken over: %s", file, ", ".join(map(on_one_line, left)))
