"""The table of attacks: for each the command, the folder of a stranger, and what the line that refuses it says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attack_tools import AUTO_MAP, Honest, as_pickle, bomb, edit, header, hostile_pickle, shards, spoil

Make = Callable[[Honest, Path], Path]


def evil_kind(content: dict[str, Any]) -> None:
    content.update(model_type="evil", auto_map=AUTO_MAP)


def _evil_part(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[name].update(model_type="evil", auto_map=AUTO_MAP, _name_or_path=".")


def _decoder_without_class(content: dict[str, Any]) -> None:
    content["decoder"].update(model_type="vit", auto_map=AUTO_MAP, _name_or_path=".")


def tokenizer_kind(content: dict[str, Any]) -> None:
    content.update(tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]})


def settings(**values: Any) -> Callable[[dict[str, Any]], None]:
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
    "caption: config": (CAPTION, spoil("blip", "config.json", evil_kind), "--trust-remote-code"),
    "evaluate: config": (
        ("evaluate", "EVIL", "PHOTOS", "--device", "cpu"),
        spoil("blip", "config.json", evil_kind),
        "--trust-remote-code",
    ),
    "export: config": (("export", "EVIL", "out"), spoil("blip", "config.json", evil_kind), "--trust-remote-code"),
    "train --model": ((*TRAIN, "--model", "EVIL"), spoil("blip", "config.json", evil_kind), "--trust-remote-code"),
    "train --encoder": (JOINED, spoil("vision_encoder", "config.json", evil_kind), "--trust-remote-code"),
    "train --decoder": (DECODER, spoil("text_decoder", "config.json", evil_kind), "--trust-remote-code"),
    "train --decoder of a prefix": (PREFIX, spoil("text_decoder", "config.json", evil_kind), "--trust-remote-code"),
    "train --tokenizer": (
        (*TRAIN, "--encoder", "VISION", "--tokenizer", "EVIL"),
        _without_tokenizer_json(spoil("text_decoder", "tokenizer_config.json", tokenizer_kind)),
        "tokenizer",
    ),
    "encode --encoder": (
        ("encode", "PHOTOS", "store", "--encoder", "EVIL"),
        spoil("vision_encoder", "config.json", evil_kind),
        "--trust-remote-code",
    ),
    "score --clip": (
        ("score", "PHOTOS/metadata.jsonl", "PHOTOS/metadata.jsonl", "--clip", "EVIL", "--images", "PHOTOS"),
        spoil("vision_encoder", "config.json", evil_kind),
        "",
    ),
    "data check --model": (
        ("data", "check", "PHOTOS", "--model", "EVIL"),
        _without_tokenizer_json(spoil("text_decoder", "tokenizer_config.json", tokenizer_kind)),
        "tokenizer",
    ),
    "nested encoder": (CAPTION, spoil("encoder_decoder", "config.json", _evil_part("encoder")), "--trust-remote-code"),
    "nested decoder": (CAPTION, spoil("encoder_decoder", "config.json", _evil_part("decoder")), "--trust-remote-code"),
    "nested decoder of a kind without that class": (
        CAPTION,
        spoil("encoder_decoder", "config.json", _decoder_without_class),
        "can't be loaded",
    ),
    "nested vision of a prefix": (CAPTION, spoil("prefix", "config.json", _evil_part("vision")), "--trust-remote-code"),
    "nested language of a prefix": (
        CAPTION,
        spoil("prefix", "config.json", _evil_part("language")),
        "--trust-remote-code",
    ),
    "tokenizer with its own subfolders": (
        CAPTION,
        spoil("blip", "tokenizer_config.json", settings(tokenizer_class="RagTokenizer")),
        "tokenizer",
    ),
    "weights quantised by kernels of a hub": (
        CAPTION,
        spoil("blip", "config.json", settings(quantization_config={"quant_method": "fbgemm_fp8"})),
        "fbgemm_fp8",
    ),
    "backbone on a hub": (
        JOINED,
        spoil(
            "vision_encoder", "config.json", settings(model_type="detr", backbone="evil/repo", use_timm_backbone=False)
        ),
        "",
    ),
    "a billion layers": (
        CAPTION,
        spoil("blip", "config.json", _set_in("text_config", num_hidden_layers=10**9)),
        "num_hidden_layers 1,000,000,000",
    ),
    "depths of a billion": (JOINED, spoil("vision_encoder", "config.json", settings(depths=[10**9, 1])), "depths"),
    "a vocabulary of 10^12": (
        CAPTION,
        spoil("blip", "config.json", _set_in("text_config", vocab_size=10**12)),
        "files hold",
    ),
    "pictures of 10^9": (
        CAPTION,
        spoil("blip", "config.json", _set_in("vision_config", image_size=10**9)),
        "files hold",
    ),
    "a width of 10^6": (CAPTION, spoil("blip", "config.json", _set_in("text_config", hidden_size=10**6)), ""),
    "positions of 10^9": (
        CAPTION,
        spoil("encoder_decoder", "config.json", _set_in("decoder", n_positions=10**9)),
        "files hold",
    ),
    "10^9 names of classes": (CAPTION, spoil("blip", "config.json", settings(num_labels=10**9)), "num_labels"),
    "a prefix of 10^9": (CAPTION, spoil("prefix", "config.json", settings(prefix_length=10**9)), "files hold"),
    "10^9 mapper layers": (
        CAPTION,
        spoil("prefix", "config.json", settings(mapper="transformer", mapper_layers=10**9)),
        "mapper_layers",
    ),
    "preparation of 10^9": (
        CAPTION,
        spoil("blip", "preprocessor_config.json", settings(size={"height": 10**9, "width": 10**9})),
        "image size",
    ),
    "a crop of 10^9": (
        CAPTION,
        spoil(
            "blip",
            "preprocessor_config.json",
            settings(size={"shortest_edge": 10**9}, do_center_crop=True, crop_size=32),
        ),
        "image size",
    ),
    "captrain.json: image size": (
        CAPTION,
        spoil(
            "blip",
            "captrain.json",
            settings(image_spec={"height": 10**9, "width": 32, "mean": [0] * 3, "std": [1] * 3}),
        ),
        "image size",
    ),
    "captrain.json: beams": (CAPTION, spoil("blip", "captrain.json", settings(decoding={"beams": 10**9})), "beams"),
    "captrain.json: length": (
        CAPTION,
        spoil("blip", "captrain.json", settings(decoding={"max_new_tokens": 10**9})),
        "max_new_tokens",
    ),
    "start token of 10^12": (
        CAPTION,
        spoil("encoder_decoder", "config.json", settings(decoder_start_token_id=10**12)),
        "token",
    ),
    "adapter that names code to import": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(megatron_config={"a": 1}, megatron_core="evil")),
        "megatron",
    ),
    "adapter of a kind that loads others": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(peft_type="XLORA", adapters={"0": "evil/repo"})),
        "XLORA",
    ),
    "adapter that loads a tokenizer": (
        CAPTION,
        spoil(
            "adapter",
            "adapter_config.json",
            settings(
                peft_type="PROMPT_TUNING",
                prompt_tuning_init="TEXT",
                prompt_tuning_init_text="a",
                tokenizer_name_or_path="evil/repo",
                tokenizer_kwargs={"trust_remote_code": True},
            ),
        ),
        "PROMPT_TUNING",
    ),
    "adapter of rank 10^9": (CAPTION, spoil("adapter", "adapter_config.json", settings(r=10**9)), "rank"),
    "adapter that repeats layers": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(layer_replication=[[0, 2]] * 10**4)),
        "layer_replication",
    ),
    "adapter whose base is on a hub": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(base_model_name_or_path="evil/repo")),
        "--base",
    ),
    "adapter whose base is above": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(base_model_name_or_path="../honest/blip")),
        "leads out",
    ),
}


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


def _also(file: str, **values: Any) -> Make:
    def made(honest: Honest, folder: Path) -> Path:
        edit(folder / file, settings(**values))
        return folder

    return made


def _many(count: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return settings(x=[value] * count)


def _growing(part: str, inner: str) -> Make:
    """A tokenizer that makes a text 2^40 times as long."""
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    attack = spoil("blip", "tokenizer.json", settings(**{part: {"type": "Sequence", inner: [step] * 40}}))
    return lambda honest, target: _also("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")(
        honest, attack(honest, target)
    )


REFUSED |= {
    "10^6 lists in a config": (CAPTION, spoil("blip", "config.json", _many(10**6, [])), "values"),
    "10^6 values of how to generate": (CAPTION, spoil("blip", "generation_config.json", _many(10**6, 1)), "values"),
    "tokens that are no numbers": (
        CAPTION,
        spoil("blip", "generation_config.json", settings(suppress_tokens="x")),
        "suppress_tokens",
    ),
    "captrain.json: a prompt of 10 MB": (
        CAPTION,
        spoil("blip", "captrain.json", settings(prompt="a " * 5_000_000)),
        "prompt",
    ),
    "a tokenizer that grows texts": (CAPTION, _growing("normalizer", "normalizers"), "times as long"),
    "a tokenizer that grows captions": (CAPTION, _growing("decoder", "decoders"), "times as long"),
    "adapter of patterns that take for ever": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(target_modules="(.+)+X")),
        "pattern",
    ),
    "adapter of ranks that take for ever": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(rank_pattern={".*.*.*.*.*.*.*X": 4})),
        "pattern",
    ),
    "adapter of modules that take for ever": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(modules_to_save=["(.+)+X"])),
        "pattern",
    ),
    "adapter that begins with 10^6 rounds": (
        CAPTION,
        spoil("adapter", "adapter_config.json", settings(init_lora_weights="pissa_niter_1000000")),
        "rounds",
    ),
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
        _weights(_shape(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'), "model.safetensors"),
        "damaged",
    ),
    "a tensor of another size than its bytes": (
        CAPTION,
        _weights(_shape(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,0]}}'), "model.safetensors"),
        "damaged",
    ),
    "a shape that overflows": (
        CAPTION,
        _weights(
            _shape(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'), "model.safetensors"
        ),
        "damaged",
    ),
    "a pickle that runs code": (CAPTION, _weights(hostile_pickle, "pytorch_model.bin"), ""),
    "a pickle that unpacks to 1.25 GiB": (CAPTION, _weights(bomb, "pytorch_model.bin"), "unpacks to more"),
    "an adapter's pickle that runs code": (
        CAPTION,
        _weights(hostile_pickle, "adapter_model.bin", "adapter_model.safetensors", "adapter"),
        "",
    ),
    "an adapter's pickle that unpacks to 1.25 GiB": (
        CAPTION,
        _weights(bomb, "adapter_model.bin", "adapter_model.safetensors", "adapter"),
        "unpacks to more",
    ),
    "a pickle where those are refused": (
        (*CAPTION, "--safetensors-only"),
        _pickled("pytorch_model.bin", "blip", "model.safetensors"),
        "--safetensors-only refuses",
    ),
    "an adapter's pickle where those are refused": (
        (*CAPTION, "--safetensors-only"),
        _pickled("adapter_model.bin", "adapter", "adapter_model.safetensors"),
        "--safetensors-only refuses",
    ),
}


KERNEL = "kernels-community/flash-attn"
SECRET = "../../secret.safetensors"


def _all(*attacks: Make) -> Make:
    """Several changes of one checkpoint: all that follow the first are edits of what that made."""

    def made(honest: Honest, target: Path) -> Path:
        folder = attacks[0](honest, target)
        for attack in attacks[1:]:
            attack(honest, folder)
        return folder

    return made


def _own_generation(honest: Honest, folder: Path) -> Path:
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")
    return folder


HARMLESS: dict[str, Make] = {
    "BLIP": _all(
        spoil(
            "blip",
            "config.json",
            settings(attn_implementation=KERNEL, experts_implementation="evil/kernel", auto_map=AUTO_MAP),
        ),
        _also("config.json", use_kernels=True, kernel_config={"a": "evil/kernel"}, transformers_weights=SECRET),
        _also("config.json", _commit_hash="evil", _name_or_path="evil/repo"),
        _also("preprocessor_config.json", image_processor_type="Evil", auto_map=AUTO_MAP),
        _also("processor_config.json", processor_class="Evil", auto_map=AUTO_MAP),
        _also("generation_config.json", custom_generate="evil/repo", trust_remote_code=True),
        _also("tokenizer_config.json", vocab_file="/etc/passwd", tokenizer_file="/etc/passwd"),
        _own_generation,
    ),
    "BLIP, privately": _all(
        spoil("blip", "config.json", settings(_attn_implementation="flash_attention_2")),
        _also("config.json", _attn_implementation_internal=KERNEL, _experts_implementation="evil/kernel"),
    ),
    "joined": spoil("encoder_decoder", "config.json", _set_in("decoder", attn_implementation="evil/kernel:evil")),
    "prefix": spoil("prefix", "config.json", _set_in("language", _attn_implementation="evil/kernel")),
}
"""What would lead elsewhere, and is left alone: honest checkpoints carry such settings too."""
