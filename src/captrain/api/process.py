"""A call from a program: messages as on the command line, and the process is left unchanged."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from captrain.messages import spoken


@contextmanager
def calling(*, trust_remote_code: bool = False, safetensors_only: bool = False) -> Iterator[Callable[[], None]]:
    """What every call that loads models does: messages, and what of models' files is trusted, for its time.

    Names are checked first, and loading nothing. Then call what this gives: the libraries, which it imports, are quiet from
    there on.
    """
    with (
        spoken(),
        trusting(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only),
        ExitStack() as stack,
    ):
        yield lambda: _quieten(stack)


def _quieten(stack: ExitStack) -> None:
    with warnings.catch_warnings():  # in a notebook tqdm, which libraries import, would ask for widgets
        warnings.simplefilter("ignore")
        from captrain.models.contexts import quietly

    stack.enter_context(quietly())


@contextmanager
def trusting(*, trust_remote_code: bool, safetensors_only: bool) -> Iterator[None]:
    """In this context, use only the stated kinds of model files."""
    from captrain.models.checkpoint.located import set_trust

    with _same_environment():
        set_trust(remote_code=trust_remote_code, safetensors_only=safetensors_only)
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Training in this context changes no state: random generators, torch's switches, accelerate's state, environment.

    The training itself restores signal handlers. It begins as in a new process: an `Accelerator` of the program's own
    is set aside meanwhile.
    """
    from captrain.models.contexts import untouched_randomness

    with ExitStack() as stack:
        stack.enter_context(_same_environment())
        stack.enter_context(untouched_randomness())
        stack.enter_context(_same_torch())
        stack.enter_context(_own_accelerate())
        yield


@contextmanager
def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@contextmanager
def _same_torch() -> Iterator[None]:
    import torch

    threads, kind, gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    precise, strict = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    owners: dict[str, Any] = {"benchmark": torch.backends.cudnn, "deterministic": torch.backends.cudnn}
    owners["allow_tf32"] = torch.backends.cuda.matmul
    flags = {name: getattr(owner, name) for name, owner in owners.items()}
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(kind)
        torch.set_grad_enabled(gradients)
        if torch.get_float32_matmul_precision() != precise:
            torch.set_float32_matmul_precision(precise)
        if torch.are_deterministic_algorithms_enabled() != strict:
            torch.use_deterministic_algorithms(strict)
        for name, value in flags.items():
            if getattr(owners[name], name) != value:
                setattr(owners[name], name, value)


@contextmanager
def _own_accelerate() -> Iterator[None]:
    """accelerate's state belongs to the whole process: it is empty in this context and restored afterwards."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    shared: list[dict[str, Any]] = [owner._shared_state for owner in (AcceleratorState, GradientState, PartialState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        for state, content in zip(shared, before, strict=True):
            state.clear()
            state.update(content)
