"""Scores, curves and pictures as one self-contained HTML file: `page` draws, `run` reads a run folder."""
