"""Prefix captioners (ClipCap, Mokady et al. 2021): an image becomes a few vectors that a language model reads before words."""
