"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeattn.errors import UsageError
from edgeattn.schemes import EXPERIMENTAL, FORMATS, SCHEMES

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle

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


def verbose_option(command: Command) -> Command:
    return click.option("-v", "--verbose", is_flag=True, help="Print details too.")(command)


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
        type=click.Choice([*SCHEMES, *EXPERIMENTAL, ALL]),
        multiple=True,
        help="Precision scheme; repeatable. Default: all that the bundle holds.",
    )(command)


def loading_options(command: Command) -> Command:
    """How a Keras file is loaded: ``--custom-objects``, ``--architecture`` and ``--trust``."""
    for option in (
        click.option(
            "--trust", metavar="SHA256", help="Load this one file though it was refused as unsafe."
        ),
        click.option(
            "--architecture",
            metavar="FILE.json|FILE.py:FUNCTION",
            help="The architecture of a file that holds weights only.",
        ),
        click.option("--custom-objects", type=PATH, help="A .py file with the model's own layers."),
    ):
        command = option(command)
    return command


def reference_options(command: Command) -> Command:
    """What Keras is asked about: ``--samples`` and ``--time-steps``."""
    steps = click.option(
        "--time-steps",
        type=click.IntRange(min=1),
        help="Steps of a sequence, where the model leaves them free.",
    )
    return click.option(
        "--samples",
        type=PATH,
        help="Real inputs for the reference: .npz, .npy or .csv. Default: seeded plausible ones.",
    )(steps(command))


def on_option(command: Command) -> Command:
    return click.option(
        "--on",
        metavar="USER@HOST",
        help="Run the artifacts on this machine, over ssh. Default: here.",
    )(command)


def python_option(command: Command) -> Command:
    return click.option(
        "--python",
        metavar="PATH",
        help="Run the artifacts in this Python, which has edgeattn: one of that machine with --on.",
    )(command)


def device_python_option(command: Command) -> Command:
    return click.option(
        "--python",
        metavar="PATH",
        help="The device's Python. Default: ~/edge/bin/python where it is there, or python3.",
    )(command)


def ssh_config_option(command: Command) -> Command:
    return click.option(
        "--ssh-config", type=PATH, metavar="FILE", help="Read by ssh instead of ~/.ssh/config."
    )(command)


def signature_option(command: Command) -> Command:
    return click.option(
        "--require-signature",
        type=PATH,
        metavar="ALLOWED_SIGNERS",
        help="Refuse a bundle that none of these signed; see edgeattn sign.",
    )(command)


def opened(bundle: Path, require_signature: Path | None) -> Bundle:
    """The bundle, signed by somebody in the file of allowed signers where one is given."""
    from edgeattn.bundle.bundle import Bundle

    found = Bundle.open(bundle)
    if require_signature is not None:
        from edgeattn.bundle.signing import check_signature

        check_signature(found, require_signature)
    return found


def check_writable(*targets: Path | None) -> None:
    """Before any work: a page that cannot be written is better known now."""
    for target in targets:
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            raise UsageError(f"Not a place for a file: {target}")


def chosen(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names that were given, none of them meaning all."""
    return () if ALL in values else values
