"""``docs/commands.md`` is what the commands' own ``--help`` says."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeattn.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def written() -> str:
    """The page, made from the commands."""
    parts = [
        "# Commands",
        "",
        "Made from `edgeattn --help`; `python tests/test_commands_page.py` renews it.",
    ]
    for name, command in [("", cli), *sorted(cli.commands.items())]:
        title = f"edgeattn {name}".strip()
        arguments = [name, "--help"] if name else ["--help"]
        shown = CliRunner().invoke(cli, arguments, prog_name="edgeattn", terminal_width=100).output
        assert command.help
        parts += ["", f"## {title}", "", "```", shown.rstrip(), "```"]
    return "\n".join(parts) + "\n"


def test_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == written()


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_has_help(name: str) -> None:
    for option in cli.commands[name].params:
        if isinstance(option, click.Option):
            assert option.help or option.name in ("threads",), option.name


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
