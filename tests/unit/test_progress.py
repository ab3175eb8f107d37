"""Progress on a terminal and elsewhere: one live view, whose bars come and go, and log lines above it."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.text import Text

from captrain import progress
from captrain.cli.logs import set_up_logging
from captrain.progress import live_view, track


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let stderr be a terminal of 80 columns that captrain logs to. Not a fixture: pytest sets stderr anew after those."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "30")
    logger = logging.getLogger("captrain")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up_logging()
    return terminal


def test_log_lines_and_bars_share_one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with live_view(Text("the head")), track("train", 10, timed=False) as advance:
        advance(4)
        logging.getLogger("captrain").info("a line of the log")
        with track("write captions", 3) as further:
            further(3)
            [bars] = progress._shown
            assert [task.description for task in bars.tasks] == ["train", "write captions"]
        assert [(task.description, task.completed) for task in bars.tasks] == [("train", 4)]
    shown = terminal.getvalue()
    assert "the head" in shown
    assert shown.index("a line of the log") < shown.rindex("the head"), "the log stands above the view"
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown, "the cursor is back"
    assert not progress._shown


def test_a_view_ends_with_its_work_however_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with pytest.raises(KeyError), live_view(Text("the head")), track("train", 10):
        raise KeyError
    assert not progress._shown
    assert sys.stderr is terminal, "stderr is given back"
    assert "\x1b[?25h" in terminal.getvalue()


def test_a_bar_alone_stays_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with track("encode", 2) as advance:
        advance(2)
    assert "2/2" in terminal.getvalue()
    assert not progress._shown


def test_nothing_is_drawn_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    set_up_logging(quiet=True)
    with live_view(Text("the head")), track("train", 10) as advance:
        advance(10)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("kind", ["file", "dumb"])
def test_elsewhere_there_are_plain_lines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    with live_view(Text("the head")), track("train", 10) as advance:
        advance(10)
    assert terminal.getvalue().startswith("train: 10/10, ")
    assert "\x1b" not in terminal.getvalue()


def test_what_a_program_prints_is_not_drawn_into_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout goes to a file here: results that are printed meanwhile must arrive there."""
    open_terminal(monkeypatch)
    with live_view(Text("the head")):
        print("a result")
    assert capsys.readouterr().out == "a result\n"
