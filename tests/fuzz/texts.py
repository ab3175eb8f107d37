"""Changes of texts: JSON and YAML by their values, tables by cells, anything by lines."""

from __future__ import annotations

import csv
import io
import json
from random import Random

import yaml

from fuzz.trees import STRINGS, as_json, changed, odd_value

YAML_WORDS = (
    "&a ", "*a", "<<: *a\n", "!!python/object/apply:os.system [id]", '!!int ""', "!!timestamp x", "!!binary é", "? [a]\n: b\n",
    "? {a: b}\n: c\n", "1:30:30", "1" + ":59" * 2000, "0o17", "---\n", "...\n", "%YAML 9.9\n",
    "- " * 300, "[" * 300, "{a: " * 100,
    "!!set {a}", "!!omap [a: b]", "|+\n", ">-\n", "\t", "=", "!!float .nan", "2026-13-45", "9" * 5000, "!!null x", "!", "@",
    "0x" + "f" * 5000, "0b" + "1" * 20_000,
)  # fmt: skip
JSON_WORDS = (
    "NaN", "-Infinity", "1e400", "9" * 5000, "-",
    '"\\ud800"', '"\\u0000"', "[" * 2000, '{"a":' * 500, "\ufeff", "//x\n", ",", ":", '"',
)  # fmt: skip
ENCODINGS = (
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "latin-1",
    "cp1252",
    "gb18030",
    "shift_jis",
    "utf-7",
)


def json_tree(content: bytes, rng: Random) -> bytes:
    """A JSON file with one value changed, a word put in, or a key given twice."""
    if rng.random() < 0.85:
        return as_json(changed(json.loads(content), rng), rng)
    return _with_word(content.decode(), rng, JSON_WORDS).encode("utf-8", "surrogatepass")


def json_line(content: bytes, rng: Random) -> bytes:
    """JSON lines with one line changed, or lines moved."""
    lines_ = content.splitlines(keepends=True)
    if not lines_ or rng.random() < 0.15:
        return lines(content, rng)
    at = rng.randrange(len(lines_))
    lines_[at] = json_tree(lines_[at], rng) + rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"", b"\n\n"))
    return b"".join(lines_)


def yaml_tree(content: bytes, rng: Random) -> bytes:
    """A YAML file with one value changed, or a word put in."""
    if rng.random() < 0.6:
        tree = changed(yaml.safe_load(content), rng)
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return _with_word(content.decode(), rng, YAML_WORDS).encode()


def cells(content: bytes, rng: Random) -> bytes:
    """A table with one cell changed, or lines moved, or in another encoding."""
    if rng.random() < 0.4:
        return lines(content, rng)
    text = content.decode()
    mark = "\t" if "\t" in text else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=mark))
    rows = changed(rows, rng)
    file = io.StringIO()
    csv.writer(file, delimiter=rng.choice((mark, mark, mark, ";", "|")), quoting=rng.choice((0, 1))).writerows(
        row if isinstance(row, list) else [row] for row in rows
    )
    return file.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8", *ENCODINGS)), "replace")


def lines(content: bytes, rng: Random) -> bytes:
    """Lines removed, repeated or moved, or a word put in, or another encoding."""
    kind = rng.randrange(6)
    if kind == 0:
        return content.decode().encode(rng.choice(ENCODINGS), "replace")
    if kind < 3:
        return _with_word(content.decode(), rng, STRINGS).encode("utf-8", "surrogatepass")
    found = content.splitlines(keepends=True) or [b""]
    at, to = rng.randrange(len(found)), rng.randrange(len(found) + 1)
    if kind == 3:
        found[to:to] = [found[at]] * rng.choice((1, 2, 100))
    elif kind == 4:
        del found[at]
    else:
        value = odd_value(rng)
        found.insert(to, str(value)[:70_000].encode("utf-8", "surrogatepass") + b"\n")
    return b"".join(found)


def _with_word(text: str, rng: Random, words: tuple[str, ...]) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(words) + text[at + rng.choice((0, 0, 1, 5)) :]
