"""Code without captrain, for the card of an exported captioner: transformers (and peft) write the same caption with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill

from captrain.models.captioner import CaptionerModel

WIDTH = 100  # of a line of code
OWN_KINDS = '"model_type": "captrain_'
"""In the configuration of a model with parts that transformers does not know."""


@dataclass(frozen=True, slots=True)
class Given:
    """What `generate` is given beside pixels, and how many tokens of what it gives back stand before the caption."""

    argument: str
    ids: list[int]
    before: int
    pictures: int = 0
    """Placeholders of the picture before the ids, and their number."""
    placeholder: int = 0

    def code(self) -> str:
        """The ids as Python.

        >>> Given("input_ids", [2, 7], 2).code(), Given("input_ids", [2], 9, 8, 50265).code()
        ('[2, 7]', '[50265] * 8 + [2]')
        """
        return f"[{self.placeholder}] * {self.pictures} + {self.ids}" if self.pictures else str(self.ids)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the code finds the captioner: on the hub, or in a folder of this name that it runs beside or in."""

    name: str
    on_hub: bool = False

    def code(self) -> str:
        """A line that says so.

        >>> Place("ada/cats", on_hub=True).code()
        'place = "ada/cats"'
        """
        name = json.dumps(self.name)
        return (
            f"place = {name}" if self.on_hub else f'place = {name} if Path({name}).is_dir() else "."  # or its hub id'
        )


def captrain_code(place: Place) -> str:
    """Calls of captrain that write a picture's caption."""
    lines = [
        *([] if place.on_hub else ["from pathlib import Path", ""]),
        "import captrain",
        "",
        place.code(),
        "captioner = captrain.load(place)",
        'print(captioner("photo.jpg"))',
    ]
    return "\n".join(lines)


def plain_code(captioner: CaptionerModel, base: str, place: Place) -> str | None:
    """Calls of transformers, and of peft for an adapter, that write a picture's caption; None where they can't load it.

    `base` is the hub id of an adapter's base model; empty where that lies in the captioner's own folder.
    """
    if OWN_KINDS in captioner.core().config.to_json_string():
        return None
    kind, given = type(captioner.core()).__name__, GIVEN[captioner.family](captioner)
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


def differences(captioner: CaptionerModel) -> list[str]:
    """Sentences on what captrain does that the plain code does not, and on what it takes to compare the two."""
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
    """How captrain has captions written, as arguments: those that people change first."""
    config = captioner.generation_config(captioner.decoding).to_diff_dict()
    config.pop("transformers_version", None)
    first = [name for name in ("num_beams", "max_new_tokens") if name in config]
    options = ", ".join(f"{name}={config[name]!r}" for name in [*first, *sorted(set(config) - set(first))])
    return fill(options, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _blip(captioner: CaptionerModel) -> Given:
    """BLIP's `generate` puts the start token in the first place, and leaves the last one out."""
    start = [captioner.start_id, *captioner.prompt_ids()]
    return Given("input_ids", [*start, captioner.end_id], len(start))


def _blip2(captioner: CaptionerModel) -> Given:
    """Placeholders, then what OPT's captions begin with, or what T5's encoder reads."""
    config = captioner.core().config
    words = captioner.tokenizer(captioner.prompt, add_special_tokens=False)["input_ids"] if captioner.prompt else []
    placeholders = (int(config.num_query_tokens), int(config.image_token_index))
    if captioner.decoder.config.is_encoder_decoder:
        return Given("input_ids", [*words, captioner.end_id], 1, *placeholders)
    start = [captioner.start_id, *words]
    return Given("input_ids", start, placeholders[0] + len(start), *placeholders)


def _encoder_decoder(captioner: CaptionerModel) -> Given:
    start = [captioner.start_id, *captioner.prompt_ids()]
    return Given("decoder_input_ids", start, len(start))


def _git(captioner: CaptionerModel) -> Given:
    start = [captioner.start_id, *captioner.prompt_ids()]
    return Given("input_ids", start, len(start))


GIVEN: dict[str, Callable[[CaptionerModel], Given]] = {
    "blip": _blip,
    "blip-2": _blip2,
    "encoder-decoder": _encoder_decoder,
    "git": _git,
}
"""For each family that transformers knows, what its `generate` is given."""
