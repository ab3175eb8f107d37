"""Rules of the house that no linter knows: how many parameters a signature has, and that a public name has one meaning."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import captrain

ROOT = Path(captrain.__file__).parent
MOST_PARAMETERS = 8
OUTSIDE = ("cli", "api")  # the command line and the public API: their parameters are the flags

MANY_PARAMETERS = {  # with the reason
    "inference/score.py:score": "is captrain.score, whose parameters are the flags of `captrain score`",
    "models/layers/attention.py:_interface": "the signature that transformers calls attention functions with",
    "models/families/prefix/mapper.py:PrefixConfig.__init__": "transformers makes a configuration from named values",
}
CONTRACTS = {  # of readers and of samples: each module of a kind has these
    "data/readers": {"recognises", "read", "tables", "first_row"},
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    """The modules that the rules are about: their path below the package, and what they are made of."""
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place.split("/")[0] not in OUTSIDE:
            yield place, ast.parse(path.read_text(encoding="utf-8"))


def signatures(nodes: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, int]]:
    """Each function and method, and how many parameters it has."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield from signatures(node.body, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            rest = sum(argument is not None for argument in (given.vararg, given.kwarg))
            yield f"{inside}{node.name}", len([name for name in names if name not in ("self", "cls")]) + rest
            yield from signatures(node.body, f"{inside}{node.name}.")


def test_signatures_have_eight_parameters_at_most() -> None:
    found = {
        f"{place}:{name}" for place, tree in trees() for name, count in signatures(tree.body) if count > MOST_PARAMETERS
    }
    assert found - MANY_PARAMETERS.keys() == set(), "put related arguments into a small frozen dataclass"
    assert MANY_PARAMETERS.keys() - found == set(), "these have fewer now: take them off the list"


def places_of(kind: type[ast.ClassDef] | type[ast.FunctionDef]) -> dict[str, list[str]]:
    """Where each public name of a kind is defined at the top of a module; names of a contract of modules are left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for place, tree in trees():
        usual = CONTRACTS.get(place.rpartition("/")[0], set())
        for node in tree.body:
            if isinstance(node, kind) and not node.name.startswith("_") and node.name not in usual:
                found[node.name].append(place)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_class_has_a_name_of_its_own() -> None:
    found = places_of(ast.ClassDef)
    assert not found, "one name, one meaning: rename all but one"


def test_a_function_has_a_name_of_its_own() -> None:
    found = places_of(ast.FunctionDef)
    assert not found, "one name, one meaning: rename all but one"
