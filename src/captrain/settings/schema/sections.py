"""The sections of the settings side by side, before they are held against each other."""

from __future__ import annotations

from captrain.settings.schema.base import Section
from captrain.settings.schema.data import DataSettings
from captrain.settings.schema.model import GenerationSettings, ModelSettings
from captrain.settings.schema.training import DistributedSettings, EvaluationSettings, TrainingSettings


class Sections(Section):
    """All sections; each is checked by itself."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    distributed: DistributedSettings = DistributedSettings()
