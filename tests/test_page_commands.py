"""Command lines that readers copy from pages: commands, options, values, files and extras exist.

The tests of single pages also run them.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest
from page_blocks import PAGES, ROOT, blocks, command_lines, inline_commands

from edgeattn.cli.main import cli
from edgeattn.errors import EdgeattnError

# commands.md is generated from the commands.
OWN = [page for page in PAGES if page.name not in ("CHANGELOG.md", "commands.md")]
SUFFIXES = (".toml", ".edge", ".json")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def command_of(words: list[str]) -> tuple[click.Context, list[str]]:
    """The context of the command that ``words`` start with, and the words after it."""
    # Without the settings of the outermost command, the others would keep other help options.
    context = click.Context(cli, **cli.context_settings)
    while isinstance(context.command, click.Group) and words and not words[0].startswith("-"):
        inner = context.command.get_command(context, words[0])
        assert inner is not None, f"no command {words[0]}"
        context, words = click.Context(inner, parent=context), words[1:]
    return context, words


def parse(words: list[str]) -> None:
    """Parse a command line as edgeattn does, with the values of its options."""
    context, rest = command_of(words)
    command = context.command
    assert not isinstance(command, click.Group), f"{words} lacks a command"
    command.make_context(command.name, rest, parent=context.parent)


@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_commands_of_pages_are_accepted(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    if page.name == "command-line.md":
        (config,) = blocks(text, "toml")
        (tmp_path / "edgeattn.toml").write_text(config)
    for words in command_lines(text):
        if words[0].split("/")[-1] == "edgeattn":
            try:
                parse(words[1:])
            except (click.ClickException, EdgeattnError) as error:
                pytest.fail(f"{' '.join(words)}: {error}")


def test_commands_are_found_in_pages():
    lines = [" ".join(words) for page in OWN for words in command_lines(page.read_text("utf-8"))]
    commands = [line for line in lines if line.startswith(("edgeattn ", "~/edge/bin/edgeattn "))]
    assert len(commands) > 60
    # In a list, with a continuation, in a pipe, and in a console block.
    assert "edgeattn sweep plan.toml --dry-run" in commands
    assert any(line.startswith("edgeattn tune sample") and "--plot" in line for line in commands)
    assert "edgeattn run commands.edge --input - --stream" in commands
    assert "edgeattn validate find_max.edge" in commands


@pytest.mark.parametrize(
    "line",
    [
        "convert",
        "convert model.h5 --no-such-option",
        "convert model.h5 --scheme int3",
        "fleet no-such-command",
        "validate a.edge b.edge",
        "bench model.edge --runs many",
    ],
)
def test_wrong_commands_are_found(line):
    with pytest.raises((click.ClickException, EdgeattnError, AssertionError)):
        parse(line.split())


@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_commands_in_the_text_of_pages_exist(page):
    """Those without all their arguments, such as `edgeattn validate --data`."""
    for words in inline_commands(page.read_text("utf-8")):
        context, rest = command_of(words[1:])
        command = context.command
        known = {opt for p in command.params for opt in [*p.opts, *p.secondary_opts]}
        known |= {"--version", "--help"}
        for word in rest:
            option = word.split("=")[0]
            assert not option.startswith("-") or option in known | {"-"}, " ".join(words)


@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_other_commands_name_what_exists(page):
    """Scripts and modules for Python, targets of make, and extras for pip."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for words in command_lines(page.read_text("utf-8")):
        program = words[0].split("/")[-1]
        if program in ("python", "python3") and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words
        for word in words:
            # After -m of Python and --preload of Dask.
            if re.fullmatch(r"edgeattn(_converters)?(\.\w+)+", word) and not word.endswith(
                SUFFIXES
            ):
                path = word.replace(".", "/")
                modules = [ROOT / half / f"{path}.py" for half in ("", "converters")]
                assert any(module.is_file() for module in modules), words
        if program == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        for _, extras in re.findall(r"(edgeattn|\.)\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), words
