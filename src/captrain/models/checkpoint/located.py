"""Where a checkpoint lies: in a folder, an archive, or the hub's cache. Loads no torch, so that a wrong name is told at once.

Only here anything is fetched from the hub: of the one repository that was named, at one commit.

What a command was told to trust: by itself neither code that lies beside weights, nor, if asked for, pickles.

Only the command line of the very command says so: no recipe, no run and no model can. What it says holds in its process, and
in those that it starts on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from captrain.disk.reading import fault_of
from captrain.disk.walking import is_hidden
from captrain.errors import ModelError, nearest_path
from captrain.models.checkpoint.archive import is_archive
from captrain.models.zoo import name_hint, resolve_name

EXTRAS = "captrain.json"
"""What captrain adds to a checkpoint that it writes."""
CONFIGS = ("config.json", "adapter_config.json")
"""Files of which every checkpoint has one."""
NEEDED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""Files of a checkpoint that loading it takes; no code."""
OLD_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin")
"""Weights of checkpoints that have no others."""
CODE = ("*.py",)
"""What else is fetched with `--trust-remote-code`."""


def find_model_folder(source: str) -> str:
    """A run folder's model folder; a short name's hub id; any other folder or hub id as it is."""
    source = resolve_name(source)
    path = Path(source)
    _refuse_odd(path)
    if (path / "model").is_dir() and not (path / "config.json").is_file():
        _refuse_odd(path / "model")
        return str(path / "model")
    if path.is_dir() and not any((path / name).is_file() for name in CONFIGS):
        raise ModelError(
            f"{source}: no config.json or adapter_config.json here; expected a run folder or a model folder"
        )
    if path.is_file() and not is_archive(source):
        raise ModelError(f"{source}: is a file; expected the run folder or model folder that holds it, or a .zip")
    if not path.exists() and looks_like_path(source):
        raise ModelError(
            f"{source}: no such folder.{_siblings(path)} Expected a run folder, a model folder or a hub id"
        )
    return source


def in_folder(source: str) -> str:
    """The folder of a model: `source` itself, or where the hub's cache keeps that repository, fetched if it isn't there."""
    return source if Path(source).exists() else _fetched(source, asked().remote_code)


@lru_cache(maxsize=64)
def _fetched(hub_id: str, code: bool) -> str:
    """One commit of a repository, the same as long as this process runs."""
    return fetch(hub_id, code=code)


def fetch(hub_id: str, cache: Path | None = None, *, code: bool = False) -> str:
    """Copy what loading a model takes into a cache, by default the hub's own; returns the folder of its commit."""
    from huggingface_hub import snapshot_download

    needed = [*NEEDED, *(CODE if code else ())]
    folder = snapshot_download(hub_id, cache_dir=cache, allow_patterns=needed)
    if any(Path(folder).glob("*.safetensors")) or asked().safetensors_only:
        return folder
    return snapshot_download(hub_id, cache_dir=cache, allow_patterns=[*needed, *OLD_WEIGHTS])


@contextmanager
def offline() -> Iterator[None]:
    """While this is open no library asks the hub for anything."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def check_model(source: str) -> None:
    """Raise `ModelError` unless a checkpoint is there by its name: on this machine, or else on the hub. Nothing is loaded."""
    source = find_model_folder(source)
    if not (Path(source).exists() or is_cached(source)):
        _check_hub(source)


def is_cached(hub_id: str) -> bool:
    """Whether a hub's checkpoint is in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in CONFIGS)
    except HFValidationError:
        return False


def _check_hub(hub_id: str) -> None:
    """Raise `ModelError` unless the hub has a checkpoint; it is asked once, loading would ask many times without a network."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import build_hf_headers, get_session

    if constants.HF_HUB_OFFLINE:
        raise not_here(hub_id)
    try:
        urls = [hf_hub_url(hub_id, name) for name in CONFIGS]
        codes = (get_session().head(url, headers=build_hf_headers(), timeout=10).status_code for url in urls)
        if any(code < 400 for code in codes):
            return
    except HFValidationError:
        raise not_here(hub_id, "it is no name for the hub") from None
    except Exception as error:  # of every kind: httpx's and requests' errors have no common parent
        raise not_here(hub_id, f"the hub can't be reached ({' '.join(str(error).split())[:100]})") from error
    raise not_here(hub_id, "the hub has none of this name that may be read (for a private one: hf auth login)")


def not_here(source: str, hub: str = "the hub does not give it") -> ModelError:
    """The error about a name that is no folder and is not in the hub's cache; `hub` says why it can't be fetched."""
    from huggingface_hub import constants

    reason = "the hub is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else hub
    return ModelError(
        f"{source}: can't be loaded: no folder of this name, not in the hub's cache, and {reason}.{name_hint(source)}"
        f"{_siblings(Path(source))} Give a checkpoint's folder: --model FOLDER in training, FOLDER in its place elsewhere"
    )


def looks_like_path(source: str) -> bool:
    """Whether a name that does not exist was meant as a folder, not as a hub id (`name` or `owner/name`)."""
    inside = Path(source).parent
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or (inside != Path() and inside.is_dir())


def _refuse_odd(path: Path) -> None:
    """Raise `ModelError` for a pipe or a device, by itself or in a checkpoint's folder: whoever opens it may wait for ever."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if not file.is_dir() and not is_hidden(file.name) and (fault := fault_of(file)):
            raise ModelError(f"{file}: {fault}")


def _siblings(path: Path) -> str:
    """A hint that names the folder that was perhaps meant, or nothing."""
    return nearest_path(path, path.parent.iterdir()) if path.parent.is_dir() else ""


VARIABLE = "CAPTRAIN_ASKED"
"""How processes that a command starts learn of its switches: the number of the command's process, then their names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The switches. `remote_code`: run the code that lies beside a model. `safetensors_only`: read no pickles."""

    remote_code: bool = False
    safetensors_only: bool = False


def ask(*, remote_code: bool = False, safetensors_only: bool = False) -> None:
    """Set the switches for this process and those that it starts.

    >>> ask(safetensors_only=True)
    >>> asked()
    Asked(remote_code=False, safetensors_only=True)
    >>> ask()
    """
    os.environ.pop(VARIABLE, None)
    if remote_code or safetensors_only:
        os.environ[VARIABLE] = f"{os.getpid()} {int(remote_code)} {int(safetensors_only)}"


def asked() -> Asked:
    """The switches of this command. A variable that some other process has set counts for nothing."""
    process, *switches = os.environ.get(VARIABLE, "").split() or [""]
    if process not in (str(os.getpid()), str(os.getppid())) or len(switches) != 2:
        return Asked()
    return Asked(switches[0] == "1", switches[1] == "1")
