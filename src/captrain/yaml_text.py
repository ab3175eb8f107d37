"""The one reader and writer of YAML: plain values of YAML 1.2's core schema, in bounded time and memory.

PyYAML follows YAML 1.1, where `1:30` is a number of the base 60 (so that 400 KB of `1:1:1...` take seconds), `010` is 8, `1e-4`
is a text and `no` is false. Here numbers and `true` and `false` are those of JSON, and what is written is read again as it was.
Merge keys (`<<`) still work, as YAML files of people have them. (YAML 1.2.2, 10.3.)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from captrain.disk.reading import open_file
from captrain.limits import LARGEST_YAML

DEEPEST = 100  # lists and objects within each other
MOST_VALUES = 1_000_000  # with those that aliases stand for; real files have a few hundred

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = (  # a value's kind, how it is written, and what it may begin with
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
)


def load_yaml(text: str) -> Any:
    """What a YAML text holds, as plain dictionaries, lists and values.

    Raises `ValueError`, one line, for what is over `LARGEST_YAML` characters or no YAML, gives a key twice, asks for objects,
    nests too deeply, or unfolds to too much.

    >>> load_yaml("lr: 1e-4\\nratio: 16:9\\nlayers: 012\\nname: no")
    {'lr': 0.0001, 'ratio': '16:9', 'layers': 12, 'name': 'no'}
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"it has {len(text)} characters, over {LARGEST_YAML}")
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values_in(node, {}) > MOST_VALUES:
                raise ValueError(f"it unfolds to over {MOST_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except Exception as error:  # PyYAML lets through whatever a value's constructor raises: IndexError for `!!int ""`
        raise ValueError(" ".join(str(error).split())[:500] or type(error).__name__) from None


def read_yaml_file(path: Path) -> Any:
    """What a YAML file holds, as `load_yaml` does; `OSError` for one that can't be read."""
    with open_file(path) as file:
        return load_yaml(file.read(LARGEST_YAML + 1).decode("utf-8"))


def dump_yaml(value: Any, **options: Any) -> str:
    """Plain values as YAML, in their order; `options` are those of `yaml.dump`.

    >>> dump_yaml({"lr": 0.0001, "name": "1e5"})
    "lr: 0.0001\\nname: '1e5'\\n"
    """
    return str(yaml.dump(value, Dumper=_Dumper, **{"sort_keys": False, "allow_unicode": True, **options}))


def inline(value: Any) -> str:
    """A value as YAML on one line.

    >>> inline(["vision"]), inline(0.00001), inline("a: b")
    ('[vision]', '1.0e-05', "'a: b'")
    """
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = dump_yaml(value, default_flow_style=True, default_style=style, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def _check_depth(text: str) -> None:
    """Raise `ValueError` for a text that nests too deeply: libyaml would end the process."""
    depth = 0
    for event in yaml.parse(text, _PARSER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"it nests over {DEEPEST} deep{event.start_mark}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _values_in(node: Any, known: dict[int, int]) -> int:
    """How many values a node has, aliases unfolded. Raises `ValueError` for one that contains itself."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError(f"it holds itself{node.start_mark}")
        return known[id(node)]
    known[id(node)] = -1
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    inner = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
    known[id(node)] = 1 + sum(_values_in(part, known) for part in inner)
    return known[id(node)]


class _Loader(_PARSER):
    """Safe YAML that refuses a key given twice, where PyYAML would drop the first in silence."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, after a look at the keys."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, count in Counter(key.value for key in keys).items():
            if count > 1:
                raise ValueError(f"'{key}' is given {count} times{node.start_mark}")
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """A whole number as YAML 1.2 writes it; Python reads no more than 4,300 digits."""
        text = str(self.construct_scalar(node))
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        return int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """A number as YAML 1.2 writes it: `.inf`, `.nan` and what JSON has."""
        return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Writes texts in quotes that would be read as something else, here or by YAML 1.1."""


for _kind, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_float)
