"""How many tokens a prompt has, where no model is loaded."""

from __future__ import annotations

import re
from pathlib import Path

PLAIN = {"": 0, "a picture of": 3, "a photo of": 3}
"""Prompts of the published recipes: each word is one token for BERT and for GPT-2."""


def count_tokens(prompt: str, checkpoint: str) -> tuple[int, bool]:
    """The tokens of a prompt for a checkpoint's tokenizer, and whether they were counted by it.

    Without the tokenizer (a folder's, or that of a hub checkpoint in the cache; nothing is fetched) each word and each mark
    counts as one.

    >>> count_tokens("a picture of", "ada/nowhere"), count_tokens("a picture, showing", "ada/nowhere")
    ((3, True), (4, False))
    """
    if prompt in PLAIN:
        return PLAIN[prompt], True
    counted = _by_tokenizer(prompt, checkpoint)
    return (len(re.findall(r"\w+|[^\w\s]", prompt)), False) if counted is None else (counted, True)


def _by_tokenizer(prompt: str, checkpoint: str) -> int | None:
    """The number by the checkpoint's own tokenizer; None where it is not on this machine or can't be read."""
    file = _file("tokenizer.json", checkpoint)
    if file is None:
        return None
    from tokenizers import Tokenizer

    try:
        return len(Tokenizer.from_file(str(file)).encode(prompt, add_special_tokens=False).ids)
    except Exception:  # the library raises bare exceptions for files that it can't read
        return None


def _file(name: str, checkpoint: str) -> Path | None:
    """A checkpoint's file on this machine."""
    if Path(checkpoint).exists():
        found = Path(checkpoint, name)
        return found if found.is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(checkpoint, name)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
