"""A YAML file from anywhere, read safely: small, UTF-8, plain values only, no key twice; one line for whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captrain.disk.reading import open_file
from captrain.errors import SettingsError, nearest_path
from captrain.limits import LARGEST_YAML
from captrain.yaml_text import load_yaml


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
        return load_yaml(content)
    except ValueError as error:
        raise SettingsError(f"{where}: not valid YAML: {error}") from None


def _read_small(path: Path, where: str) -> str:
    """A file's text, if it is as short as files of settings are."""
    with open_file(path) as file:
        content = file.read(LARGEST_YAML + 1)
    if len(content) > LARGEST_YAML:
        raise SettingsError(f"{where}: larger than 1 MiB, expected a short YAML file of settings")
    return content.decode("utf-8-sig")
