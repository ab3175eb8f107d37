"""Where a checkpoint is: in a folder, an archive, or the hub's cache. Loads no torch, so that a wrong name is an error at once.

This is the only place that fetches anything from the hub: of the repository that was named, at one commit.

It also holds what a command trusts: code beside weights only with `--trust-remote-code`; pickles unless `--safetensors-only`
forbids them. Only the command line decides this, no recipe, run or model can. It holds for its process, and for those that it
starts on this machine.
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
"""The file that captrain adds to a checkpoint."""
CONFIGS = ("config.json", "adapter_config.json")
"""Every checkpoint has one of these files."""
NEEDED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""The files that loading a checkpoint takes, without code."""
OLD_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin")
"""Weights of checkpoints without safetensors."""
CODE = ("*.py",)
"""What is fetched in addition with `--trust-remote-code`."""


def find_model_folder(source: str) -> str:
    """The model folder of a run folder; the hub id of a short name; any other folder or hub id unchanged."""
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
    """The folder of a model: `source` itself, or the repository's folder in the hub's cache, fetched if need be."""
    return source if Path(source).exists() else _fetched(source, current_trust().remote_code)


@lru_cache(maxsize=64)
def _fetched(hub_id: str, code: bool) -> str:
    """The folder of one commit of a repository, the same for as long as this process runs."""
    return fetch_snapshot(hub_id, code=code)


def fetch_snapshot(hub_id: str, cache: Path | None = None, *, code: bool = False) -> str:
    """Copy the files that loading a model takes into a cache, by default the hub's own; returns their folder."""
    from huggingface_hub import snapshot_download

    needed = [*NEEDED, *(CODE if code else ())]
    folder = snapshot_download(hub_id, cache_dir=cache, allow_patterns=needed)
    if any(Path(folder).glob("*.safetensors")) or current_trust().safetensors_only:
        return folder
    return snapshot_download(hub_id, cache_dir=cache, allow_patterns=[*needed, *OLD_WEIGHTS])


@contextmanager
def offline() -> Iterator[None]:
    """Keep all libraries from asking the hub for anything."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def check_model(source: str) -> None:
    """Raise `ModelError` unless a checkpoint exists, on this machine or on the hub. Nothing is loaded."""
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
    """Raise `ModelError` unless the hub has a checkpoint. It is asked only once, which loading would not do."""
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
        raise not_here(hub_id, "it is not a valid hub id") from None
    except Exception as error:  # of every kind: httpx's and requests' errors have no common parent
        raise not_here(hub_id, f"the hub can't be reached ({' '.join(str(error).split())[:100]})") from error
    raise not_here(hub_id, "the hub has no such model, or it is private (then: hf auth login)")


def not_here(source: str, hub: str = "the hub does not give it") -> ModelError:
    """The error for a name that is neither a folder nor in the hub's cache; `hub` is the reason why it can't be fetched."""
    from huggingface_hub import constants

    reason = "the hub is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else hub
    return ModelError(
        f"{source}: can't be loaded: no folder of this name, not in the hub's cache, and {reason}.{name_hint(source)}"
        f"{_siblings(Path(source))} Give a checkpoint's folder: --model FOLDER in training, FOLDER in its place elsewhere"
    )


def looks_like_path(source: str) -> bool:
    """Whether a name that does not exist looks like a folder and not like a hub id (`name` or `owner/name`)."""
    inside = Path(source).parent
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or (inside != Path() and inside.is_dir())


def _refuse_odd(path: Path) -> None:
    """Raise `ModelError` for a pipe or a device, also in a checkpoint's folder: opening it could block forever."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if not file.is_dir() and not is_hidden(file.name) and (fault := fault_of(file)):
            raise ModelError(f"{file}: {fault}")


def _siblings(path: Path) -> str:
    """A hint with the nearest folder name, or ""."""
    return nearest_path(path, path.parent.iterdir()) if path.parent.is_dir() else ""


VARIABLE = "CAPTRAIN_ASKED"
"""Hands the switches of a command to the processes that it starts: the number of its process, then the two switches."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The switches. `remote_code`: run the code beside a model. `safetensors_only`: read no pickles."""

    remote_code: bool = False
    safetensors_only: bool = False


def set_trust(*, remote_code: bool = False, safetensors_only: bool = False) -> None:
    """Set the switches of this process and of those that it starts.

    >>> set_trust(safetensors_only=True)
    >>> current_trust()
    Trust(remote_code=False, safetensors_only=True)
    >>> set_trust()
    """
    os.environ.pop(VARIABLE, None)
    if remote_code or safetensors_only:
        os.environ[VARIABLE] = f"{os.getpid()} {int(remote_code)} {int(safetensors_only)}"


def current_trust() -> Trust:
    """The switches of this command. A variable that another process has set is ignored."""
    process, *switches = os.environ.get(VARIABLE, "").split() or [""]
    if process not in (str(os.getpid()), str(os.getppid())) or len(switches) != 2:
        return Trust()
    return Trust(switches[0] == "1", switches[1] == "1")
