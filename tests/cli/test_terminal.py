"""Colors and symbols on terminals, and none in files and pipes."""

import re

import click
import pytest
from artifacts import BIAS, write_dense_bundle

from edgeattn.cli import output, terminal

GREEN, RED, GRAY, BOLD, RESET = "\x1b[32m", "\x1b[31m", "\x1b[90m", "\x1b[1m", "\x1b[0m"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def become_terminals(monkeypatch):
    """Within a test, after capturing has replaced the streams."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


def test_table_on_a_terminal(capsys, monkeypatch):
    become_terminals(monkeypatch)
    rows = [["pass", "pass", "not run"], ["fail -> pass", "fail", "pass"]]
    output.echo(output.table(["verdict", "name", "task"], rows))
    assert capsys.readouterr().out.splitlines() == [
        "verdict           name  task",
        # Only columns of verdicts have colors and symbols: a model may be called pass.
        f"{GREEN}✓ pass{RESET}            pass  {GRAY}- not run{RESET}",
        f"{GREEN}✗ fail -> ✓ pass{RESET}  fail  {GREEN}✓ pass{RESET}",
    ]


def test_lines_on_a_terminal(monkeypatch):
    become_terminals(monkeypatch)
    assert terminal.styled_line("Verdict: pass") == f"Verdict: {BOLD}{GREEN}✓ pass{RESET}{RESET}"
    line = terminal.styled_line("Verdict: fail, 2 regressions")
    assert line == f"Verdict: {BOLD}{RED}✗ fail{RESET}{RESET}, 2 regressions"
    error = terminal.styled_line("Error: a: b\x1b[0m", err=True)
    assert error == f"{RED}{BOLD}Error{RESET}: a: b\\x1b[0m"
    assert terminal.styled_line("dense: note: x") == "dense: note: x"


@pytest.mark.parametrize(
    ("variables", "is_terminal", "color"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_there_is_color(capsys, monkeypatch, variables, is_terminal, color):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    output.echo(terminal.styled_line("note: x"))
    output.echo(output.table(["verdict"], [["pass"]]))
    out = capsys.readouterr().out
    assert ("\x1b[" in out) == color
    symbols = is_terminal and variables.get("TERM") != "dumb"
    assert ("✓" in out) == symbols


@pytest.mark.parametrize(("encoding", "symbols"), [("utf-8", True), ("ascii", False), ("x", False)])
def test_symbols_need_an_encoding_that_has_them(monkeypatch, encoding, symbols):
    class Stream:
        def isatty(self):
            return True

    Stream.encoding = encoding
    monkeypatch.setattr("sys.stdout", Stream())
    assert terminal.verdict_cell("pass") == ("✓ pass" if symbols else "pass")


def test_closed_streams_have_no_color():
    assert not terminal.has_color(None)


@pytest.mark.parametrize("command", ["validate", "inspect", "--help", "nonsense"])
def test_color_changes_nothing_else(edgeattn, tmp_path, monkeypatch, command):
    bundle = write_dense_bundle(tmp_path / "b.edge", bias=BIAS + 1)
    arguments = [command] if command in ("--help", "nonsense") else [command, bundle.path]
    plain = edgeattn(*arguments)
    assert "\x1b" not in plain.out + plain.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    colored = edgeattn(*arguments)
    assert colored.code == plain.code
    assert (click.unstyle(colored.out), click.unstyle(colored.err)) == (plain.out, plain.err)
    if command != "inspect":  # which has no verdicts
        assert re.search(r"\x1b\[(1|31)m", colored.out + colored.err)
