"""Whoever loads a model loads it through `models.loading`, which runs no code and looks nowhere but in the model's folder."""

from __future__ import annotations

import ast
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers.dynamic_module_utils
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import captrain
from captrain.errors import CaptrainError, ModelError
from captrain.models.checkpoint import loading, located
from captrain.models.checkpoint.located import offline
from captrain.models.checkpoint.weight_files import ALWAYS, WeightFiles, check_counts, find_weights, inside

SOURCE = Path(captrain.__file__).parent
LOADERS = {"from_pretrained", "from_config", "for_model", "cached_file", "hf_hub_download"}
"""Calls that could run code, or fetch what nobody named."""
OWNERS = {
    **{name: {"models/checkpoint/loading.py"} for name in LOADERS},
    "snapshot_download": {"models/checkpoint/located.py"},
    "get_class_from_dynamic_module": {"models/checkpoint/trusted_code.py"},
    "load_dataset": {"data/readers/hub.py", "data/imagefolder.py"},
    "torch.load": {"training/loop/trainer_adapter.py"},
    "np.load": {"data/readers/features.py"},
    "pickle.loads": {"training/distributed/processes.py"},  # of an error that this process made itself
}
NEVER = {"pickle.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load", "hub.load"}
BARE = {"eval", "exec", "__import__"}
"""Never as functions; modules have an `eval()` of their own."""


def _calls(file: Path) -> list[tuple[str, ast.Call]]:
    """The calls of a file, each by its last name, and by its last two."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            words = ast.unparse(node.func).split(".")
            found += [(words[-1], node), (".".join(words[-2:]), node)]
    return found


def _files() -> dict[str, Path]:
    return {file.relative_to(SOURCE).as_posix(): file for file in sorted(SOURCE.rglob("*.py"))}


def test_one_place_loads_models() -> None:
    for name, file in _files().items():
        for call, node in _calls(file):
            assert call not in NEVER, f"{name}:{node.lineno}: {call}"
            assert not (isinstance(node.func, ast.Name) and call in BARE), f"{name}:{node.lineno}: {call}"
            owners = OWNERS.get(call)
            assert owners is None or name in owners, f"{name}:{node.lineno}: {call} belongs to {owners}"


def test_every_load_says_what_it_trusts() -> None:
    """The words that close a way are there at every call, so that a default of a library may change."""
    closed = {
        "from_pretrained": {"local_files_only": "True"},
        "from_config": {"trust_remote_code": "False"},
        "torch.load": {"weights_only": "True"},
        "np.load": {"allow_pickle": "False"},
    }
    for name, file in _files().items():
        for call, node in _calls(file):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            said = words.get("trust_remote_code", "False")
            by_the_user = name.startswith("api/") and said == "trust_remote_code"  # handed on as the caller said it
            assert said in ("False", "runs") or by_the_user, f"{name}:{node.lineno}"
            assert closed.get(call, {}).items() <= words.items(), f"{name}:{node.lineno}"


def test_nothing_is_ever_asked() -> None:
    assert transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE == 0
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.dynamic_module_utils.resolve_trust_remote_code(None, "evil", False, True)


def test_the_network_is_closed_while_something_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(OfflineModeIsEnabled), offline():
        HfApi().repo_exists("evil/repo")
    assert not constants.HF_HUB_OFFLINE


NAMES = st.text(alphabet="ab./\\:\0\n ~%é", max_size=12)


@given(name=NAMES)
def test_no_name_leads_out_of_a_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    home = tmp_path_factory.getbasetemp() / "home"
    (home / "in").mkdir(parents=True, exist_ok=True)
    for file in (home / "a", home / "in" / "a", home / "in" / "b"):
        file.touch()
    try:
        found = inside(home / "in", name)
    except ModelError as error:
        assert "\n" not in str(error).replace(name, "")
    else:
        assert found.resolve().parent == (home / "in").resolve()


@given(content=st.binary(max_size=80), length=st.integers(0, 2**64 - 1))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "header"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)
    try:
        assert find_weights(str(folder)).numbers <= len(content)
    except ModelError as error:
        assert "damaged" in str(error)


def test_weights_are_counted(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "model.safetensors")
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert find_weights(str(tmp_path)) == WeightFiles(True, 17, 2, frozenset({3, 4, 5}))


@given(
    count=st.integers(ALWAYS + 1, 10**30),
    name=st.sampled_from(
        ["num_hidden_layers", "n_layer", "depth", "encoder_layers", "num_attention_heads", "num_experts"]
    ),
    nesting=st.lists(st.sampled_from(["text_config", "vision", "x"]), max_size=4),
    as_list=st.booleans(),
)
def test_no_count_beyond_the_weights(count: int, name: str, nesting: list[str], as_list: bool) -> None:
    content: object = {name: [count] if as_list else count}
    for key in nesting:
        content = {key: content}
    with pytest.raises(ModelError, match=name):
        check_counts("model", content, None)
    if count < 10**6:
        check_counts("model", content, WeightFiles(True, 1, count))


def test_switches_hold_in_this_process_and_its_children_alone() -> None:
    code = "from captrain.models.checkpoint.located import current_trust; print(current_trust().remote_code)"
    try:
        located.set_trust(remote_code=True)
        assert located.current_trust().remote_code
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == "True"
        os.environ[located.VARIABLE] = "1 1 1"
        assert located.current_trust() == located.Trust() or os.getppid() == 1
        for odd in ("", "x", f"{os.getpid()}", f"{os.getpid()} 1", "a b c d"):
            os.environ[located.VARIABLE] = odd
            assert located.current_trust() == located.Trust()
    finally:
        located.set_trust()
    assert located.current_trust() == located.Trust()


def test_a_hub_model_is_one_commit_of_one_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(hub_id: str, cache_dir: Path | None, allow_patterns: list[str]) -> str:
        asked.append((hub_id, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(
        '{"model_type": "vit", "auto_map": {"AutoConfig": "evil.Evil"}, "backbone": "evil/other"}'
    )
    for _ in range(2):
        config = loading.read_config("ada/one-commit")
        assert config.name_or_path == "ada/one-commit"
        assert not hasattr(config, "auto_map")
    assert [hub_id for hub_id, _ in asked] == ["ada/one-commit"]
    assert not any(pattern.endswith((".py", ".bin")) for pattern in asked[0][1])


def test_errors_are_the_users() -> None:
    assert issubclass(ModelError, CaptrainError) and ModelError("x").exit_code == 2
