"""Layers and sequences that several families share."""
