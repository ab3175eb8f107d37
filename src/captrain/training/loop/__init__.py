"""The steps of a training and what happens around them: validation, stopping, the live view."""
