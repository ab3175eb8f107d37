"""The three parts of a captioner, told apart by the names of its modules and parameters."""

from __future__ import annotations

from collections.abc import Mapping

PARTS = ("vision", "bridge", "language")
"""The image encoder, what joins it to the decoder, and the decoder."""


def part_of(name: str, prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """The first part that a module or parameter belongs to, by its name; "" if it belongs to none.

    Args:
        name: the name in a `CaptionerModel`. prefixes: for each part, how the names of its modules begin.

    >>> part_of("model.vision_model.layers.0", {"vision": ("vision_model",), "language": ("text_decoder",)})
    'vision'
    >>> part_of("model.vision_model_norm", {"vision": ("vision_model",)})
    ''
    """
    plain = plain_name(name)
    for part in PARTS:
        if any(plain == prefix or plain.startswith(prefix + ".") for prefix in prefixes.get(part, ())):
            return part
    return ""


def plain_name(name: str) -> str:
    """The name of a module or parameter as transformers knows it, without what `CaptionerModel` and PEFT put before it.

    >>> plain_name("model.base_model.model.text_decoder.bert.lora_A.default.weight")
    'text_decoder.bert.lora_A.default.weight'
    """
    name = name.removeprefix("model.")
    return name.removeprefix("base_model.model.")
