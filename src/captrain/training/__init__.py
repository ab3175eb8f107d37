"""Training: `run` tells the whole run."""
