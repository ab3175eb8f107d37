"""Out of memory in the middle of a training: which settings to change, with the values they have now."""

from __future__ import annotations

import torch

from captrain.settings.schema import Settings

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
MOST_ADVICE = 3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch has a kind of its own for GPUs, and plain words elsewhere.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("size mismatch"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in SIGNS)


def what_to_change(settings: Settings, writing: bool) -> str:
    """Three settings that lower the memory of a step, or of `writing` captions in a validation, with their present values.

    What costs least comes first: half the batch and twice as many of them are the same step.
    """
    advice = [*_smaller_batch(settings), *(_of_writing(settings) if writing else _of_a_step(settings))]
    advice += [f"--image-size (now {settings.model.image_size})"]
    if settings.model.precision in ("auto", "fp32"):
        advice.append(f"--precision bf16 (now {settings.model.precision})")
    return "; ".join(advice[:MOST_ADVICE])


def _smaller_batch(settings: Settings) -> list[str]:
    """Where the batch can be cut."""
    size, accumulate = settings.training.batch_size, settings.training.accumulate
    if size == "auto" or size == 1:
        return []
    same = "" if size % 2 else ", the step stays the same"
    return [f"--batch-size {size // 2} --accumulate {accumulate * 2} (now {size} and {accumulate}{same})"]


def _of_a_step(settings: Settings) -> list[str]:
    """What a step keeps for the way back."""
    data = settings.data
    advice = [] if settings.model.checkpoint_activations else ["--checkpoint-activations (off now)"]
    if data.captions_per_image not in ("one", 1):
        advice.append(f"--captions-per-image one (now {data.captions_per_image})")
    return [*advice, f"--max-tokens (now {data.max_tokens})"]


def _of_writing(settings: Settings) -> list[str]:
    """Captions are written for twice the images of a step, each with all its beams."""
    beams = settings.generation.beams
    advice = [f"--beams 1 (now {beams})"] if beams > 1 else []
    return [*advice, f"--max-new-tokens (now {settings.generation.max_new_tokens})"]
