"""The parts of a captioner, and how the names of its modules and parameters tell them apart."""

from __future__ import annotations

from collections.abc import Mapping

PARTS = ("vision", "bridge", "language")


def part_of(name: str, prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """The first part whose prefixes a module's or parameter's name begins with; "" where none does.

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
    """A module's or parameter's name as transformers knows it, without the wrappings of this class and of PEFT.

    >>> plain_name("model.base_model.model.text_decoder.bert.lora_A.default.weight")
    'text_decoder.bert.lora_A.default.weight'
    """
    name = name.removeprefix("model.")
    return name.removeprefix("base_model.model.")
