"""captrain: train image captioners on your own pictures.

>>> import captrain
>>> captioner = captrain.load("runs/photos")        # doctest: +SKIP
>>> captioner("holiday.jpg")                        # doctest: +SKIP
'two children build a sand castle on the beach'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captrain.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from captrain.inference.captioner import Captioner
    from captrain.metrics.compare import System

__all__ = ["__version__", "load", "score"]


def load(
    source: str | Path, device: str = "auto", cache: str | Path | None = None, precision: str = "auto"
) -> Captioner:
    """Load a captioner (a run folder, a model folder, a .zip, a hub id or a short name), ready to describe pictures.

    What comes from the hub is kept in `cache`, or in the hub's own cache folder. `precision` is `auto` (bf16 where the device
    computes it fast), `bf16`, `fp16` or `fp32`; in `fp32` captions are those of plain transformers, word for word.
    Torch is imported here and not with the package, so that `import captrain` stays light.
    """
    from captrain.inference.captioner import Captioner

    return Captioner.load(str(source), device=device, precision=precision, cache=cache)


def score(predictions: Any, references: Any, **options: Any) -> System:
    """Score captions against references: dictionaries by image id, or files that `captrain score` takes.

    Takes what `captrain.inference.score.score` takes, and raises what it raises.

    >>> captrain.score({"1": "a dog runs"}, {"1": ["a dog runs fast"]}).images                    # doctest: +SKIP
    1
    """
    from captrain.inference.score import score as score_captions

    return score_captions(predictions, references, **options)
