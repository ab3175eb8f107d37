"""The families of captioners: one record for each, with all that differs between them. Loads no torch.

A family is a class that keeps the contract of `captrain.models.contract`, and its record here. Records name classes as
"module:Class"; they are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from captrain.errors import ModelError, nearest


@dataclass(frozen=True, slots=True)
class Family:
    """A family of captioners. Image size and preparation are not part of it: they are always the checkpoint's own.

    Attributes:
        name: its name, in `captrain.json` and everywhere else.
        captioner: its subclass of `CaptionerModel`.
        checkpoints: for each `model_type` of a config.json, the class that loads the weights.
        own_models: models to register with transformers' Auto classes, which do not know them.
        image_processor: the processor of transformers that reads a saved image preparation, where pictures are squashed.
        prompt: words before every caption, where the checkpoint has no prompt of its own.
        label_smoothing: label smoothing of the loss.
        learning_rates: the peak learning rate for each method; `new` is for a decoder from scratch.
        sees_patches: whether the decoder attends to patches of the picture, so that patch dropout can leave some out.
        join: the value of `--join` that builds a new captioner of this family; "" if captioners are only loaded.
        image_vectors: the vectors of its encoder that a new captioner uses.
        fresh_modules: modules of a new captioner that no checkpoint has trained: they learn whole, beside adapters.
        hub_words: words in hub ids that hint at the family, before config.json is there.

    >>> Family("owl", "zoo.owl:OwlCaptioner", {"owl": "zoo.owl:OwlModel"}).learning_rates["lora"]
    0.0005
    """

    name: str
    captioner: str
    checkpoints: Mapping[str, str]
    own_models: tuple[str, ...] = ()
    image_processor: str = "ViTImageProcessor"
    prompt: str = ""
    label_smoothing: float = 0.0
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"lora": 5e-4, "full": 1e-5})
    sees_patches: bool = True
    join: str = ""
    image_vectors: Literal["all", "pooled"] = "all"
    fresh_modules: tuple[str, ...] = ()
    hub_words: tuple[str, ...] = ()

    def captioner_class(self) -> Any:
        """The family's subclass of `CaptionerModel`, imported now. (The contract stands above the records: no type says it.)

        >>> family_named("blip").captioner_class().__name__
        'BlipCaptioner'
        """
        return import_object(self.captioner)


_BUILT_IN = (
    Family(
        name="blip",
        captioner="captrain.models.families.blip:BlipCaptioner",
        checkpoints={"blip": "captrain.models.families.blip:BlipForConditionalGeneration"},
        image_processor="BlipImageProcessor",
        label_smoothing=0.1,  # as LAVIS; its prompt for COCO, "a picture of", is in the recipes blip-coco-*
        hub_words=("blip",),
    ),
    Family(
        name="blip-2",
        captioner="captrain.models.families.blip2:Blip2Captioner",
        checkpoints={"blip-2": "transformers:Blip2ForConditionalGeneration"},
        image_processor="BlipImageProcessor",
        prompt="a photo of",  # as LAVIS
        sees_patches=False,
        hub_words=("blip2", "blip-2"),
    ),
    Family(
        name="encoder-decoder",
        captioner="captrain.models.families.encoder_decoder:EncoderDecoderCaptioner",
        checkpoints={"vision-encoder-decoder": "transformers:VisionEncoderDecoderModel"},
        own_models=(
            "captrain.models.layers.vision:VisionVectors",
            "transformers:BlipVisionModel",  # transformers has it, but AutoModel does not know it
        ),
        learning_rates={"lora": 5e-4, "full": 5e-5, "new": 1e-3},
        join="cross-attention",
        fresh_modules=("crossattention", "ln_cross_attn", "enc_to_dec_proj", "encoder.norm", "encoder.positions"),
    ),
    Family(
        name="git",
        captioner="captrain.models.families.git:GitCaptioner",
        checkpoints={"git": "captrain.models.families.git:GitForCausalLM"},
        image_processor="CLIPImageProcessor",
        hub_words=("git",),
    ),
    Family(
        name="prefix",
        captioner="captrain.models.families.prefix.captioner:PrefixCaptioner",
        checkpoints={"captrain_prefix": "captrain.models.families.prefix.model:PrefixModel"},
        own_models=("captrain.models.families.prefix.model:PrefixModel",),
        learning_rates={"lora": 5e-4, "full": 2e-5, "new": 1e-3},
        sees_patches=False,
        join="prefix",
        image_vectors="pooled",
        fresh_modules=("mapper",),
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _BUILT_IN}
"""All families by name. `register_family` adds to them."""


def register_family(family: Family) -> None:
    """Add a family of your own, for as long as this process runs. Registering the same record again changes nothing.

    Raises `ModelError` if its name or one of its model types belongs to another family.

    >>> register_family(Family("blip", "zoo.owl:OwlCaptioner", {}))
    Traceback (most recent call last):
        ...
    captrain.errors.ModelError: register_family: there is another family named 'blip'; choose another name
    """
    if FAMILIES.get(family.name, family) != family:
        raise ModelError(f"register_family: there is another family named '{family.name}'; choose another name")
    for model_type in family.checkpoints:
        other = family_of_type(model_type)
        if other is not None and other.name != family.name:
            raise ModelError(
                f"register_family: the model type '{model_type}' belongs to the family '{other.name}'; "
                "give the configuration of your model another model_type"
            )
    FAMILIES[family.name] = family


def family_named(name: str) -> Family:
    """The family of a name. Raises `ModelError` if there is none.

    >>> family_named("git").checkpoints
    {'git': 'captrain.models.families.git:GitForCausalLM'}
    """
    if name not in FAMILIES:
        raise ModelError(f"unknown family '{name}'.{nearest(name, FAMILIES)} Families: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of_type(model_type: str) -> Family | None:
    """The family that loads checkpoints of a `model_type`, as their config.json states it; None if no family does."""
    return next((family for family in FAMILIES.values() if model_type in family.checkpoints), None)


def joined_family(join: str) -> Family:
    """The family of a new captioner that `--join` builds from an encoder and a decoder.

    >>> joined_family("cross-attention").name
    'encoder-decoder'
    """
    return next(family for family in FAMILIES.values() if family.join == join)


def import_object(place: str) -> Any:
    """The object that "module:name" names, imported now.

    >>> import_object("captrain.errors:ModelError").__name__
    'ModelError'
    """
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
