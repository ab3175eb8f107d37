"""Captioners on disk and on the hub: loading, saving, archives, cards."""
