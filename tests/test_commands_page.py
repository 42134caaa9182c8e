"""``docs/commands.md`` is the output of ``--help`` of all commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeattn.cli.commands import COMMANDS
from edgeattn.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def command_of(*words: str) -> click.Command:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


def command_names() -> list[tuple[str, ...]]:
    """The words of every command, and of the commands of groups."""
    names: list[tuple[str, ...]] = []
    for name in sorted(COMMANDS):
        names.append((name,))
        command = command_of(name)
        if isinstance(command, click.Group):
            names += [(name, inner) for inner in sorted(command.commands)]
    return names


def generated_page() -> str:
    """The page for the current commands."""
    parts = [
        "# Commands",
        "",
        "Look up the options of every command here. `python tests/test_commands_page.py` generates",
        "this page from `edgeattn --help`.",
    ]
    for words in [[], *([*name] for name in command_names())]:
        command = command_of(*words) if words else cli
        title = " ".join(["edgeattn", *words])
        arguments = [*words, "--help"]
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
        if re.search(r"^@click.(command|group)\(", path.read_text("utf-8"), re.MULTILINE)
        and path.stem != "main"
    }
    assert modules == set(COMMANDS)
    for name, summary in COMMANDS.items():
        assert " ".join((command_of(name).help or "").split("\n\n")[0].split()) == summary


@pytest.mark.parametrize("name", command_names(), ids=" ".join)
def test_every_option_has_help(name: tuple[str, ...]) -> None:
    for option in command_of(*name).params:
        if isinstance(option, click.Option):
            assert option.help or option.name in ("threads",), option.name


if __name__ == "__main__":
    PAGE.write_text(generated_page(), "utf-8")
