"""Tiny checkpoints and data sets of the true kinds, for tests: captrain's own, and yours.

Everything is random, seeded, a few hundred kilobytes large, and goes through the same code as what a hub holds.

>>> import tempfile, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> sorted(path.name for path in tiny_photos(folder, count=2).iterdir())
['metadata.jsonl', 'photo-000.png', 'photo-001.png']
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

from captrain.data.images import ImageSpec
from captrain.models.build import Mapper, join_prefix
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.models.checkpoint.loading import load_model
from captrain.models.contract import CaptionerModel
from captrain.models.families.encoder_decoder import load_decoder
from captrain.models.vocabulary import load_tokenizer

WORDS = "a the one two red green blue large small square circle dog cat runs sits on in grass snow with and of"
LESSONS = (
    "a red dog",
    "the blue cat sits on grass",
    "two small dog",
    "one large circle of snow",
    "a cat runs in the snow",
    "green grass",
    "a square and a circle",
    "the large dog sits in snow with a cat",
)
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


def tiny_blip(folder: Path, size: int = 32, width: int = 32, seed: int = 0, layers: int = 2) -> Path:
    """A BLIP captioner of small `layers` in each half, with a WordPiece tokenizer, as a plain transformers checkpoint."""
    torch.manual_seed(seed)
    vocabulary = _bert_vocabulary()
    text = {
        "vocab_size": len(vocabulary) + 2,
        "hidden_size": width,
        "encoder_hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
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
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": size,
        "patch_size": 8,
        "initializer_range": 0.02,  # BLIP's own is 1e-10: the vectors would not depend on the picture
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    _enliven(model)
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF), "BlipImageProcessor")
    return folder


def tiny_git(folder: Path, size: int = 32, width: int = 32, seed: int = 0) -> Path:
    """A GIT of two small layers per half, with a WordPiece tokenizer, as a plain transformers checkpoint."""
    torch.manual_seed(seed)
    vocabulary = _bert_vocabulary()
    sizes = {"intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = GitConfig(
        vision_config={**sizes, "hidden_size": 24, "image_size": size, "patch_size": 8},
        **sizes,
        hidden_size=width,
        vocab_size=len(vocabulary),
        max_position_embeddings=64,
        bos_token_id=vocabulary["[CLS]"],
        eos_token_id=vocabulary["[SEP]"],
        pad_token_id=vocabulary["[PAD]"],
    )
    model = GitForCausalLM(config)
    _enliven(model)
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF, "crop", size), "CLIPImageProcessor")
    return folder


def tiny_blip2(folder: Path, size: int = 32, width: int = 32, seed: int = 0, language: str = "opt") -> Path:
    """A BLIP-2 of two small layers per part before a tiny OPT or T5 (`language`), as a plain transformers checkpoint."""
    torch.manual_seed(seed)
    tokenizer = _word_tokenizer()
    end, placeholder, pad = range(len(tokenizer), len(tokenizer) + 3)  # published OPTs end otherwise, too
    tokens = {"vocab_size": pad + 1, "bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    opt = OPTConfig(
        **sizes | tokens | {"bos_token_id": tokenizer.bos_token_id}, ffn_dim=2 * width, word_embed_proj_dim=width,
        max_position_embeddings=64,
    )  # fmt: skip
    t5 = T5Config(
        **tokens, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=pad,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=sizes | {"hidden_size": 24, "image_size": size, "patch_size": 8, "initializer_range": 0.02},
        qformer_config=sizes,
        text_config={"opt": opt, "t5": t5}[language].to_dict(),
        num_query_tokens=4,
        image_token_index=placeholder,
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens, std=0.1)  # they begin as zeros: all questions would be the same
    for part in ("vision", "qformer", "projection", "model.decoder"):  # T5 is lively enough
        _enliven(model, part)
    if language == "t5":  # Flan-T5 has a head of its own
        model.language_model.lm_head.weight = torch.nn.Parameter(model.language_model.shared.weight.detach() / 4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF), "BlipImageProcessor")
    return folder


def tiny_encoder_decoder(folder: Path, size: int = 32, seed: int = 0) -> Path:
    """The two checkpoints below as one `VisionEncoderDecoderModel`, as published ones such as ViT + GPT-2 are."""
    vision = load_model(ViTModel, str(tiny_vision_encoder(folder / "parts" / "vision", size, seed=seed)))
    language = tiny_text_decoder(folder / "parts" / "language", seed=seed)
    torch.manual_seed(seed)
    model = VisionEncoderDecoderModel(encoder=vision, decoder=load_decoder(str(language)))
    _enliven(model, "crossattention")
    _enliven(model, "enc_to_dec_proj")
    end = model.decoder.config.eos_token_id
    model.config.decoder_start_token_id = model.config.eos_token_id = model.config.pad_token_id = end
    model.save_pretrained(folder)
    load_tokenizer(str(language)).save_pretrained(folder)
    write_preparation(folder, ImageSpec(size, size, HALF, HALF), "ViTImageProcessor")
    shutil.rmtree(folder / "parts")
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
    model = ViTModel(config)
    _enliven(model)
    model.save_pretrained(folder)
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


def _bert_vocabulary() -> dict[str, int]:
    """Numbers of BERT's special tokens and of all words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return {token: index for index, token in enumerate([*special, *WORDS.split()])}


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, one special token, as GPT-2's."""
    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def _enliven(model: torch.nn.Module, part: str = "") -> None:
    """Larger random weights: with the usual 0.02 a tiny model's outputs are all alike, and tests would see no difference."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and part in name:
                parameter.mul_(8)


def tiny_prefix(folder: Path, size: int = 32, seed: int = 0) -> Path:
    """A ClipCap of two tiny checkpoints, with a transformer mapper of one layer, as captrain writes it."""
    vision = load_model(ViTModel, str(tiny_vision_encoder(folder / "parts" / "vision", size, seed=seed)))
    source = tiny_text_decoder(folder / "parts" / "language", seed=seed)
    tokenizer = load_tokenizer(str(source))
    spec = ImageSpec(size, size, HALF, HALF)
    torch.manual_seed(seed)
    mapper = Mapper("transformer", prefix_length=4, projection_length=3, layers=1, heads=4)
    model = join_prefix(vision, load_model(GPT2LMHeadModel, str(source)), tokenizer, mapper, "pooled", spec)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preparation(folder, spec, "ViTImageProcessor")
    shutil.rmtree(folder / "parts")
    return folder


TINY_CAPTIONERS = {
    "blip": tiny_blip,
    "blip-2": tiny_blip2,
    "encoder-decoder": tiny_encoder_decoder,
    "git": tiny_git,
    "prefix": tiny_prefix,
}
"""For each family of `captrain.models.checkpoint.folder.FAMILIES`, what makes a tiny checkpoint of it."""


def clear_pictures(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Pictures that differ at a glance: one colour over another, the border between them at different heights.

    Returns:
        uint8 (count, size, size, 3).

    >>> clear_pictures(2, size=4)[0, :, 0, 0].tolist()
    [216, 68, 68, 68]
    """
    random = np.random.default_rng(seed)
    pictures = np.empty((count, size, size, 3), dtype=np.uint8)
    for picture in pictures:
        above, below = random.integers(0, 255, (2, 3))
        border = random.integers(size // 4, size)
        picture[:border], picture[border:] = above, below
    return pictures


def teach(captioner: CaptionerModel, steps: int = 40, learning_rate: float = 3e-3) -> list[float]:
    """Teach a captioner `LESSONS` of as many `clear_pictures`, dropout off; returns the loss of each step."""
    captioner.eval()
    pixels = torch.from_numpy(clear_pictures(len(LESSONS), captioner.image_spec.height))
    captions, _ = captioner.tokenize(list(LESSONS), 20)
    rows = captioner.pack([[caption] for caption in captions]).to_dict()
    learning = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, learning_rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = captioner(**rows, pixels=pixels).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
