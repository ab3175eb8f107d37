"""Optimizers, learning-rate schedules, gradients and averaged weights."""
