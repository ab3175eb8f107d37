"""Models of strangers, and a terminal to try them at: each attack is a folder, and a command as a person would type it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.lora import LoraOptions, add_lora
from captrain.testing import (
    tiny_blip,
    tiny_encoder_decoder,
    tiny_photos,
    tiny_prefix,
    tiny_text_decoder,
    tiny_vision_encoder,
)

CODE = """
import os
open(os.environ["MARKER"], "w").close()
from transformers import ViTConfig, ViTModel, GPT2Config, GPT2LMHeadModel, BertTokenizer
class EvilConfig(ViTConfig):
    model_type = "evil"
class EvilModel(ViTModel):
    config_class = EvilConfig
class EvilTokenizer(BertTokenizer):
    pass
"""
AUTO_MAP = {
    name: f"evil.{kind}"
    for name, kind in {
        "AutoConfig": "EvilConfig",
        "AutoModel": "EvilModel",
        "AutoModelForCausalLM": "EvilModel",
        "AutoModelForImageTextToText": "EvilModel",
        "AutoProcessor": "EvilTokenizer",
        "AutoImageProcessor": "EvilTokenizer",
    }.items()
}
TERMINAL = """
import json, os, pty, resource, select, sys, time
import captrain.models.build, captrain.inference.caption_files, captrain.training.run, captrain.features.encode  # noqa
from captrain.cli import main
from captrain.models.checkpoint.folder import load_captioner
for folder in sys.argv[1:]:
    load_captioner(folder)
limit, seconds = 8 << 30, 60
for line in sys.stdin:
    attack = json.loads(line)
    child, terminal = pty.fork()
    if child == 0:
        import builtins
        def asks(*words):
            open(attack["marker"] + ".asked", "w").close()
            return "y"
        builtins.input = asks
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.environ.update(MARKER=attack["marker"], HF_MODULES_CACHE=attack["marker"] + ".modules")
        os.chdir(attack["folder"])
        try:
            code = main(attack["words"])
        except BaseException as error:
            import traceback
            traceback.print_exc()
            code = 70
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    os.write(terminal, b"y\\ny\\n")
    said, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if select.select([terminal], [], [], 1)[0]:
                more = os.read(terminal, 1 << 16)
                if not more:
                    break
                said += more
        except OSError:
            break
    else:
        os.kill(child, 9)
    _, status, used = os.wait4(child, 0)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps({"code": code, "said": said.decode(errors="replace"), "memory": used.ru_maxrss << 10}), flush=True)
"""


@dataclass(frozen=True)
class Seen:
    """What a command did: its exit code, what it said on the terminal, and the most memory that it held, in bytes."""

    code: int
    said: str
    memory: int

    @property
    def line(self) -> str:
        """The line that tells the error."""
        told = [line.partition("error: ")[2] for line in self.said.splitlines() if "error: " in line]
        return told[-1] if told else ""


class Terminal:
    """A process that has loaded all libraries, and starts each command at a terminal of its own, with limited memory."""

    def __init__(self, *loaded: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, *map(str, loaded)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, folder: Path, *words: object) -> Seen:
        """Run a command in a folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        asked = {"folder": str(folder), "words": list(map(str, words)), "marker": str(folder / "MARKER")}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Seen(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self.process.communicate()


@dataclass(frozen=True)
class Honest:
    """Tiny checkpoints that attacks are made of: blip, joined, prefix, vision, text, adapter, photos."""

    root: Path

    @classmethod
    def made(cls, root: Path) -> Honest:
        """In an empty folder."""
        for make in (tiny_blip, tiny_encoder_decoder, tiny_prefix, tiny_vision_encoder, tiny_text_decoder):
            make(root / make.__name__.removeprefix("tiny_"))
        tiny_photos(root / "photos", count=4, captions=2)
        captioner = load_captioner(str(root / "blip"))
        add_lora(captioner, LoraOptions(4, 8, 0.0, ("language",)))
        save_captioner(captioner, root / "adapter")
        return cls(root)

    def copy(self, name: str, target: Path) -> Path:
        """A copy that may be spoiled."""
        shutil.copytree(self.root / name, target)
        return target


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


def add_code(folder: Path) -> None:
    """A file whose code leaves a mark when it runs."""
    (folder / "evil.py").write_text(CODE)


def spoil(name: str, file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Honest, Path], Path]:
    """An attack: a copy of an honest checkpoint with one JSON file changed, and the code beside it."""

    def make(honest: Honest, target: Path) -> Path:
        folder = honest.copy(name, target)
        add_code(folder)
        edit(folder / file, change)
        return folder

    return make


def as_pickle(folder: Path, name: str = "pytorch_model.bin", safe: str = "model.safetensors") -> Path:
    """Turn a checkpoint's safetensors into a file of `torch.save`."""
    torch.save(load_file(folder / safe), folder / name)
    (folder / safe).unlink()
    return folder / name


class Runs:
    """What leaves a mark when an unguarded reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


def hostile_pickle(path: Path) -> None:
    """A file of `torch.save`'s form that runs code."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            new.writestr(member, pickle.dumps({"a": Runs()}) if member.endswith("data.pkl") else old.read(member))


def bomb(path: Path, size: int = 5 << 28) -> None:
    """A file of `torch.save`'s form whose storage unpacks to `size` bytes."""
    path.write_bytes(_bomb(size))


@cache
def _bomb(size: int) -> bytes:
    bombed = io.BytesIO()
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(bombed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for member in old.namelist():
            if member.endswith("data/0"):
                with new.open(member, "w", force_zip64=True) as file:
                    for _ in range(size >> 24):
                        file.write(bytes(1 << 24))
            else:
                new.writestr(member, old.read(member))
    return bombed.getvalue()


def header(path: Path, length: int, content: bytes = b"{}") -> None:
    """A safetensors file whose header states a length."""
    path.write_bytes(struct.pack("<Q", length) + content)


def shards(folder: Path, name: str) -> None:
    """Let an index name one shard."""
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    save_file({"other": torch.zeros(1)}, folder.parent / "secret.safetensors")
