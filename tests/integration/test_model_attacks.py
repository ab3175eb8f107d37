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
    header,
    hostile_pickle,
    shards,
    spoil,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals of this kind are POSIX's")
MOST_MEMORY = 3 << 29
Make = Callable[[Honest, Path], Path]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return Honest.made(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def terminal(honest: Honest) -> Iterator[Terminal]:
    found = Terminal(*(honest.root / name for name in ("blip", "encoder_decoder", "prefix", "adapter")))
    yield found
    found.close()


def _evil(content: dict[str, Any]) -> None:
    content.update(model_type="evil", auto_map=AUTO_MAP)


def _evil_part(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[name].update(model_type="evil", auto_map=AUTO_MAP, _name_or_path=".")


def _decoder_without_class(content: dict[str, Any]) -> None:
    content["decoder"].update(model_type="vit", auto_map=AUTO_MAP, _name_or_path=".")


def _tokenizer(content: dict[str, Any]) -> None:
    content.update(tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]})


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


def _set_in(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].update(values)


def _without_tokenizer_json(make: Make) -> Make:
    def made(honest: Honest, target: Path) -> Path:
        folder = make(honest, target)
        (folder / "tokenizer.json").unlink(missing_ok=True)
        return folder

    return made


CAPTION = ("caption", "EVIL", "PHOTOS", "--output", "out.jsonl", "--device", "cpu", "--beams", "1")
TRAIN = ("train", "PHOTOS", "run", "--device", "cpu", "--epochs", "1")
SMALL = ("--decoder-layers", "1", "--decoder-width", "32", "--decoder-heads", "2", "--vocabulary-size", "40")
RUN = ("train", "PHOTOS", "run", "--device", "cpu", "--epochs", "2", "--batch-size", "2", "--beams", "1", *SMALL)
JOINED = (*TRAIN, "--encoder", "EVIL")
DECODER = (*TRAIN, "--encoder", "VISION", "--decoder", "EVIL")
PREFIX = (*TRAIN, "--join", "prefix", "--encoder", "VISION", "--decoder", "EVIL")

