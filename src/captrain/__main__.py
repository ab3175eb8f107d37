"""`python -m captrain` is the command `captrain`."""

from __future__ import annotations

import sys

from captrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
