"""The training steps and what happens around them: validation, stopping, the live view."""
