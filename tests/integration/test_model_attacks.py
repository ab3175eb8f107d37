"""Models of strangers run no code, ask nothing, reach nothing outside of their folder, and take no memory that they only state.

Each attack is a folder made of an honest tiny checkpoint, and a real command at a terminal that answers "y" to whatever it is
asked. Held: no mark of code that ran, no question, one clear line, exit code 2, and no more than 1.5 GiB.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_tools import (
    AUTO_MAP,
    Honest,
    Seen,
    Terminal,
    add_code,
    as_pickle,
    bomb,
    edit,
    hostile_pickle,
    shards,
    spoil,
)
from model_attacks import CAPTION, HARMLESS, JOINED, REFUSED, RUN, SMALL, evil_kind, settings, tokenizer_kind

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals of this kind are POSIX's")
MOST_MEMORY = 3 << 29


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return Honest.made(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def terminal(honest: Honest) -> Iterator[Terminal]:
    found = Terminal(*(honest.root / name for name in ("blip", "encoder_decoder", "prefix", "adapter")))
    yield found
    found.close()


def _words(words: tuple[str, ...], evil: Path, honest: Honest) -> list[str]:
    names = {"EVIL": str(evil), "PHOTOS": str(honest.root / "photos"), "VISION": str(honest.root / "vision_encoder")}
    return [next((word.replace(name, path) for name, path in names.items() if name in word), word) for word in words]


def _check_calm(folder: Path, seen: Seen) -> None:
    """What holds for every model that is not trusted."""
    assert not (folder / "MARKER").exists(), seen.said
    assert not (folder / "MARKER.asked").exists(), seen.said
    assert "[y/N]" not in seen.said
    assert "Traceback" not in seen.said
    assert seen.memory < MOST_MEMORY, f"{seen.memory:,} bytes"


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_stranger_sends_is_refused_in_one_line(
    name: str, honest: Honest, terminal: Terminal, tmp_path: Path
) -> None:
    words, make, needle = REFUSED[name]
    seen = terminal(tmp_path, *_words(words, make(honest, tmp_path / "evil"), honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 2, seen.said
    assert seen.line and needle in seen.line, seen.said


@pytest.mark.parametrize("name", HARMLESS)
def test_what_would_lead_elsewhere_is_left_alone(name: str, honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    """Honest checkpoints carry such settings too, so they load; nothing is fetched, imported or run."""
    seen = terminal(tmp_path, *_words(CAPTION, HARMLESS[name](honest, tmp_path / "evil"), honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 0, seen.said
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    assert not (tmp_path / "MARKER.modules").exists()


def test_data_sets_run_no_script(honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    evil = honest.copy("photos", tmp_path / "evil")
    add_code(evil)
    (evil / "dataset_infos.json").write_text("{}")
    seen = terminal(tmp_path, "data", "check", str(evil))
    _check_calm(tmp_path, seen)
    assert seen.code in (0, 3), seen.said


def test_pickles_are_read_with_a_line_and_safetensors_come_first(
    honest: Honest, terminal: Terminal, tmp_path: Path
) -> None:
    old = honest.copy("blip", tmp_path / "old")
    as_pickle(old)
    seen = terminal(tmp_path, *_words(CAPTION, old, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 0, seen.said
    assert seen.said.count("is a pickle") == 1
    both = honest.copy("adapter", tmp_path / "both")
    hostile_pickle(both / "adapter_model.bin")
    hostile_pickle(both / "pytorch_model.bin")
    (tmp_path / "out.jsonl").unlink()
    seen = terminal(tmp_path, *_words((*CAPTION, "--safetensors-only"), both, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 0, seen.said
    assert "pickle" not in seen.said


def test_trusted_code_is_named_and_runs_only_when_asked_for(honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    """An encoder with code of its own: features with it, a captioner on it, and that captioner loaded again."""
    evil = spoil("vision_encoder", "config.json", evil_kind)(honest, tmp_path / "evil")
    trusting = ("--trust-remote-code",)
    words = ("encode", "PHOTOS", "store", "--encoder", "EVIL", "--device", "cpu", *trusting)
    seen = terminal(tmp_path, *_words(words, evil, honest))
    assert seen.code == 0, seen.said
    assert (tmp_path / "MARKER").exists()
    named = " ".join(seen.said.split())
    assert f"runs code of {evil.resolve()}: evil.py (sha256 " in named
    (tmp_path / "MARKER").unlink()
    seen = terminal(tmp_path, *_words((*JOINED, *SMALL, *trusting), evil, honest))
    assert seen.code == 0, seen.said
    run = tmp_path / "run"
    assert (run / "model" / "evil.py").is_file()
    (tmp_path / "MARKER").unlink()
    seen = terminal(tmp_path, *_words(CAPTION, run, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 2 and "--trust-remote-code" in seen.line, seen.said
    seen = terminal(tmp_path, *_words((*CAPTION, *trusting), run, honest))
    assert seen.code == 0, seen.said
    assert (tmp_path / "MARKER").exists()


def test_a_tokenizers_code_runs_only_when_asked_for(honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    evil = spoil("text_decoder", "tokenizer_config.json", tokenizer_kind)(honest, tmp_path / "evil")
    words = ("data", "check", "PHOTOS", "--model", "EVIL", "--rejects", "rejects.jsonl")
    seen = terminal(tmp_path, *_words(words, evil, honest))
    _check_calm(tmp_path, seen)
    seen = terminal(tmp_path, *_words((*words, "--trust-remote-code"), evil, honest))
    assert (tmp_path / "MARKER").exists(), seen.said
    assert f"runs code of {evil.resolve()}: evil.py (sha256 " in " ".join(seen.said.split())
    assert "Traceback" not in seen.said


def test_trusting_one_folder_runs_no_code_of_another_repository(
    honest: Honest, terminal: Terminal, tmp_path: Path
) -> None:
    other = {name: f"evil/repo--{place}" for name, place in AUTO_MAP.items()}
    evil = spoil("vision_encoder", "config.json", settings(model_type="evil", auto_map=other))(
        honest, tmp_path / "evil"
    )
    words = ("encode", "PHOTOS", "store", "--encoder", "EVIL", "--device", "cpu", "--trust-remote-code")
    seen = terminal(tmp_path, *_words(words, evil, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 2 and "another repository, evil/repo" in seen.line, seen.said


@pytest.fixture(scope="module")
def run(honest: Honest, terminal: Terminal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of each of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    seen = terminal(folder, *_words((*RUN, "--encoder", "VISION"), folder, honest))
    assert seen.code == 0, seen.said
    return folder / "run"


def _nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense")


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("optimizer.pt", hostile_pickle),
        ("scheduler.pt", hostile_pickle),
        ("rng_state.pth", hostile_pickle),
        ("optimizer.pt", bomb),
        ("rng_state.pth", _nonsense),
    ],
)
def test_checkpoints_run_nothing(
    file: str, write: Callable[[Path], Any], run: Path, honest: Honest, terminal: Terminal, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    checkpoint = min((tmp_path / "run" / "checkpoints").glob("*-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    write(checkpoint / file)
    words = (*RUN, "--encoder", "VISION", "--resume-from", checkpoint.name.rpartition("-")[2])
    seen = terminal(tmp_path, *_words(words, tmp_path, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 2 and seen.line, seen.said


@pytest.mark.parametrize("key", ["trust_remote_code", "safetensors_only"])
def test_no_recipe_switches_it_on(key: str, honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    evil = spoil("vision_encoder", "config.json", evil_kind)(honest, tmp_path / "evil")
    for recipe in ({key: True}, {"model": {key: True}}):
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        seen = terminal(tmp_path, *_words((*JOINED, "--recipe", "recipe.yaml"), evil, honest))
        _check_calm(tmp_path, seen)
        assert seen.code == 2 and key in seen.line, seen.said


def test_honest_shards_and_links_into_the_hubs_cache_load(honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    cache = tmp_path / "models--ada--cats"
    (cache / "blobs").mkdir(parents=True)
    snapshot = honest.copy("blip", cache / "snapshots" / "0123")
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(cache / "blobs" / str(number))
        file.symlink_to(f"../../blobs/{number}")
    seen = terminal(tmp_path, *_words(CAPTION, snapshot, honest))
    assert seen.code == 0, seen.said
    sharded = honest.copy("blip", tmp_path / "sharded")
    shards(sharded, "shard.safetensors")
    (tmp_path / "out.jsonl").unlink()
    seen = terminal(tmp_path, *_words(CAPTION, sharded, honest))
    assert seen.code == 0, seen.said
    edit(sharded / "config.json", lambda content: content.update(num_labels=21_843))
    (tmp_path / "out.jsonl").unlink()
    assert terminal(tmp_path, *_words(CAPTION, sharded, honest)).code == 0
