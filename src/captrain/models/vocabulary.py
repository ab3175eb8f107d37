"""A tokenizer for a new decoder: given, or trained on the captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from captrain.errors import ModelError
from captrain.models.loading import load_tokenizer_files
from captrain.models.sizes import parts_of

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
MOST_GROWTH = 1000
"""Times that a tokenizer may make a text longer. Those in use replace a character by one or two."""
UNFOLDING = {"Precompiled": 18, "NFKC": 18, "NFKD": 18, "NFC": 3, "NFD": 4}
"""Steps that write some characters as several, and how many at most (unicode.org, FAQ on normalisation)."""
SPECIAL = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}


def make_tokenizer(source: str, captions: Iterable[str], size: int, min_count: int = 2) -> PreTrainedTokenizerBase:
    """A tokenizer from `words` or `word-pieces` trained on captions, or else loaded from a folder or hub id.

    Trained ones are lower case, split at spaces and punctuation, and hold at most `size` entries, each seen at least
    `min_count` times.

    >>> tokenizer = make_tokenizer("words", ["A dog runs.", "A dog sits."], size=100)
    >>> tokenizer.convert_ids_to_tokens(tokenizer("a dog flies.", add_special_tokens=False)["input_ids"])
    ['a', 'dog', '[UNK]', '.']
    """
    trained = {"words": _words, "word-pieces": _word_pieces}
    if source not in trained:
        return load_tokenizer(source)
    tokenizer, trainer = trained[source](size, min_count)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(captions, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=True, **SPECIAL)


def has_tokenizer(folder: str) -> bool:
    """Whether a folder holds a tokenizer, whole or not."""
    return any(Path(folder, name).is_file() for name in FILES)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises `ModelError` when it has none, or one without vocabulary or end token."""
    try:
        tokenizer = load_tokenizer_files(source)
        _check_steps(source, tokenizer)
        tokenizer("a dog")  # some settings of the wrong kind show only here
    except ModelError:
        raise
    except Exception as error:  # of every kind: OSError, KeyError, plain Exception from the Rust side, ...
        raise ModelError(f"{source}: no tokenizer could be loaded ({_first_line(error)})") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a folder without a vocabulary
        raise ModelError(f"{source}: its tokenizer has no vocabulary; expected tokenizer.json or vocab.txt in it")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
        raise ModelError(f"{source}: its tokenizer has no end token; expected eos_token or sep_token")
    return tokenizer


def _check_steps(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` where the steps before or after a tokenizer make a text far longer: each may double it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for step in (getattr(backend, name, None) for name in ("normalizer", "decoder")):
        if step is not None and (growth := growth_of(json.loads(step.__getstate__()))) > MOST_GROWTH:
            raise ModelError(
                f"{source}: its tokenizer makes texts {growth:.0g} times as long, over {MOST_GROWTH}; take another one"
            )


def growth_of(step: Any) -> float:
    """How many times as long a text can get by a step of a tokenizer, as its JSON describes that.

    >>> double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    >>> growth_of({"type": "Sequence", "normalizers": [double, double, {"type": "Lowercase"}]})
    4.0
    """
    growth = 1.0
    for part in parts_of(step):
        if part.get("type") == "Replace":
            pattern = dict(part.get("pattern") or {}).get("String") or "."
            growth *= max(1.0, len(str(part.get("content", ""))) / len(pattern))
        elif part.get("type") in UNFOLDING:
            growth *= UNFOLDING[part["type"]]
    return growth


def _words(size: int, min_count: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Whole words; rarer ones become [UNK]."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL["unk_token"]))
    special = list(SPECIAL.values())
    return tokenizer, trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=special, show_progress=False
    )


def _word_pieces(size: int, min_count: int) -> tuple[Tokenizer, trainers.Trainer]:
    """WordPiece as BERT's: rare words are spelled in pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = list(SPECIAL.values())
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=special, show_progress=False
    )


def _first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
