"""Recipes of LAVIS and of the original BLIP, as recipes of captrain."""
