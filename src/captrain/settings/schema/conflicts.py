"""Settings that contradict each other: every conflict of a recipe, each in a few words.

Only settings that differ from their defaults count. A run's saved settings and the output of `config show` name every setting,
and both are recipes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from captrain.settings.schema.base import Section
from captrain.settings.schema.model import GenerationSettings, ModelSettings
from captrain.settings.schema.optimization import optimisation
from captrain.settings.schema.sections import Sections

NEW_DECODER = ("tokenizer", "vocabulary_size", "decoder_layers", "decoder_width", "decoder_heads", "decoder_dropout")
MAPPER = (
    "mapper", "prefix_length", "projection_length", "mapper_layers", "mapper_heads", "mapper_positions", "normalize_vectors",
)  # fmt: skip
TRANSFORMER_MAPPER = ("projection_length", "mapper_layers", "mapper_heads", "mapper_positions")
ADAPTERS = (
    "rank", "alpha", "dropout", "lora_parts", "lora_layers", "target_modules", "lora_init", "rslora", "dora", "lora_plus",
)  # fmt: skip
OF_NEW_ADAPTERS = ("lora_layers", "target_modules", "lora_init")
"""Settings that a saved adapter does not record; the others are compared with it."""
VIEWS = ("crop_scale", "flip", "randaugment", "views")
VALIDATED = ("evaluate_every", "validation_limit", "metric", "samples")
Names = tuple[str, ...] | None
PARTS = frozenset({"vision", "bridge", "language"})


def conflicts(settings: Sections) -> list[str]:
    """All conflicts, in the order of the sections; an empty list for settings that agree.

    >>> conflicts(Sections(generation=GenerationSettings(top_p=0.5, min_new_tokens=40)))
    ['top_p is for sampling, set sample too', 'min_new_tokens 40 is more than max_new_tokens 30']
    """
    rules = (
        _captioner,
        _decoder,
        _prefix,
        _learning,
        _adapters,
        _pictures,
        _words,
        _splits,
        _measured,
        _validation,
        _rates,
        _optimisation,
        _writing,
    )
    return [conflict for rule in rules for conflict in rule(settings)]


def method_of(model: ModelSettings) -> str:
    """`lora`, or `full` for a newly joined captioner, unless the settings name a method."""
    return model.method or ("lora" if model.encoder is None else "full")


def frozen_of(model: ModelSettings) -> tuple[str, ...]:
    """The parts that do not learn when the method is `full`."""
    if model.only_prefix:
        return ("vision", "language")
    return model.freeze if model.freeze is not None else ("vision",) * (model.encoder is not None)


def asked(section: Section, *names: str) -> list[str]:
    """Those of the settings that differ from their defaults.

    >>> asked(ModelSettings(rank=4, alpha=32), "rank", "alpha", "dropout")
    ['rank']
    """
    return [name for name in names if getattr(section, name) != type(section).model_fields[name].default]


def _are(names: list[str], rest: str) -> Iterator[str]:
    """One conflict of all names that are there.

    >>> list(_are(["rank", "alpha"], "for LoRA")), list(_are(["rank"], "for LoRA")), list(_are([], "for LoRA"))
    (['rank, alpha are for LoRA'], ['rank is for LoRA'], [])
    """
    if names:
        yield f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {rest}"


def _captioner(settings: Sections) -> Iterator[str]:
    """A checkpoint, or a newly joined captioner: settings of the other one mean nothing."""
    model = settings.model
    if model.encoder is not None:
        yield from _are(asked(model, "model"), "not used with encoder, which joins a new captioner, leave one out")
        yield from _are(asked(model, "base", "continue_adapter"), "for an adapter given as model, but encoder is given")
        return
    for_joined = asked(model, "decoder", *NEW_DECODER, *MAPPER)
    yield from _are(for_joined, "for a newly joined captioner, give encoder too")


def _decoder(settings: Sections) -> Iterator[str]:
    """A given decoder has its own sizes; those of a new one must fit together."""
    model = settings.model
    if model.encoder is None:
        return
    if model.decoder is not None:
        yield from _are(asked(model, *NEW_DECODER), f"for a new decoder, but decoder is {model.decoder!r}")
    elif model.decoder_width % model.decoder_heads:
        yield f"decoder_heads {model.decoder_heads} do not divide decoder_width {model.decoder_width}"


def _prefix(settings: Sections) -> Iterator[str]:
    """Settings of prefix captioners and of each kind of mapper."""
    model = settings.model
    others_frozen = model.freeze is not None and model.freeze != frozen_of(model)
    if model.only_prefix and (model.join != "prefix" or model.method == "lora" or others_frozen):
        yield "only_prefix goes with `join: prefix` alone, without freeze and without method lora"
    if model.encoder is None:
        return
    if model.join != "prefix":
        yield from _are(asked(model, *MAPPER), f"for `join: prefix`, but join is {model.join}")
    elif model.mapper == "mlp":
        yield from _are(asked(model, *TRANSFORMER_MAPPER), "for a transformer mapper, but mapper is mlp")
        if model.image_vectors == "all":
            yield "image_vectors all: mapper mlp reads one vector an image, use pooled or a transformer"
    elif model.image_vectors != "all" and model.mapper_positions:
        yield "mapper_positions is for `image_vectors: all`"


def _learning(settings: Sections) -> Iterator[str]:
    """Which weights learn, and which are quantised."""
    model = settings.model
    full = method_of(model) == "full"
    if full and set(frozen_of(model)) >= PARTS:
        yield "freeze vision bridge language: nothing is left to learn"
    both = sorted(set(model.freeze or ()) & set(model.lora_parts))
    if not full and both and not model.target_modules:
        yield f"freeze {' '.join(both)}: lora_parts has adapters learn there, leave one out or set method full"
    if model.quantize and (full or model.encoder is not None):
        yield f"quantize {model.quantize}: only weights that stay as they are can be quantised, use method lora and a model"
    if model.precision == "fp16" and model.device == "cpu":
        yield "precision fp16: a cpu has no fast fp16, use bf16, fp32 or auto"


def _adapters(settings: Sections) -> Iterator[str]:
    """Settings of LoRA adapters."""
    model = settings.model
    names = [name for name in asked(model, *ADAPTERS) if name != "dropout" or model.dropout]
    if method_of(model) == "full":
        why = "the method is full" if model.method else "a newly joined captioner learns with method full"
        yield from _are(names, f"for LoRA adapters, but {why}")
        if model.encoder is None:
            yield from _are(asked(model, "continue_adapter"), "for method lora, but the method is full")
    elif model.continue_adapter:
        yield from _are(asked(model, *OF_NEW_ADAPTERS), "for a new adapter, but continue_adapter is set")
    elif model.target_modules:
        yield from _are(asked(model, "lora_parts", "lora_layers"), "not used with target_modules, leave one out")


def _pictures(settings: Sections) -> Iterator[str]:
    """How pictures are varied and kept."""
    data = settings.data
    if data.crop_scale and data.crop_scale[0] > data.crop_scale[1]:
        low, high = data.crop_scale
        yield f"crop_scale {low} {high}: expected the smaller share first"
    if data.views > 1 and not asked(data, "crop_scale", "flip", "randaugment"):
        yield f"views {data.views}: nothing makes them differ, give crop_scale, flip or randaugment"
    if data.format == "features" or any(source.format == "features" for source in data.sources):
        yield from _are(
            asked(data, *VIEWS), "for pictures, but the format is features, of which no other views can be made"
        )
        yield from _are(
            asked(data, "cache_dtype"), "for pictures, but the format is features, which have a dtype already"
        )
    if data.cache_features == "off":
        yield from _are(asked(data, "cache_dtype"), "for cached features, but cache_features is off")
    if data.cache_features in ("disk", "off"):
        yield from _are(
            asked(data, "memory_budget"), f"for what is cached in memory, but cache_features is {data.cache_features}"
        )


def _words(settings: Sections) -> Iterator[str]:
    """Changes to the text of captions."""
    data = settings.data
    if wrong := [pair for pair in data.replace if pair.find("=") < 1]:
        yield f"replace {wrong[0]!r}: expected old=new"
    if data.keep_tags and not (data.shuffle_tags or data.drop_tags):
        yield "keep_tags is for shuffle_tags or drop_tags, set one of them"


def _splits(settings: Sections) -> Iterator[str]:
    """Which pictures are for what."""
    data = settings.data
    if len({source.ratio is None for source in data.sources}) > 1:
        yield "sources: some have a ratio and some have none, give one to all or to none"
    if data.train_split == () and not any(source.train_split for source in data.sources):
        yield "train_split is empty: there is nothing to train on"
    validation = () if data.validation_data else data.validation_split
    yield from _in_two("", data.train_split, validation, () if data.test_data else data.test_split)
    for source in data.sources:
        yield from _in_two(f"source {source.path!r}: ", source.train_split, source.validation_split, source.test_split)


def _in_two(where: str, train: Names, validation: Names, test: Names) -> Iterator[str]:
    """A split that is both trained on and measured on."""
    for name, others in (("validation_split", validation), ("test_split", test)):
        if both := sorted(set(train or ()) & set(others or ())):
            yield f"{where}{both[0]!r} is in train_split and in {name}"


def _measured(settings: Sections) -> Iterator[str]:
    """Two settings that both say what to measure on."""
    data = settings.data
    named = next((name for name in ("validation_split", "validation_data") if getattr(data, name)), None)
    if named and data.validation_share:
        why = f"for data without a validation split, but {named} names what to validate on"
        yield from _are(asked(data, "validation_share"), why)
    if data.validation_data and data.validation_split == ():
        yield "validation_data: validation_split is empty, so nothing of it is used"
    if data.test_data and data.test_split == ():
        yield "test_data: test_split is empty, so nothing of it is used"


def _validation(settings: Sections) -> Iterator[str]:
    """Settings that need validation pictures, where the settings leave none."""
    data = settings.data
    nothing = data.validation_split == () and not any(source.validation_split for source in data.sources)
    if nothing and (names := needing_validation(settings)):
        yield f"{', '.join(names)}: validation_split is empty, so there is nothing to validate on"


def needing_validation(settings: Sections) -> list[str]:
    """The settings that were given and mean nothing without validation pictures."""
    return [*asked(settings.training, "patience"), *asked(settings.evaluation, *VALIDATED)]


def _rates(settings: Sections) -> Iterator[str]:
    """Learning rates of parts that do not learn."""
    model = settings.model
    if method_of(model) == "full":
        still: Any = frozen_of(model)
    else:
        anywhere = model.target_modules or model.continue_adapter
        still = () if anywhere else PARTS - {"bridge", *model.lora_parts}
    for part in ("vision", "bridge", "language"):
        if part in still:
            yield from _are(
                asked(settings.training, f"{part}_learning_rate"), f"a rate of the {part} part, which does not learn"
            )


def _optimisation(settings: Sections) -> Iterator[str]:
    """Optimizer, learning rates and schedule."""
    yield from optimisation(settings.training, settings.model)


def _writing(settings: Sections) -> Iterator[str]:
    """How captions are written."""
    generation = settings.generation
    if not generation.sample:
        yield from _are(asked(generation, "top_p", "temperature"), "for sampling, set sample too")
    elif generation.beams > 1:
        yield from _are(asked(generation, "beams"), "for the search of beams, but sample draws tokens, leave one out")
    if conflict := conflict_of_lengths(generation):
        yield conflict


def conflict_of_lengths(generation: GenerationSettings) -> str | None:
    """What is wrong with the shortest and the longest caption together."""
    if generation.min_new_tokens <= generation.max_new_tokens:
        return None
    return f"min_new_tokens {generation.min_new_tokens} is more than max_new_tokens {generation.max_new_tokens}"
