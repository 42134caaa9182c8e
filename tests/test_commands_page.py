"""``docs/commands.md`` is what the commands' own ``--help`` says."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeattn.cli.commands import COMMANDS
from edgeattn.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def command_of(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def written() -> str:
    """The page, made from the commands."""
    parts = [
        "# Commands",
        "",
        "Made from `edgeattn --help`; `python tests/test_commands_page.py` renews it.",
    ]
    for name in ["", *sorted(COMMANDS)]:
        command = command_of(name) if name else cli
        title = f"edgeattn {name}".strip()
        arguments = [name, "--help"] if name else ["--help"]
        shown = CliRunner().invoke(cli, arguments, prog_name="edgeattn", terminal_width=100).output
        assert command.help
        parts += ["", f"## {title}", "", "```", shown.rstrip(), "```"]
    return "\n".join(parts) + "\n"


def test_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == written()


def test_every_command_is_listed_by_its_own_words() -> None:
    """Listing them imports none: what is said there must be what the command says."""
    rooms = {
        path.stem
        for path in (PAGE.parents[1] / "edgeattn" / "cli").glob("*.py")
        if "@click.command(" in path.read_text("utf-8")
    }
    assert rooms == set(COMMANDS)
    for name, told in COMMANDS.items():
        assert " ".join((command_of(name).help or "").split("\n\n")[0].split()) == told


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_help(name: str) -> None:
    for option in command_of(name).params:
        if isinstance(option, click.Option):
            assert option.help or option.name in ("threads",), option.name


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