REFUSED: dict[str, tuple[tuple[str, ...], Make, str]] = {
    "caption: config": (CAPTION, spoil("blip", "config.json", _evil), "--trust-remote-code"),
    "evaluate: config": (("evaluate", "EVIL", "PHOTOS", "--device", "cpu"), spoil("blip", "config.json", _evil), "--trust-remote-code"),
    "export: config": (("export", "EVIL", "out"), spoil("blip", "config.json", _evil), "--trust-remote-code"),
    "train --model": ((*TRAIN, "--model", "EVIL"), spoil("blip", "config.json", _evil), "--trust-remote-code"),
    "train --encoder": (JOINED, spoil("vision_encoder", "config.json", _evil), "--trust-remote-code"),
    "train --decoder": (DECODER, spoil("text_decoder", "config.json", _evil), "--trust-remote-code"),
    "train --decoder of a prefix": (PREFIX, spoil("text_decoder", "config.json", _evil), "--trust-remote-code"),
    "train --tokenizer": (
        (*TRAIN, "--encoder", "VISION", "--tokenizer", "EVIL"),
        _without_tokenizer_json(spoil("text_decoder", "tokenizer_config.json", _tokenizer)), "tokenizer",
    ),
    "encode --encoder": (
        ("encode", "PHOTOS", "store", "--encoder", "EVIL"), spoil("vision_encoder", "config.json", _evil), "--trust-remote-code"
    ),
    "score --clip": (
        ("score", "PHOTOS/metadata.jsonl", "PHOTOS/metadata.jsonl", "--clip", "EVIL", "--images", "PHOTOS"),
        spoil("vision_encoder", "config.json", _evil), "",
    ),
    "data check --model": (
        ("data", "check", "PHOTOS", "--model", "EVIL"),
        _without_tokenizer_json(spoil("text_decoder", "tokenizer_config.json", _tokenizer)), "tokenizer",
    ),
    "nested encoder": (CAPTION, spoil("encoder_decoder", "config.json", _evil_part("encoder")), "--trust-remote-code"),
    "nested decoder": (CAPTION, spoil("encoder_decoder", "config.json", _evil_part("decoder")), "--trust-remote-code"),
    "nested decoder of a kind without that class": (
        CAPTION, spoil("encoder_decoder", "config.json", _decoder_without_class), "can't be loaded"
    ),
    "nested vision of a prefix": (CAPTION, spoil("prefix", "config.json", _evil_part("vision")), "--trust-remote-code"),
    "nested language of a prefix": (CAPTION, spoil("prefix", "config.json", _evil_part("language")), "--trust-remote-code"),
    "tokenizer with its own subfolders": (
        CAPTION,
        spoil("blip", "tokenizer_config.json", _set(tokenizer_class="RagTokenizer")), "tokenizer",
    ),
    "weights quantised by kernels of a hub": (
        CAPTION, spoil("blip", "config.json", _set(quantization_config={"quant_method": "fbgemm_fp8"})), "fbgemm_fp8"
    ),
    "backbone on a hub": (
        JOINED, spoil("vision_encoder", "config.json", _set(model_type="detr", backbone="evil/repo", use_timm_backbone=False)), ""
    ),
    "a billion layers": (
        CAPTION, spoil("blip", "config.json", _set_in("text_config", num_hidden_layers=10**9)), "num_hidden_layers 1,000,000,000"
    ),
    "depths of a billion": (JOINED, spoil("vision_encoder", "config.json", _set(depths=[10**9, 1])), "depths"),
    "a vocabulary of 10^12": (CAPTION, spoil("blip", "config.json", _set_in("text_config", vocab_size=10**12)), "files hold"),
    "pictures of 10^9": (CAPTION, spoil("blip", "config.json", _set_in("vision_config", image_size=10**9)), "files hold"),
    "a width of 10^6": (CAPTION, spoil("blip", "config.json", _set_in("text_config", hidden_size=10**6)), ""),
    "positions of 10^9": (
        CAPTION, spoil("encoder_decoder", "config.json", _set_in("decoder", n_positions=10**9)), "files hold"
    ),
    "10^9 names of classes": (CAPTION, spoil("blip", "config.json", _set(num_labels=10**9)), "num_labels"),
    "a prefix of 10^9": (CAPTION, spoil("prefix", "config.json", _set(prefix_length=10**9)), "files hold"),
    "10^9 mapper layers": (
        CAPTION, spoil("prefix", "config.json", _set(mapper="transformer", mapper_layers=10**9)), "mapper_layers"
    ),
    "preparation of 10^9": (
        CAPTION, spoil("blip", "preprocessor_config.json", _set(size={"height": 10**9, "width": 10**9})), "image size"
    ),
    "a crop of 10^9": (
        CAPTION,
        spoil("blip", "preprocessor_config.json", _set(size={"shortest_edge": 10**9}, do_center_crop=True, crop_size=32)), "image size",
    ),
    "captrain.json: image size": (
        CAPTION,
        spoil("blip", "captrain.json", _set(image_spec={"height": 10**9, "width": 32, "mean": [0] * 3, "std": [1] * 3})), "image size",
    ),
    "captrain.json: beams": (CAPTION, spoil("blip", "captrain.json", _set(decoding={"beams": 10**9})), "beams"),
    "captrain.json: length": (CAPTION, spoil("blip", "captrain.json", _set(decoding={"max_new_tokens": 10**9})), "max_new_tokens"),
    "start token of 10^12": (CAPTION, spoil("encoder_decoder", "config.json", _set(decoder_start_token_id=10**12)), "token"),
    "adapter that names code to import": (
        CAPTION, spoil("adapter", "adapter_config.json", _set(megatron_config={"a": 1}, megatron_core="evil")), "megatron"
    ),
    "adapter of a kind that loads others": (
        CAPTION, spoil("adapter", "adapter_config.json", _set(peft_type="XLORA", adapters={"0": "evil/repo"})), "XLORA"
    ),
    "adapter that loads a tokenizer": (
        CAPTION,
        spoil("adapter", "adapter_config.json", _set(
            peft_type="PROMPT_TUNING", prompt_tuning_init="TEXT", prompt_tuning_init_text="a", tokenizer_name_or_path="evil/repo",
            tokenizer_kwargs={"trust_remote_code": True},
        )), "PROMPT_TUNING",
    ),
    "adapter of rank 10^9": (CAPTION, spoil("adapter", "adapter_config.json", _set(r=10**9)), "rank"),
    "adapter that repeats layers": (
        CAPTION, spoil("adapter", "adapter_config.json", _set(layer_replication=[[0, 2]] * 10**5)), "layer_replication"
    ),
    "adapter whose base is on a hub": (
        CAPTION, spoil("adapter", "adapter_config.json", _set(base_model_name_or_path="evil/repo")), "--base"
    ),
    "adapter whose base is above": (
        CAPTION, spoil("adapter", "adapter_config.json", _set(base_model_name_or_path="../honest/blip")), "leads out"
    ),
}  # fmt: skip


