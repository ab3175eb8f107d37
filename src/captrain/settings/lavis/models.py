"""LAVIS's captioning models: which checkpoint each type is, what it does unless a file says otherwise, how it counts tokens.

After salesforce/LAVIS: `configs/models`, `blip_caption.py`, `blip2_opt.py`, `blip2_t5.py`.

Numbers that LAVIS counts in other units: tokens with start and prompt among them, and batches of pairs.

How many tokens a prompt has, where no model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from captrain.errors import SettingsError, nearest
from captrain.settings.lavis.sections import CAPTIONS_AN_IMAGE, Imported, LavisSection

BLIP_PROMPT, BLIP_2_PROMPT = "a picture of", "a photo of"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model type: its checkpoint on the hub, and what its own file says.

    Attributes:
        before: the checkpoint before its last training, which `load_finetuned: False` asks for; empty if the hub has none.
        prompt: words before every caption. freezes_vision: unless a file says otherwise.
    """

    checkpoint: str
    before: str = ""
    image_size: int = 384
    prompt: str = BLIP_PROMPT
    freezes_vision: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """Whether a length of LAVIS holds the start token (0 or 1), and whether the prompt's tokens."""

    start: int = 0
    prompt: bool = False

    def before(self, prompt: int) -> int:
        """Tokens in the length that are no part of the caption, where the prompt has so many.

        >>> Counted(1, True).before(3), Counted(1).before(3), Counted().before(3)
        (4, 1, 0)
        """
        return self.start + (prompt if self.prompt else 0)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of model.

    Attributes:
        label_smoothing: of its loss. max_txt_len: most tokens of a learned text. frozen: parts that never learn.
        longest, shortest, learned: what `max_len`, `min_len` and `max_txt_len` count.
    """

    types: dict[str, Weights]
    usual: str
    label_smoothing: float = 0.0
    max_txt_len: int = 32
    frozen: tuple[str, ...] = ("language",)
    longest: Counted = field(default_factory=Counted)
    shortest: Counted = field(default_factory=Counted)
    learned: Counted = field(default_factory=Counted)


def _blip_2(name: str, *, coco: bool) -> Weights:
    hub_id = f"Salesforce/blip2-{name}"
    if coco:
        return Weights(f"{hub_id}-coco", hub_id, 364, BLIP_2_PROMPT)
    return Weights(hub_id, image_size=224, prompt="", freezes_vision=True)


WHOLE = Counted(1, True)

ARCHITECTURES = {
    "blip_caption": Architecture(
        {
            "base_coco": Weights("Salesforce/blip-image-captioning-base"),
            "large_coco": Weights("Salesforce/blip-image-captioning-large"),
        },
        "base_coco", 0.1, 40, (), WHOLE, WHOLE, WHOLE,
    ),
    "blip2_opt": Architecture(
        {
            "pretrain_opt2.7b": _blip_2("opt-2.7b", coco=False),
            "pretrain_opt6.7b": _blip_2("opt-6.7b", coco=False),
            "caption_coco_opt2.7b": _blip_2("opt-2.7b", coco=True),
            "caption_coco_opt6.7b": _blip_2("opt-6.7b", coco=True),
        },
        "caption_coco_opt2.7b", learned=WHOLE,
    ),
    "blip2_t5": Architecture(
        {
            "pretrain_flant5xl": _blip_2("flan-t5-xl", coco=False),
            "pretrain_flant5xxl": _blip_2("flan-t5-xxl", coco=False),
            "caption_coco_flant5xl": _blip_2("flan-t5-xl", coco=True),
        },
        "caption_coco_flant5xl", shortest=Counted(1),  # its encoder reads the prompt, and its decoder begins with <pad>
    ),
}  # fmt: skip
"""By `model.arch`. BLIP's decoder is given start token and prompt as words that count; BLIP-2's reads them as vectors."""


def architecture_of(model: LavisSection) -> Architecture:
    """The architecture that a file names. Raises `SettingsError` for one that is no captioner of a family here."""
    name = model.take("arch", "a name", "blip_caption")
    if name not in ARCHITECTURES:
        raise SettingsError(
            f"{model.where}: model.arch: found '{name}', expected {_either(ARCHITECTURES)}: of LAVIS's architectures these "
            "are imported"
        )
    return ARCHITECTURES[name]


def weights_of(model: LavisSection, kind: Architecture) -> Weights:
    """The model type that a file names. Raises `SettingsError` for one that the architecture does not have on the hub."""
    usual = kind.usual
    if kind is ARCHITECTURES["blip_caption"]:
        usual = f"{model.take('vit_type', 'a name', 'base')}_coco"
    name = model.take("model_type", "a name", usual)
    if name in ("base", "large") and f"{name}_coco" in kind.types:  # as in LAVIS's coco_cap_ft_iter.yaml
        name = f"{name}_coco"
    if name not in kind.types:
        raise SettingsError(
            f"{model.where}: model.model_type: found '{name}', expected {_either(kind.types)}.{nearest(name, kind.types)}"
        )
    return kind.types[name]


def take_model(model: LavisSection, kind: Architecture, weights: Weights, done: Imported) -> None:
    """Which checkpoint, and which of its weights learn."""
    finished = model.take("load_finetuned", "true or false", True)
    done.set("model", weights.checkpoint if finished or not weights.before else weights.before)
    if not finished and not weights.before and weights.prompt == BLIP_PROMPT:
        done.note(
            "model.load_finetuned",
            "False starts before LAVIS's COCO training; the hub's checkpoint is the one after it. To start where LAVIS does, "
            "give `model` the folder of a converted pretrained checkpoint",
        )
    done.set("method", "full")
    freezes = model.take("freeze_vit", "true or false", weights.freezes_vision)
    if frozen := [*(["vision"] if freezes else []), *kind.frozen]:
        done.set("freeze", frozen)
    done.set("image_size", model.take("image_size", "a whole number", weights.image_size))
    done.set("label_smoothing", kind.label_smoothing)
    if any(model.take(key, "true or false", False) for key in ("vit_grad_ckpt", "use_grad_checkpoint")):
        done.set("checkpoint_activations", True)


def take_prompt(model: LavisSection, weights: Weights, texts: list[LavisSection], done: Imported) -> None:
    """The one prompt that is learned and written behind: of training, else of the model, which has a default.

    `texts` are the data sets' text processors.
    """
    learned, own = done.get("prompt"), model.take("prompt", "text")
    shown = (weights.prompt if own is None else own).strip()
    evaluation = next((part for text in texts if (part := text.part("eval")).take("prompt", "text", "").strip()), None)
    asked = "" if evaluation is None else evaluation.take("prompt", "text", "").strip()
    chosen = learned or (asked if own is None and asked else shown)
    done.set("prompt", chosen)
    if chosen != shown:
        done.note("model.prompt", f"is '{shown}' there; here one prompt is learned and given, '{chosen}'")
    if evaluation is not None and chosen != asked:
        done.note(f"{evaluation.name}.prompt", f"is '{asked}' there; here one prompt is learned and given, '{chosen}'")
    training = next((part for text in texts if (part := text.part("train")).values), None)
    if chosen and not learned and training is not None:
        done.note(f"{training.name}.prompt", f"is none there; here captions are learned behind the model's, '{chosen}'")


def _either(names: Collection[str]) -> str:
    """Names in a sentence.

    >>> _either(["a", "b", "c"])
    'a, b or c'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def take_lengths(run: LavisSection, model: LavisSection, kind: Architecture, done: Imported) -> None:
    """Lengths in tokens. captrain counts those of the caption alone, and its end."""
    prompt = done.get("prompt") or ""
    tokens, certain = count_tokens(prompt, done.get("model"))
    lengths: tuple[tuple[str, str, Counted, int], ...] = (
        ("max_len", "max_new_tokens", kind.longest, 1),
        ("min_len", "min_new_tokens", kind.shortest, 0),
    )
    for key, leaf, counted, least in lengths:
        length, before = run.take(key, "a whole number"), counted.before(tokens)
        if length is None:
            continue
        done.set(leaf, max(length - before, least))
        if before:
            what = f"the start token and the prompt's {tokens}" if counted.prompt else "the start token"
            done.note(
                f"run.{key}", f"{length} is {done.get(leaf)} here: LAVIS counts {what} too, captrain the caption alone"
            )
    before = kind.learned.before(tokens)
    done.set("max_tokens", max(model.take("max_txt_len", "a whole number", kind.max_txt_len) - before, 2))
    if not certain and any(counted.prompt for counted in (kind.longest, kind.learned)):
        done.note(
            "model.prompt",
            f"'{prompt}' is taken for {tokens} tokens, one for each word and mark: the tokenizer of {done.get('model')} is not "
            "on this machine; --model FOLDER counts with the one there",
        )


def take_batch(run: LavisSection, datasets: LavisSection, done: Imported) -> None:
    """Pairs of an image and a caption, as images with all of their captions."""
    pairs = run.take("batch_size_train", "a whole number")
    if pairs is None:
        return
    each = min((CAPTIONS_AN_IMAGE.get(str(name), 1) for name in datasets.values), default=1)
    done.set("batch_size", max(round(pairs / each), 1))
    said = f"{done.get('batch_size')} images of about {each} captions" if each > 1 else "as many images"
    done.note("run.batch_size_train", f"{pairs} pairs of an image and a caption are {said} here, on each device")


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
    """The number by the checkpoint's own tokenizer; None if it is not on this machine or can't be read."""
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
