"""`python -m captrain` is the command `captrain`."""

from __future__ import annotations

from captrain.cli import command

if __name__ == "__main__":
    command()
