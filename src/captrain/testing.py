"""Tiny checkpoints and data sets of the true kinds, for tests: captrain's own, and yours.

Everything is random, seeded, a few hundred kilobytes large, and goes through the same code as what a hub holds.

>>> import tempfile, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> sorted(path.name for path in tiny_photos(folder, count=2).iterdir())
['metadata.jsonl', 'photo-000.png', 'photo-001.png']
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTModel,
)

from captrain.data.images import ImageSpec
from captrain.models.preparation import write_preparation

WORDS = "a the one two red green blue large small square circle dog cat runs sits on in grass snow with and of"
CAPTIONS = 5
HALF = (0.5, 0.5, 0.5)


def tiny_photos(folder: Path, count: int = 8, captions: int = CAPTIONS, size: int = 40, seed: int = 0) -> Path:
    """A folder of PNG pictures with a `metadata.jsonl`; each picture has `captions` captions of 4 to 9 words."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        name = f"photo-{number:03d}.png"
        Image.fromarray(random.integers(0, 255, (size, size + 8, 3), dtype=np.uint8)).save(folder / name)
        texts = [" ".join(random.choice(WORDS.split(), random.integers(4, 10))) for _ in range(captions)]
        lines.append(json.dumps({"file_name": name, "captions": texts}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tiny_blip(folder: Path, size: int = 32, width: int = 32, seed: int = 0) -> Path:
    """A BLIP captioner of two small layers a half, with a WordPiece tokenizer, as a plain transformers checkpoint."""
    torch.manual_seed(seed)
    vocabulary = {
        token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()])
    }
    text = {
        "vocab_size": len(vocabulary) + 2,
        "hidden_size": width,
        "encoder_hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": len(vocabulary),
        "sep_token_id": vocabulary["[SEP]"],
        "eos_token_id": vocabulary["[SEP]"],
        "pad_token_id": vocabulary["[PAD]"],
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": size,
        "patch_size": 8,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    _enliven(model)
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF), "BlipImageProcessor")
    return folder


def tiny_vision_encoder(folder: Path, size: int = 32, width: int = 24, seed: int = 0) -> Path:
    """A ViT of two small layers, as a plain transformers checkpoint."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=size,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF), "ViTImageProcessor")
    return folder


def tiny_text_decoder(folder: Path, width: int = 32, seed: int = 0) -> Path:
    """A GPT-2 of two small layers without cross-attention, its start and end token the same, as the published ones."""
    torch.manual_seed(seed)
    tokenizer = _word_tokenizer()
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=width, n_layer=2, n_head=4, bos_token_id=end, eos_token_id=end
    )
    model = GPT2LMHeadModel(config)
    _enliven(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, one special token, as GPT-2's."""
    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def _enliven(model: torch.nn.Module) -> None:
    """Larger random weights: with the usual 0.02 a tiny model's outputs are all alike, and tests would see no difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
