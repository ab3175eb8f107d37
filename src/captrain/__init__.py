"""captrain: train image captioners on your own pictures.

>>> import captrain
>>> captioner = captrain.load("runs/photos")        # doctest: +SKIP
>>> captioner("holiday.jpg")                        # doctest: +SKIP
'two children build a sand castle on the beach'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from captrain.version import __version__

if TYPE_CHECKING:
    from captrain.inference.captioning import Writer

__all__ = ["__version__", "load"]


def load(source: str, device: str = "auto") -> Writer:
    """Load a captioner (a run folder, a model folder or a hub id), ready to describe pictures.

    Torch is imported here and not with the package, so that `import captrain` stays light.
    """
    from captrain.inference.captioning import Writer

    return Writer.load(source, device=device)
