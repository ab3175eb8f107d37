"""On what a collection is encoded or captioned: this machine, or a Ray cluster. The same code makes each part on both."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import cast

from captrain.errors import SettingsError, nearest
from captrain.features.engines.base import About, Engine, Model, Opening

ENGINES = {
    "local": "captrain.features.engines.local:LocalEngine",
    "ray": "captrain.features.engines.ray_engine:RayEngine",
}


def make_engine(
    name: str, opening: Opening[Model, About], devices: Sequence[str], address: str | None
) -> Engine[Model, About]:
    """The engine of a name; what it needs is imported now.

    Raises `SettingsError` for another name, and for an `address` where there is no cluster to be named.
    """
    if name not in ENGINES:
        raise SettingsError(f"--engine: found {name!r}, expected one of {', '.join(ENGINES)}.{nearest(name, ENGINES)}")
    if name == "local" and address is not None:
        raise SettingsError(f"--address {address}: names a Ray cluster, and goes with --engine ray")
    module, _, kind = ENGINES[name].partition(":")
    engine = getattr(import_module(module), kind)(opening, devices, address)
    return cast("Engine[Model, About]", engine)
