"""Scenes that captrain draws, describes and checks itself."""
