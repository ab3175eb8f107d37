"""Training; `run` holds the whole run from start to end."""
