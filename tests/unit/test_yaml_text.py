"""One loader of YAML: values of version 1.2, and nothing that takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.yaml_text import dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5E3", 1500.0), (".5", 0.5), ("-.inf", float("-inf")), ("0x1F", 31), ("0o17", 15), ("017", 17),
        ("1:30", "1:30"), ("1_000", "1_000"), ("no", "no"), ("on", "on"), ("True", True), ("~", None), ("", None),
        ("2001-01-01", "2001-01-01"), ("{<<: {a: 1}, b: 2}", {"a": 1, "b": 2}),
    ],
)  # fmt: skip
def test_values_are_those_of_version_1_2(text: str, value: Any) -> None:
    assert load_yaml(text) == value


ATTACKS = {
    "base 60": "a: " + "1:" * 200_000 + "1",
    "flow": "[" + "1," * 500_000 + "]",
    "deep": "[" * 500_000,
    "deep blocks": "- " * 400_000,
    "aliases": "a: &a [x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "merges": "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(60)),
    "itself": "&a [*a]",
    "digits": "1" * 100_000,
    "long": "#" * 2_000_000,
    "object": "!!python/object/apply:os.system [ls]",
    "twice": "{a: 1, a: 2}",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_takes_long_is_refused_or_read_soon(name: str) -> None:
    begun = time.monotonic()
    try:
        load_yaml(ATTACKS[name])
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert name in ("base 60", "flow")
    assert time.monotonic() - begun < 30  # a second or three; with YAML 1.1 in Python alone, 13 and 22


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcyn01e:._", max_size=6), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(value=PLAIN | st.text("0123456789:._-+eEoxaIinfyoNtrue ~<=", max_size=8))
def test_what_is_written_is_read_again_here_and_elsewhere(value: Any) -> None:
    written = dump_yaml({"a": value})
    assert load_yaml(written) == {"a": value}
    if isinstance(value, str) and value != "=":  # which PyYAML itself can't read
        assert yaml.safe_load(written) == {"a": value}
