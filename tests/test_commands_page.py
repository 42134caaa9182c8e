"""``docs/commands.md`` is the output of ``--help`` of all commands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeattn.cli.commands import COMMANDS
from edgeattn.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def generated_page() -> str:
    """The page for the current commands."""
    parts = [
        "# Commands",
        "",
        "Generated from `edgeattn --help` by `python tests/test_commands_page.py`.",
    ]
    for name in ["", *sorted(COMMANDS)]:
        command = command_of(name) if name else cli
        title = f"edgeattn {name}".strip()
        arguments = [name, "--help"] if name else ["--help"]
        help_text = (
            CliRunner().invoke(cli, arguments, prog_name="edgeattn", terminal_width=100).output
        )
        assert command.help
        parts += ["", f"## {title}", "", "```", help_text.rstrip(), "```"]
    return "\n".join(parts) + "\n"


def test_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == generated_page()


def test_every_command_is_listed_with_the_first_sentence_of_its_help() -> None:
    """The list is a copy, so that showing it imports no command."""
    modules = {
        path.stem
        for path in (PAGE.parents[1] / "edgeattn" / "cli").glob("*.py")
        if "@click.command(" in path.read_text("utf-8")
    }
    assert modules == set(COMMANDS)
    for name, summary in COMMANDS.items():
        assert " ".join((command_of(name).help or "").split("\n\n")[0].split()) == summary


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_help(name: str) -> None:
    for option in command_of(name).params:
        if isinstance(option, click.Option):
            assert option.help or option.name in ("threads",), option.name


if __name__ == "__main__":
    PAGE.write_text(generated_page(), "utf-8")
