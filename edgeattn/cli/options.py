"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeattn.schemes import FORMATS, SCHEMES

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
ALL = "all"


def json_option(command: Command) -> Command:
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document, and nothing else, on stdout.",
    )(command)


def quiet_option(command: Command) -> Command:
    return click.option("-q", "--quiet", is_flag=True, help="Print results only.")(command)


def formats_option(command: Command) -> Command:
    return click.option(
        "--format",
        "formats",
        type=click.Choice([*FORMATS, ALL]),
        multiple=True,
        help="File format; repeatable. Default: all.",
    )(command)


def schemes_option(command: Command) -> Command:
    return click.option(
        "--scheme",
        "schemes",
        type=click.Choice([*SCHEMES, ALL]),
        multiple=True,
        help="Precision scheme; repeatable. Default: all that the bundle holds.",
    )(command)


def chosen(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names that were given, none of them meaning all."""
    return () if ALL in values else values
