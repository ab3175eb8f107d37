"""Checking a data set before training on it; `check.check_data` does all of it."""
