"""The options of a config file, checked against those of a click command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgeattn.cli.config_file import ConfigFile, Table
from edgeattn.cli.values import TIME_STEPS, Integer, Number, suggestion
from edgeattn.errors import UsageError

# What happens once, and what scripts that read the output must pass.
COMMAND_LINE_ONLY = ("json", "help", "rollback", "dry-run")
# Options that run code, contact other machines, or give others access. A file that was merely found
# may be part of a download, so it must be named.
NAMED_ONLY = (
    *("architecture", "custom-objects", "trust", "python"),
    *("on", "ssh-config", "hosts", "device", "scheduler", "install", "wheels", "allow-older"),
    *("host", "key"),
)
# Files and folders that a command writes. A file that was merely found cannot place them elsewhere.
WRITTEN = ("output", "report", "junit", "plot", "resume-file")
# Text that begins with a path; sweep --compare may also be a URL.
PATHS_IN_TEXT = ("architecture", "compare")


def check_tables(config: ConfigFile, commands: Mapping[str, click.Command]) -> None:
    """Raise :class:`UsageError` for the first wrong name or value in any table of ``config``."""
    for title, command, table in config.tables:
        _check(config, title, table, commands[command])


def _check(config: ConfigFile, title: str, table: Any, command: click.Command) -> None:
    """Check the options of a command, or the tables of the commands of a group."""
    if not isinstance(table, dict):
        raise UsageError(
            f"{config.path}: {title} is {table!r}, not a table.", hint=f"Write a table: [{title}]"
        )
    if not isinstance(command, click.Group):
        defaults(config, title, table, command)
        return
    for name, inner in table.items():
        if name not in command.commands:
            raise UsageError(
                f"{config.path}: {title}.{name} is not a table of a command.",
                hint=suggestion(name, command.commands)
                or f"The commands are {', '.join(command.commands)}.",
            )
        _check(config, f"{title}.{name}", inner, command.commands[name])


def defaults(
    config: ConfigFile, title: str, table: Table, command: click.Command
) -> dict[str, Any]:
    """The values of ``table`` by the names of the parameters of ``command``, for ``default_map``.

    Relative paths start from the folder of the config file. Raises :class:`UsageError`, with the
    file and the key, for names and values that are not options of the command.
    """
    options = _options(command)
    values = {}
    for key, raw in table.items():
        place = f"{config.path}: [{title}] {key}"
        if key in COMMAND_LINE_ONLY:
            raise UsageError(f"{place} is for the command line only.", hint=f"Pass --{key} there.")
        if key not in options:
            raise UsageError(
                f"{place} is not an option of edgeattn {command.name}.",
                hint=suggestion(key, options)
                or f"List its options: edgeattn {command.name} --help",
            )
        if key in NAMED_ONLY and not config.named:
            raise UsageError(
                f"{place} is accepted only from a file that is named on the command line, because "
                "a file that was found may come from others.",
                hint=f"Read the file, and add --config {config.path.name}",
            )
        values[options[key].name or key] = _value(config, place, key, raw, options[key])
    return values


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options of ``command`` itself by their long names without dashes."""
    return {
        opt.removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.is_eager
        for opt in parameter.opts
        if opt.startswith("--")
    }


def _value(config: ConfigFile, place: str, key: str, raw: Any, option: click.Option) -> Any:
    if not option.multiple:
        return _single(config, place, key, raw, option)
    items = raw if isinstance(raw, list) else [raw]
    return tuple(_single(config, place, key, item, option) for item in items)


def _single(config: ConfigFile, place: str, key: str, raw: Any, option: click.Option) -> Any:
    kind, types = _expected(option)
    valid = isinstance(raw, types) and (bool in types or not isinstance(raw, bool))
    if not valid or (isinstance(raw, float) and not math.isfinite(raw)):
        several = ", or an array of such values" if option.multiple else ""
        raise UsageError(f"{place} is {raw!r}.", hint=f"Write {kind}{several}.")
    is_path = isinstance(option.type, click.Path) or key in PATHS_IN_TEXT
    if is_path and raw != "-" and "://" not in raw:
        raw = str(config.path.parent / raw)
        if key in WRITTEN and not config.named:
            _check_inside(config, place, key, Path(raw))
    try:
        option.type(raw, option, click.Context(click.Command(None)))
    except click.BadParameter as error:
        raise UsageError(f"{place}: {error.message}") from error
    return raw


def _expected(option: click.Option) -> tuple[str, tuple[type, ...]]:
    """What the value of an option must be, in words and as types."""
    if option.is_flag:
        return "true or false", (bool,)
    if isinstance(option.type, Integer):
        return "an integer", (int,)
    if option.type is TIME_STEPS:
        return "an integer or a string in quotes", (int, str)
    if isinstance(option.type, Number):
        return "a number", (int, float)
    return "a string in quotes", (str,)


def _check_inside(config: ConfigFile, place: str, key: str, path: Path) -> None:
    if not path.resolve().is_relative_to(config.path.parent.resolve()):
        raise UsageError(
            f"{place} is outside of the folder of the config file, where a file that was found "
            "cannot write.",
            hint=f"Pass --{key} on the command line, or add --config {config.path.name}",
        )
