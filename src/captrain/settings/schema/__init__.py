"""All settings, in one place: the schema of recipes, flags and Python calls.

Each section is a frozen pydantic model; the docstring under a field is its help text everywhere. Leaf names are unique over
all sections, because flags use them without the section (`--rank 16`). `None` means "the model family's own default";
`captrain config show` prints what that comes to.
"""

from __future__ import annotations

from pydantic import model_validator

from captrain.settings.schema.base import Section
from captrain.settings.schema.conflicts import conflicts
from captrain.settings.schema.data import DataSettings, ReadingSettings, Source
from captrain.settings.schema.model import GenerationSettings, ModelSettings
from captrain.settings.schema.training import (
    ComputingSettings,
    DistributedSettings,
    EvaluationSettings,
    TrainingSettings,
)

__all__ = [
    "ComputingSettings",
    "DataSettings",
    "DistributedSettings",
    "EvaluationSettings",
    "GenerationSettings",
    "ModelSettings",
    "ReadingSettings",
    "Section",
    "Settings",
    "Source",
    "TrainingSettings",
]


class Settings(Section):
    """All sections together: what a recipe holds and what a run saves."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    distributed: DistributedSettings = DistributedSettings()

    @model_validator(mode="after")
    def _agrees(self) -> Settings:
        """Refuse what contradicts itself, all of it at once."""
        if found := conflicts(self):
            many = f"{len(found)} settings contradict others: " if len(found) > 1 else ""
            raise ValueError(many + "; ".join(found))
        return self