def _index(name: str) -> Make:
    def make(honest: Honest, target: Path) -> Path:
        folder = honest.copy("blip", target)
        shards(folder, name.replace("HERE", str(target.parent)))
        return folder

    return make


def _linked(name: str) -> Make:
    def make(honest: Honest, target: Path) -> Path:
        folder = honest.copy("blip", target)
        secret = (folder / name).rename(folder.parent / f"secret-{name}")
        (folder / name).symlink_to(secret)
        return folder

    return make


def _weights(write: Callable[[Path], Any], name: str, remove: str = "model.safetensors", of: str = "blip") -> Make:
    def make(honest: Honest, target: Path) -> Path:
        folder = honest.copy(of, target)
        (folder / remove).unlink()
        write(folder / name)
        return folder

    return make


def _fifo(honest: Honest, target: Path) -> Path:
    folder = honest.copy("blip", target)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    return folder


def _pickled(name: str, of: str, safe: str) -> Make:
    def make(honest: Honest, target: Path) -> Path:
        folder = honest.copy(of, target)
        as_pickle(folder, name, safe)
        return folder

    return make


def _shape(content: bytes) -> Callable[[Path], None]:
    return lambda path: header(path, len(content), content)


REFUSED |= {
    "shards above": (CAPTION, _index("../secret.safetensors"), "lead out"),
    "shards by their whole path": (CAPTION, _index("HERE/secret.safetensors"), "lead out"),
    "shards that are pickles": (CAPTION, _index("evil.bin"), "end in .safetensors"),
    "shards that are missing": (CAPTION, _index("gone.safetensors"), "missing"),
    "weights that are a link": (CAPTION, _linked("model.safetensors"), "link"),
    "a tokenizer that is a link": (CAPTION, _linked("tokenizer.json"), "link"),
    "a config that is a link": (CAPTION, _linked("config.json"), "link"),
    "weights that are a pipe": (CAPTION, _fifo, ""),
    "a header of 2^60 bytes": (CAPTION, _weights(lambda path: header(path, 1 << 60), "model.safetensors"), "header"),
    "a tensor beyond the end": (
        CAPTION,
        _weights(_shape(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'), "model.safetensors"), "damaged",
    ),
    "a tensor of another size than its bytes": (
        CAPTION, _weights(_shape(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,0]}}'), "model.safetensors"), "damaged"
    ),
    "a shape that overflows": (
        CAPTION,
        _weights(_shape(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'), "model.safetensors"), "damaged",
    ),
    "a pickle that runs code": (CAPTION, _weights(hostile_pickle, "pytorch_model.bin"), ""),
    "a pickle that unpacks to 1.25 GiB": (CAPTION, _weights(bomb, "pytorch_model.bin"), "unpacks to more"),
    "an adapter's pickle that runs code": (
        CAPTION, _weights(hostile_pickle, "adapter_model.bin", "adapter_model.safetensors", "adapter"), ""
    ),
    "an adapter's pickle that unpacks to 1.25 GiB": (
        CAPTION, _weights(bomb, "adapter_model.bin", "adapter_model.safetensors", "adapter"), "unpacks to more"
    ),
    "a pickle where those are refused": (
        (*CAPTION, "--safetensors-only"), _pickled("pytorch_model.bin", "blip", "model.safetensors"), "--safetensors-only refuses"
    ),
    "an adapter's pickle where those are refused": (
        (*CAPTION, "--safetensors-only"), _pickled("adapter_model.bin", "adapter", "adapter_model.safetensors"), "--safetensors-only refuses"
    ),
}  # fmt: skip


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


HARMLESS: dict[str, Make] = {
    "attention of a hub": spoil("blip", "config.json", _set(attn_implementation="kernels-community/flash-attn")),
    "private attention of a hub": spoil("blip", "config.json", _set(_attn_implementation="kernels-community/flash-attn")),
    "attention of a hub, nested": spoil("encoder_decoder", "config.json", _set_in("decoder", attn_implementation="evil/kernel:evil")),
    "attention of a hub in a prefix": spoil("prefix", "config.json", _set_in("language", _attn_implementation="evil/kernel")),
    "flash attention": spoil("blip", "config.json", _set(_attn_implementation="flash_attention_2")),
    "experts of a hub": spoil("blip", "config.json", _set(experts_implementation="evil/kernel")),
    "kernels": spoil("blip", "config.json", _set(use_kernels=True, kernel_config={"a": "evil/kernel"})),
    "code that nobody needs": spoil("blip", "config.json", _set(auto_map=AUTO_MAP)),
    "image processor": spoil("blip", "preprocessor_config.json", _set(image_processor_type="Evil", auto_map=AUTO_MAP)),
    "processor": spoil("blip", "processor_config.json", _set(processor_class="Evil", auto_map=AUTO_MAP)),
    "own generation": spoil("blip", "generation_config.json", _set(custom_generate="evil/repo", trust_remote_code=True)),
    "weights by another name": spoil("blip", "config.json", _set(transformers_weights="../../secret.safetensors")),
    "a tokenizer's file elsewhere": spoil("blip", "tokenizer_config.json", _set(vocab_file="/etc/passwd", tokenizer_file="/etc/passwd")),
    "a commit": spoil("blip", "config.json", _set(_commit_hash="evil", _name_or_path="evil/repo")),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_would_lead_elsewhere_is_left_alone(name: str, honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    """Honest checkpoints carry such settings too, so they load; nothing is fetched, imported or run."""
    seen = terminal(tmp_path, *_words(CAPTION, HARMLESS[name](honest, tmp_path / "evil"), honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 0, seen.said
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    assert not (tmp_path / "MARKER.modules").exists()


def test_own_generation_folder_is_never_run(honest: Honest, terminal: Terminal, tmp_path: Path) -> None:
    evil = honest.copy("blip", tmp_path / "evil")
    (evil / "custom_generate").mkdir()
    add_code(evil / "custom_generate")
    (evil / "custom_generate" / "evil.py").rename(evil / "custom_generate" / "generate.py")
    seen = terminal(tmp_path, *_words(CAPTION, evil, honest))
    _check_calm(tmp_path, seen)
    assert seen.code == 0, seen.said


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
    evil = spoil("vision_encoder", "config.json", _evil)(honest, tmp_path / "evil")
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


def test_trusting_one_folder_runs_no_code_of_another_repository(
    honest: Honest, terminal: Terminal, tmp_path: Path
) -> None:
    other = {name: f"evil/repo--{place}" for name, place in AUTO_MAP.items()}
    evil = spoil("vision_encoder", "config.json", _set(model_type="evil", auto_map=other))(honest, tmp_path / "evil")
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
    evil = spoil("vision_encoder", "config.json", _evil)(honest, tmp_path / "evil")
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
