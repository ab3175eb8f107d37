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
    from captrain.api.data_sets import DataFormat as DataFormat
    from captrain.api.data_sets import Download as Download
    from captrain.api.data_sets import compile as compile
    from captrain.api.data_sets import convert as convert
    from captrain.api.data_sets import formats as formats
    from captrain.api.data_sets import get as get
    from captrain.api.data_sets import preview as preview
    from captrain.api.demo import run_demo as run_demo
    from captrain.api.doctor import CheckUp as CheckUp
    from captrain.api.doctor import doctor as doctor
    from captrain.api.estimating import EncodingEstimate as EncodingEstimate
    from captrain.api.estimating import estimate as estimate
    from captrain.api.exporting import export as export
    from captrain.api.exporting import push as push
    from captrain.api.exporting import zoo as zoo
    from captrain.api.features import encode as encode
    from captrain.api.recipes import ImportedRecipe as ImportedRecipe
    from captrain.api.recipes import import_recipe as import_recipe
    from captrain.api.recipes import recipe_schema as recipe_schema
    from captrain.api.recipes import show_settings as show_settings
    from captrain.api.runs import History as History
    from captrain.api.runs import Run as Run
    from captrain.api.scoring import compare as compare
    from captrain.api.scoring import evaluate as evaluate
    from captrain.api.scoring import score as score
    from captrain.api.settings import TrainSettings as TrainSettings
    from captrain.api.stores import Store as Store
    from captrain.api.stores import convert_store as convert_store
    from captrain.api.stores import merge_stores as merge_stores
    from captrain.api.training import Callback as Callback
    from captrain.api.training import describe as describe
    from captrain.api.training import train as train
    from captrain.inference.captioner import Captioner as Captioner
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
    "CheckUp": "captrain.api.doctor",
    "DataFormat": "captrain.api.data_sets",
    "Download": "captrain.api.data_sets",
    "EncodingEstimate": "captrain.api.estimating",
    "Family": "captrain.models.families",
    "History": "captrain.api.runs",
    "ImportedRecipe": "captrain.api.recipes",
    "Run": "captrain.api.runs",
    "Sample": "captrain.records",
    "Samples": "captrain.api.data",
    "Store": "captrain.api.stores",
    "TrainSettings": "captrain.api.settings",
    "caption": "captrain.api.captioning",
    "check": "captrain.api.data_check",
    "compare": "captrain.api.scoring",
    "compile": "captrain.api.data_sets",
    "convert": "captrain.api.data_sets",
    "convert_store": "captrain.api.stores",
    "describe": "captrain.api.training",
    "doctor": "captrain.api.doctor",
    "encode": "captrain.api.features",
    "estimate": "captrain.api.estimating",
    "evaluate": "captrain.api.scoring",
    "export": "captrain.api.exporting",
    "formats": "captrain.api.data_sets",
    "get": "captrain.api.data_sets",
    "import_recipe": "captrain.api.recipes",
    "load": "captrain.api.captioning",
    "merge_stores": "captrain.api.stores",
    "preview": "captrain.api.data_sets",
    "push": "captrain.api.exporting",
    "read": "captrain.api.data",
    "recipe_schema": "captrain.api.recipes",
    "register_family": "captrain.models.families",
    "run_demo": "captrain.api.demo",
    "score": "captrain.api.scoring",
    "show_settings": "captrain.api.recipes",
    "train": "captrain.api.training",
    "zoo": "captrain.api.exporting",
}
"""Every public name, and the module that has it: imported when it is asked for, so that `import captrain` is quick."""

__all__ = [
    "Callback",
    "Caption",
    "Captioner",
    "Captions",
    "Check",
    "CheckUp",
    "DataFormat",
    "Download",
    "EncodingEstimate",
    "Family",
    "History",
    "ImportedRecipe",
    "Run",
    "Sample",
    "Samples",
    "Store",
    "TrainSettings",
    "__version__",
    "caption",
    "check",
    "compare",
    "compile",
    "convert",
    "convert_store",
    "describe",
    "doctor",
    "encode",
    "errors",
    "estimate",
    "evaluate",
    "export",
    "formats",
    "get",
    "import_recipe",
    "load",
    "merge_stores",
    "preview",
    "push",
    "read",
    "recipe_schema",
    "register_family",
    "run_demo",
    "score",
    "show_settings",
    "train",
    "zoo",
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
