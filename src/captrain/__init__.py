"""captrain: train image captioners on your own pictures.

>>> import captrain
>>> run = captrain.train("photos", "runs/photos", epochs=3)        # doctest: +SKIP
>>> captioner = captrain.load("runs/photos")                       # doctest: +SKIP
>>> captioner("holiday.jpg")                                       # doctest: +SKIP
'two children build a sand castle on the beach'
"""

from __future__ import annotations

from importlib import import_module

from captrain.version import __version__ as __version__

TYPE_CHECKING = False  # true to type checkers, by its name; `typing` itself would take most of the time of this import
if TYPE_CHECKING:
    from captrain import errors as errors
    from captrain.api.captioning import Captions as Captions
    from captrain.api.captioning import caption as caption
    from captrain.api.captioning import load as load
    from captrain.api.data import Samples as Samples
    from captrain.api.data import read as read
    from captrain.api.data_check import Check as Check
    from captrain.api.data_check import check as check
    from captrain.api.features import encode as encode
    from captrain.api.runs import History as History
    from captrain.api.runs import Run as Run
    from captrain.api.scoring import compare as compare
    from captrain.api.scoring import evaluate as evaluate
    from captrain.api.scoring import score as score
    from captrain.api.settings import TrainSettings as TrainSettings
    from captrain.api.training import Callback as Callback
    from captrain.api.training import describe as describe
    from captrain.api.training import train as train
    from captrain.inference.captioner import Captioner as Captioner
    from captrain.manners import RuleState as RuleState
    from captrain.manners import share_machine as share_machine
    from captrain.models.families import Family as Family
    from captrain.models.families import register_family as register_family
    from captrain.records import Caption as Caption
    from captrain.records import Sample as Sample

_PLACES = {
    "Callback": "captrain.api.training",
    "Caption": "captrain.records",
    "Captioner": "captrain.inference.captioner",
    "Captions": "captrain.api.captioning",
    "Check": "captrain.api.data_check",
    "Family": "captrain.models.families",
    "History": "captrain.api.runs",
    "RuleState": "captrain.manners",
    "Run": "captrain.api.runs",
    "Sample": "captrain.records",
    "Samples": "captrain.api.data",
    "TrainSettings": "captrain.api.settings",
    "caption": "captrain.api.captioning",
    "check": "captrain.api.data_check",
    "compare": "captrain.api.scoring",
    "describe": "captrain.api.training",
    "encode": "captrain.api.features",
    "evaluate": "captrain.api.scoring",
    "load": "captrain.api.captioning",
    "read": "captrain.api.data",
    "register_family": "captrain.models.families",
    "score": "captrain.api.scoring",
    "share_machine": "captrain.manners",
    "train": "captrain.api.training",
}
"""Every public name, and the module that has it: imported when it is asked for, so that `import captrain` is quick."""

__all__ = [
    "Callback",
    "Caption",
    "Captioner",
    "Captions",
    "Check",
    "Family",
    "History",
    "RuleState",
    "Run",
    "Sample",
    "Samples",
    "TrainSettings",
    "__version__",
    "caption",
    "check",
    "compare",
    "describe",
    "encode",
    "errors",
    "evaluate",
    "load",
    "read",
    "register_family",
    "score",
    "share_machine",
    "train",
]


if not TYPE_CHECKING:  # they would take any name for a public one

    def __getattr__(name: str) -> object:
        """A public name, from the module that has it."""
        if name == "errors":
            return import_module("captrain.errors")
        if name not in _PLACES:
            raise AttributeError(f"module 'captrain' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_PLACES[name]), name)
        return found


def __dir__() -> list[str]:
    """The public names, and what modules have."""
    return sorted({*globals(), *__all__})
