"""Exit codes, and one line on stderr whatever happens."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from captrain.cli import main
from captrain.cli.failures import explain
from captrain.cli.logs import quiet_libraries, set_up_logging
from captrain.errors import CaptrainError, DataError


def wrapped(error: Exception, cause: Exception) -> Exception:
    """An error that another one led to."""
    error.__cause__ = cause
    return error


OutOfMemory = type("OutOfMemoryError", (RuntimeError,), {})
FULL = OSError(errno.ENOSPC, "No space left on device", "runs/x/model.safetensors")

CASES = [
    (DataError("photos: no such folder"), 2, "photos: no such folder"),
    (CaptrainError("the loss is not finite at step 3"), 1, "the loss is not finite at step 3"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (FULL, 1, "the disk is full (writing runs/x/model.safetensors); free some space"),
    (wrapped(RuntimeError("writing failed"), FULL), 1, "the disk is full; free some space"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "the disk is full"),
    (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 1, "runs/x: Permission denied"),
    (OutOfMemory("CUDA out of memory"), 1, "out of memory; try a smaller --batch-size"),
    (
        ZeroDivisionError("division\nby zero"),
        1,
        "ZeroDivisionError: division by zero (captrain did not expect this; run again with -v",
    ),
]


@pytest.fixture
def failing(monkeypatch):
    """Makes `captrain report` fail."""

    def fail(error: BaseException) -> None:
        def raise_it(*_: object) -> None:
            raise error

        monkeypatch.setattr("captrain.api.runs.check_run", lambda run: None)
        monkeypatch.setattr("captrain.report.run.write_report", raise_it)

    return fail


@pytest.mark.parametrize(("error", "code", "expected"), CASES)
def test_one_line_and_the_exit_code(error: BaseException, code: int, expected: str, failing, capsys) -> None:
    failing(error)
    assert main(["report", "runs/x"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {expected}")
    assert output.err.count("\n") == 1


def test_verbose_shows_where_a_bug_arose(failing, capsys) -> None:
    failing(ZeroDivisionError("division by zero"))
    assert main(["report", "runs/x", "-v"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "run again" not in error


def test_verbose_shows_no_traceback_for_what_the_user_can_mend(failing, capsys) -> None:
    failing(DataError("photos: no such folder"))
    assert main(["report", "runs/x", "-v"]) == 2
    assert capsys.readouterr().err == "error: photos: no such folder\n"


def test_logs_go_to_stderr_as_short_lines(capsys) -> None:
    set_up_logging()
    logging.getLogger("captrain.training.run").info("3 images\x1b[2J")
    logging.getLogger("captrain").warning("1 rejected")
    logging.getLogger("captrain").debug("unseen")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "3 images\\x1b[2J\nwarning: 1 rejected\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m captrain config schema | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_libraries_are_quiet_unless_verbose(monkeypatch) -> None:
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    before = transformers_logging.get_verbosity()
    try:
        set_up_logging(verbose=True)
        quiet_libraries()
        assert transformers_logging.is_progress_bar_enabled()
        set_up_logging()
        quiet_libraries()
        assert not transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == logging.ERROR
        assert logging.getLogger("peft").level == logging.ERROR
    finally:
        logging.captureWarnings(False)
        transformers_logging.set_verbosity(before)


def test_a_library_in_rust_that_gives_up_is_one_line() -> None:
    """Such an error is no `Exception`; a tokenizer's pattern that takes too long ends so."""
    panic = type("PanicException", (BaseException,), {})
    line, code = explain(panic("retry-limit-in-match over\nsecond line"))
    assert code == 1 and "tokenizer.json" in line and "\n" not in line


def test_a_name_that_is_too_long_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / ("x" * 256)).stat()
    line, code = explain(caught.value)
    assert code == 2
    assert line.endswith("has a name that is too long for the disk; choose a shorter one")
