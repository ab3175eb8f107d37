"""Changes of values: what JSON, YAML and tables hold, changed at one place and still well formed."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

SURROGATE = "\ud800"

STRINGS = (
    "", " ", "\n", "\0", "a", "nan", "NaN", "null", "None", "true", "no", "0", "-1", "1e999", "1_000", "0x10", "12:30:45",
    "2026-12-01", "..", "../../etc/passwd", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\x", ".", "a/", "~", "x" * 300,
    "x" * 70_000, "a\tb", 'a"b', "a,b", "é", "e\u0301", "\u202e", "\ufeff", "😀", "\x1b[2J", "\x85", "\u2028", SURROGATE,
    "<script>alert(1)</script>", "</script><script>", "<!--", "{{ 7 * 7 }}", "http://example.org/a.jpg", "http://[x",
    "file:///etc/passwd", "s3://x/y", "[1, 2]", '["a", "b"]', '{"a": 1}', "[" * 500, "a dog.jpg", "train", "test", "-", "=1+1",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1,
    10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
PLAIN = (None, True, False, [], {}, [[]], [None], {"": None}, [0], ["a"], [""], {"a": {"b": []}})


def odd_value(rng: Random) -> Any:
    """A value that readers may not expect."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(STRINGS)
    if kind < 7:
        return rng.choice(NUMBERS)
    if kind < 9:
        return copy.deepcopy(rng.choice(PLAIN))
    value: Any = rng.choice(STRINGS[:10])
    for _ in range(rng.choice((2, 10, 100))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def changed(tree: Any, rng: Random) -> Any:
    """A copy of a tree with one place changed: another value, removed, repeated, moved, or put into a list."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return odd_value(rng)
    owner, key = rng.choice(places)
    change = rng.choice((_replace, _replace, _replace, _remove, _repeat, _wrap, _move, _rename, _add))
    change(owner, key, places, rng)
    return tree


def as_json(tree: Any, rng: Random) -> bytes:
    """A tree as JSON, with what JSON in files may have besides: lone surrogates, NaN, numbers of any length."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass" if rng.random() < 0.1 else "replace")


def _places(tree: Any, depth: int = 0) -> Any:
    """All places in a tree: the list or object, and the index or key."""
    pairs = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in pairs[:2000]:
        yield tree, key
        if depth < 20:
            yield from _places(value, depth + 1)


def _replace(owner: Any, key: Any, places: Any, rng: Random) -> None:
    value = owner[key]
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value) + 1)
        owner[key] = value[:at] + rng.choice(STRINGS) + value[at + rng.randrange(3) :]
    elif isinstance(value, int | float) and rng.random() < 0.6:
        owner[key] = rng.choice(NUMBERS) if rng.random() < 0.7 else value + rng.choice((-1, 1, 0.5))
    else:
        owner[key] = odd_value(rng)


def _remove(owner: Any, key: Any, places: Any, rng: Random) -> None:
    del owner[key]


def _repeat(owner: Any, key: Any, places: Any, rng: Random) -> None:
    if isinstance(owner, list):
        owner.extend(copy.deepcopy(owner[key]) for _ in range(rng.choice((1, 2, 50))))
    else:
        owner[f"{key}{rng.choice(('2', ' ', '_'))}"] = copy.deepcopy(owner[key])


def _wrap(owner: Any, key: Any, places: Any, rng: Random) -> None:
    owner[key] = rng.choice(([owner[key]], {"a": owner[key]}, str(owner[key])))


def _move(owner: Any, key: Any, places: Any, rng: Random) -> None:
    other, there = rng.choice(places)
    owner[key] = copy.deepcopy(other[there])


def _rename(owner: Any, key: Any, places: Any, rng: Random) -> None:
    if isinstance(owner, dict):
        names = [name for _, name in places if isinstance(name, str)] + list(STRINGS[:30])
        value = owner.pop(key)
        owner[rng.choice(names)] = value
    else:
        owner.reverse()


def _add(owner: Any, key: Any, places: Any, rng: Random) -> None:
    if isinstance(owner, dict):
        names = [name for _, name in places if isinstance(name, str)] + list(STRINGS)
        owner[rng.choice(names)] = odd_value(rng)
    else:
        owner.insert(key, odd_value(rng))
