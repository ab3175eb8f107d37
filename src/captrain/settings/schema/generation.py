"""Settings of how captions are written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from captrain.settings.schema.base import Section


class GenerationSettings(Section):
    """How captions are written. Saved with the model."""

    beams: Annotated[int, Field(ge=1, le=64)] = 3
    """Beams of the search; 1 is greedy."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 30
    """Longest caption in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Shortest caption in tokens."""
    length_penalty: float = 1.0
    """Exponent of the length that a beam's score is divided by; more than 1 favours longer captions."""
    sample: bool = False
    """Draw tokens at random (nucleus sampling) instead of taking the best."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus: the smallest set of tokens with this much probability is drawn from."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Less than 1 sharpens what is drawn from, more flattens it."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """Divides the score of tokens that were written already; 1 does nothing."""
    mirror: bool = False
    """Let the encoder see a picture mirrored as well, and caption the mean, turned back: better captions, twice the encoding."""
