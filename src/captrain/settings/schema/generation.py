"""Settings of how captions are written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from captrain.settings.schema.base import Section


class GenerationSettings(Section):
    """How captions are written. Saved with the model."""

    beams: Annotated[int, Field(ge=1, le=64)] = 3
    """Beams of the beam search; 1 is greedy search."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 30
    """Longest caption in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Shortest caption in tokens."""
    length_penalty: float = 1.0
    """Above 1 favours longer captions, below 1 shorter ones: a beam's score is divided by its length to this power."""
    sample: bool = False
    """Sample tokens at random (nucleus sampling) instead of taking the best."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """With `sample`: draw from the smallest set of tokens that have this much probability together."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """With `sample`: below 1 prefers likely tokens more, above 1 less."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """Above 1 makes words that were written already less likely."""
    mirror: bool = False
    """Encode the mirrored picture too and average both: better captions, twice the encoding."""
