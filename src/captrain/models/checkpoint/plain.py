"""Code for the card of an exported captioner, without captrain: transformers (and peft) generate the same caption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import fill

from captrain.models.contract import CaptionerModel

WIDTH = 100  # of a line of code
OWN_KINDS = '"model_type": "captrain_'
"""In configurations of models with parts that transformers does not know."""


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where the code finds the captioner: on the hub, or in a folder of this name, which it runs in or beside."""

    name: str
    on_hub: bool = False

    def code(self) -> str:
        """The line of code for it.

        >>> ModelPlace("ada/cats", on_hub=True).code()
        'place = "ada/cats"'
        """
        name = json.dumps(self.name)
        return (
            f"place = {name}" if self.on_hub else f'place = {name} if Path({name}).is_dir() else "."  # or its hub id'
        )


def captrain_code(place: ModelPlace) -> str:
    """Code that captions a picture with captrain."""
    lines = [
        *([] if place.on_hub else ["from pathlib import Path", ""]),
        "import captrain",
        "",
        place.code(),
        "captioner = captrain.load(place)",
        'print(captioner("photo.jpg"))',
    ]
    return "\n".join(lines)


def plain_code(captioner: CaptionerModel, base: str, place: ModelPlace) -> str | None:
    """Code that captions a picture with transformers, and peft for an adapter; None if they can't load the captioner.

    `base` is the hub id of an adapter's base model; empty if the base is in the captioner's own folder.
    """
    given = captioner.plain_inputs()
    if given is None or OWN_KINDS in captioner.core().config.to_json_string():
        return None
    kind = type(captioner.core()).__name__
    adapter = hasattr(captioner.model, "peft_config")
    beside = json.dumps(base) if base else 'f"{place}/base"'
    lines = [
        *([] if place.on_hub else ["from pathlib import Path", ""]),
        "import torch",
        *(["from peft import PeftModel"] if adapter else []),
        "from PIL import Image, ImageOps",
        f"from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig, {kind}",
        "",
        place.code(),
        f"model = {kind}.from_pretrained({beside if adapter else 'place'}).float()",
        *(["model = PeftModel.from_pretrained(model, place).get_base_model()"] if adapter else []),
        "tokenizer = AutoTokenizer.from_pretrained(place)",
        'prepare = AutoImageProcessor.from_pretrained(place, backend="pil")',
        "",
        'picture = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
        'pixels = prepare(picture, return_tensors="pt")["pixel_values"]',
        f"how = GenerationConfig(\n{_options(captioner)}\n)",
        f"given = torch.tensor([{given.code()}]){_said(captioner.prompt)}",
        f"tokens = model.generate(pixel_values=pixels, {given.argument}=given, generation_config=how)",
        f"print(tokenizer.decode(tokens[0, {given.before}:], skip_special_tokens=True).strip())",
    ]
    return "\n".join(lines)


def code_differences(captioner: CaptionerModel) -> list[str]:
    """Sentences on what captrain does and the plain code does not."""
    found = [
        "Both decode and resize a JPEG alike, to the bit (of PNGs captrain also lays transparent pixels over white, and scales "
        "16-bit grey). captrain computes in bf16 where the device does so fast; loaded with "
        '`precision="fp32"` it writes the same words as this code.'
    ]
    if captioner.image_spec.decode == "fast":
        found = [
            "captrain decodes large JPEGs at a smaller scale, as it was trained (`decode: fast`), plain Pillow does not: now and "
            "then another word comes out."
        ]
    if captioner.decoding.mirror:
        found.append("captrain also looks at the mirror image (`mirror`), this code does not: other words come out.")
    return found


def _said(prompt: str) -> str:
    """The comment on a prompt."""
    return f"  # begins with {prompt!r}" if prompt else ""


def _options(captioner: CaptionerModel) -> str:
    """The options that captrain generates with, as arguments; those that people change come first."""
    config = captioner.generation_config(captioner.decoding).to_diff_dict()
    config.pop("transformers_version", None)
    first = [name for name in ("num_beams", "max_new_tokens") if name in config]
    options = ", ".join(f"{name}={config[name]!r}" for name in [*first, *sorted(set(config) - set(first))])
    return fill(options, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
