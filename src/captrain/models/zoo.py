"""Captioners on the model hub, by short names. Loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captrain.errors import nearest

BLIP = "Li et al. 2022, BLIP, arXiv:2201.12086, table 7"
GIT = "Wang et al. 2022, GIT, arXiv:2205.14100, cross-entropy training"
BLIP_2 = "Li et al. 2023, BLIP-2, arXiv:2301.12597, table 3"
CLIPCAP = "Mokady et al. 2021, ClipCap, arXiv:2111.09734, table 1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published captioner. Fields that are not known for sure are left out.

    Attributes:
        name: short name. hub_id: its id on the hub, None if no checkpoint is in a format that can be loaded.
        millions: of parameters. image_size: edge of its input pictures, in pixels.
        cider, bleu_4: on the COCO Karpathy test split, times 100, as `source` states them; captrain measured none of them.
    """

    name: str
    family: str
    hub_id: str | None
    millions: int | None = None
    image_size: int | None = None
    licence: str = ""
    cider: float | None = None
    bleu_4: float | None = None
    source: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


OPT = "the language model is OPT, which has a licence of its own"

CHECKPOINTS = (
    Checkpoint("blip-base", "blip", "Salesforce/blip-image-captioning-base", 247, 384, "BSD-3-Clause", 133.3, 39.7, BLIP),
    Checkpoint("blip-large", "blip", "Salesforce/blip-image-captioning-large", 470, 384, "BSD-3-Clause", 136.7, 40.4, BLIP),
    Checkpoint("vit-gpt2", "encoder-decoder", "nlpconnect/vit-gpt2-image-captioning", 239, 224, "Apache-2.0"),
    Checkpoint("git-base", "git", "microsoft/git-base", 177, 224, "MIT", note="not fine-tuned for captions"),
    Checkpoint("git-base-coco", "git", "microsoft/git-base-coco", 177, 224, "MIT", 131.4, None, GIT),
    Checkpoint("git-large", "git", "microsoft/git-large", 394, 224, "MIT", note="not fine-tuned for captions"),
    Checkpoint("git-large-coco", "git", "microsoft/git-large-coco", 394, 224, "MIT", 138.5, None, GIT),
    Checkpoint("blip-2-opt-2.7b", "blip-2", "Salesforce/blip2-opt-2.7b", 3800, 224, "MIT", note=OPT),
    Checkpoint(
        "blip-2-opt-2.7b-coco", "blip-2", "Salesforce/blip2-opt-2.7b-coco", 3800, 364, "MIT", 145.8, 43.7, BLIP_2, OPT
    ),
    Checkpoint("blip-2-opt-6.7b", "blip-2", "Salesforce/blip2-opt-6.7b", 7800, 224, "MIT", note=OPT),
    Checkpoint(
        "blip-2-opt-6.7b-coco", "blip-2", "Salesforce/blip2-opt-6.7b-coco", 7800, 364, "MIT", 145.2, 43.5, BLIP_2, OPT
    ),
    Checkpoint("blip-2-flan-t5-xl", "blip-2", "Salesforce/blip2-flan-t5-xl", 4100, 224, "MIT"),
    Checkpoint(
        "blip-2-flan-t5-xl-coco", "blip-2", "Salesforce/blip2-flan-t5-xl-coco", 4100, 364, "MIT", 144.5, 42.4, BLIP_2
    ),
    Checkpoint(
        "clipcap-mlp", "prefix", None, cider=108.35, bleu_4=32.15, source=CLIPCAP,
        note="published as pickles in a format that captrain does not read; train one with --encoder and --decoder",
    ),
    Checkpoint(
        "clipcap-transformer", "prefix", None, cider=113.08, bleu_4=33.53, source=CLIPCAP,
        note="published as pickles in a format that captrain does not read; train one with --encoder and --decoder",
    ),
)  # fmt: skip

HUB_IDS = {checkpoint.name: checkpoint.hub_id for checkpoint in CHECKPOINTS if checkpoint.hub_id is not None}


def resolve_name(name: str) -> str:
    """The hub id of a short name; folders, hub ids and everything else unchanged.

    >>> resolve_name("blip-large"), resolve_name("ada/cat-captions")
    ('Salesforce/blip-image-captioning-large', 'ada/cat-captions')
    """
    return name if Path(name).exists() else HUB_IDS.get(name, name)


def name_hint(name: str) -> str:
    """A hint for the error about a name that could not be loaded: the nearest short name, or why there is no checkpoint.

    >>> name_hint("blip-larg")
    " Did you mean 'blip-large'?"
    >>> name_hint("ada/cat-captions")
    ''
    """
    if "/" in name or Path(name).exists():
        return ""
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == name and checkpoint.hub_id is None:
            return f" {name} is {checkpoint.note}."
    return nearest(name, HUB_IDS)
