"""What captrain relies on inside of transformers' Trainer, compared with the installed version; a failure names what moved."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
import transformers
from transformers import Trainer

import captrain
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.loop.trainer_adapter import ATTRIBUTES, CALLED, OVERRIDDEN, TrainerAdapter

MOVED = f"transformers {transformers.__version__} moved it: look at captrain/training/loop/trainer_adapter.py, where"
SOURCES = Path(captrain.__file__).parent
ADAPTER = SOURCES / "training" / "loop" / "trainer_adapter.py"


def parameters(name: str) -> list[inspect.Parameter]:
    """Those of a method of Trainer, without self."""
    method = getattr(Trainer, name, None)
    assert callable(method), f"Trainer has no {name} any more. {MOVED} it is overridden or called"
    return list(inspect.signature(method).parameters.values())[1:]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_has_the_parameters_that_the_override_uses(name: str) -> None:
    found = {parameter.name for parameter in parameters(name)}
    missing = set(OVERRIDDEN[name]) - found
    assert not missing, f"Trainer.{name} takes {sorted(found)}, not {sorted(missing)}. {MOVED} {name} is overridden"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_override_can_be_called_as_trainer_calls_the_original(name: str) -> None:
    """Every parameter of the original is one of the override, or goes through its `*args, **kwargs`."""
    own = inspect.signature(getattr(CaptionTrainer, name)).parameters.values()
    takes_rest = {parameter.kind for parameter in own} >= {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    new = [parameter.name for parameter in parameters(name) if parameter.name not in {mine.name for mine in own}]
    assert takes_rest or not new, f"Trainer.{name} takes {new} too. {MOVED} {name} is overridden without it"


@pytest.mark.parametrize("name", CALLED)
def test_a_private_method_takes_what_captrain_gives(name: str) -> None:
    found = [parameter.name for parameter in parameters(name)]
    assert tuple(found[: len(CALLED[name])]) == CALLED[name], f"Trainer.{name} takes {found}. {MOVED} it is called"
    more = [parameter for parameter in parameters(name)[len(CALLED[name]) :] if parameter.default is parameter.empty]
    assert not more, f"Trainer.{name} needs {more} too. {MOVED} it is called"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_set_by_trainer(name: str) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(Trainer)))
    stored = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert name in stored, f"Trainer sets no attribute {name} any more. {MOVED} it is read"


def test_the_lists_are_whole() -> None:
    """Whatever of Trainer is overridden is listed, and nothing else is."""
    own = {name for kind in (TrainerAdapter, CaptionTrainer) for name in vars(kind) if callable(vars(kind)[name])}
    overridden = {name for name in own if name != "__init__" and hasattr(Trainer, name) and not name.startswith("__")}
    assert overridden == set(OVERRIDDEN)


def test_private_names_are_in_the_adapter_alone() -> None:
    """No other file of the training reads or overrides a private name of Trainer."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Trainer)))
    private = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | set(vars(Trainer))
    private = {name for name in private if name.startswith("_") and not name.startswith("__")}
    found = []
    for path in sorted((SOURCES / "training").rglob("*.py")):
        if path == ADAPTER:
            continue
        own = _defined(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in private - own:
                found.append(f"{path.relative_to(SOURCES)}:{node.lineno} reads {node.attr}")
    overrides = [
        name for name in vars(CaptionTrainer) if name in vars(Trainer) and name.startswith("_") and name[1] != "_"
    ]
    assert not found and not overrides, f"private names of Trainer belong into {ADAPTER.name}: {found} {overrides}"


def _defined(path: Path) -> set[str]:
    """Names that a file gives to functions and attributes of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    attributes = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return functions | attributes
