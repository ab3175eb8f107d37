"""Captioners at work: captions of pictures, written to files and scored."""
