"""Everything in captrain that reads files of strangers, by groups."""

from __future__ import annotations

from fuzz.inputs import Parser
from fuzz.parsers import data, models, pictures, runs, scoring, settings, stores

GROUPS: dict[str, tuple[Parser, ...]] = {
    module.__name__.rpartition(".")[2]: module.PARSERS
    for module in (pictures, data, settings, scoring, stores, models, runs)
}

PARSERS: tuple[Parser, ...] = tuple(parser for group in GROUPS.values() for parser in group)
