"""A YAML file from anywhere, read safely: small, UTF-8, plain values only, no key twice; one line for whatever is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from captrain.disk.reading import open_file
from captrain.errors import SettingsError, nearest_path

LARGEST_FILE = 1024 * 1024  # bytes; real ones have a few hundred


def read_yaml(path: Path, where: str) -> Any:
    """What a YAML file holds, as plain dictionaries, lists and values.

    `where` begins each error ("recipe photos.yaml"). Raises `SettingsError` where the file is missing, is no file, is too
    large, is not UTF-8 or not YAML, gives a key twice, or asks for Python objects.
    """
    try:
        content = _read_small(path, where)
    except FileNotFoundError:
        siblings = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise SettingsError(f"{where}: no such file.{nearest_path(path, siblings)}") from None
    except OSError as error:
        raise SettingsError(f"{where}: can't be read ({error.strerror}); expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    try:
        return yaml.load(content, _Loader)
    except Exception as error:  # PyYAML lets through whatever a value's constructor raises: IndexError for `!!int ""`
        raise SettingsError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where PyYAML would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, after a look at the keys."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, count in Counter(key.value for key in keys).items():
            if count > 1:
                raise yaml.YAMLError(f"'{key}' is given {count} times{node.start_mark}")
        return super().construct_mapping(node, deep)


def _read_small(path: Path, where: str) -> str:
    """A file's text, if it is as short as files of settings are."""
    with open_file(path) as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise SettingsError(f"{where}: larger than 1 MiB, expected a short YAML file of settings")
    return content.decode("utf-8-sig")
