"""Commands: the options that all of them have, and defaults from a config file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgeattn.cli import output
from edgeattn.cli.terminal import Context
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.cli.config_file import ConfigFile

# Keys of click.Context.meta, which the contexts of the group and of the command share.
_CHOSEN, _CONFIG = "edgeattn.chosen", "edgeattn.config"
ENVIRONMENT = "EDGEATTN_CONFIG"
# --config, --no-config and --recipe
CHOICES = 3


class Command(click.Command):
    """A command with the shared options, whose other options a config file may set."""

    context_class = Context

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += shared_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        _announce(ctx)
        return super().invoke(ctx)


class Group(click.Group):
    """A command that consists of commands, with the shared options, which apply to them."""

    context_class = Context
    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += shared_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def shared_options() -> list[click.Option]:
    """The options of all commands. They are accepted before the command too."""
    shared: dict[str, Any] = {"is_eager": True, "expose_value": False}
    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(),
            callback=_collect,
            help=f"File with defaults of options. Default: {ENVIRONMENT}, or edgeattn.toml or "
            "[tool.edgeattn] of pyproject.toml in this folder or in the repository above it.",
            **shared,
        ),
        click.Option(
            ["--no-config"], is_flag=True, callback=_collect, help="Read no config file.", **shared
        ),
        click.Option(
            ["--recipe"],
            metavar="NAME",
            callback=_collect,
            shell_complete=_complete_recipe,
            help="Recipe of the config file to use.",
            **shared,
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            callback=_set_verbose,
            help="Print details, and every step on stderr.",
            **shared,
        ),
        click.Option(["--debug"], is_flag=True, help="Print the traceback of an error.", **shared),
    ]


def _write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """The options of this command, and below them those of all commands."""
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            (shared if parameter.is_eager else own).append(record)
    for title, records in (("Options", own), ("Options of all commands", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


@contextmanager
def recorded_options() -> Iterator[None]:
    """Bundles written within the block record the options that a config file gave."""
    from dataclasses import replace
    from pathlib import Path

    from edgeattn.bundle.config_record import stored_in_bundles

    record = output.config_record()
    # The folder of the file is a matter of this machine.
    named = None if record is None else replace(record, file=Path(record.file).name)
    with stored_in_bundles(named):
        yield


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[output.VERBOSE] = True


def _collect(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store a value of the options of config files; the last one of a command reads the file.

    Eager options come first, so that the other options of the command get their defaults.
    """
    if context.resilient_parsing:  # shell completion
        return
    values = _chosen(context)
    values[parameter.name or ""] = value
    if len(values) == CHOICES and isinstance(context.command, Command):
        _apply(context, context.command)


def _complete_recipe(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The recipes of the config file in this folder; none if it is malformed."""
    from pathlib import Path

    from edgeattn.cli.commands import COMMANDS
    from edgeattn.cli.config_file import find

    try:
        config = find(Path.cwd(), COMMANDS)
    except UsageError:
        return []
    names = [] if config is None else list(config.recipes)
    return [name for name in names if name.startswith(incomplete)]


def _chosen(context: click.Context) -> dict[str, Any]:
    """The values of the options of config files that were passed at one level."""
    values: dict[str, Any] = context.meta.setdefault(f"{_CHOSEN}.{context.command_path}", {})
    return values


def _apply(context: click.Context, command: Command) -> None:
    """Use the options of the config file, if there is one, as defaults."""
    from edgeattn.cli.commands import load_command
    from edgeattn.cli.config_values import check_tables, defaults

    levels = [context]
    while levels[0].parent is not None:
        levels.insert(0, levels[0].parent)
    chosen = {k: v for level in levels for k, v in _chosen(level).items() if v}
    recipe = chosen.get("recipe")
    config = _config_file(chosen)
    if config is None:
        if recipe is not None:
            raise UsageError(
                f"--recipe {recipe} requires a config file, and none was found.",
                hint="Add --config FILE, or write the recipe to edgeattn.toml in this folder.",
            )
        return
    words = [level.info_name or "" for level in levels[1:]] or [command.name or ""]
    table = config.options(words, recipe)
    check_tables(config, {used: load_command(used) for _, used, _ in config.tables})
    context.default_map = defaults(config, ".".join(words), table, command)
    context.meta[_CONFIG] = (config, recipe, table)


def _config_file(chosen: Mapping[str, Any]) -> ConfigFile | None:
    """The config file that was passed, or else found."""
    from pathlib import Path

    from edgeattn.cli.commands import COMMANDS
    from edgeattn.cli.config_file import find, read

    if chosen.get("no_config"):
        for option in ("config", "recipe"):
            if option in chosen:
                raise UsageError(f"--no-config excludes --{option}.", hint="Omit one of the two.")
        return None
    path = chosen.get("config") or os.environ.get(ENVIRONMENT)
    return find(Path.cwd(), COMMANDS) if path is None else read(Path(path), COMMANDS)


def _announce(context: click.Context) -> None:
    """Record the options that the config file gave, and name them and the file on stderr."""
    from edgeattn.bundle.config_record import ConfigRecord

    config, recipe, table = context.meta.get(_CONFIG, (None, None, {}))
    if config is None:
        if output.is_verbose():
            output.echo("No config file is used.", err=True)
        return
    names = {
        opt.removeprefix("--"): parameter.name or ""
        for parameter in context.command.params
        for opt in parameter.opts
    }
    source = context.get_parameter_source
    used = {
        key: value
        for key, value in table.items()
        if source(names[key]) == ParameterSource.DEFAULT_MAP
    }
    described = f"{config.path}{f', recipe {recipe}' if recipe else ''}"
    if used:
        context.meta[output.CONFIG_RECORD] = ConfigRecord(
            str(config.path), config.sha256, recipe, used
        )
    # Not if a quiet option in the file itself says so.
    quiet = context.params.get("quiet") and source("quiet") == ParameterSource.COMMANDLINE
    if (used and not quiet) or output.is_verbose():
        output.echo(f"Options from {described}: {', '.join(used) or 'none'}", err=True)
