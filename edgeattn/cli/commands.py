"""The list of commands. Each is imported when it is used, so that ``--help`` starts quickly."""

import importlib
from typing import Any

import click

from edgeattn.cli.terminal import Context

# The first sentence of each command's help; a test compares them.
COMMANDS = {
    "bench": "Measure cold start, load time and latency of the artifacts of BUNDLE.",
    "convert": "Convert a trained Keras MODEL to TFLite and ONNX, and validate the files.",
    "deploy": "Copy BUNDLE to devices, validate it there, and switch to it if it passes.",
    "doctor": "Check whether this machine, or USER@HOST, can run bundles, and suggest fixes.",
    "fleet": "Write what an updater of a fleet, such as Mender, needs to install bundles.",
    "inspect": "Describe PATH: a Keras file, a .tflite or .onnx file, or a bundle.",
    "pack": "Write BUNDLE to a single .zip file; equal bundles give equal bytes.",
    "run": "Run one artifact of BUNDLE on samples and write its outputs to an .npz file.",
    "serve": (
        "Answer raw input over HTTP with one artifact of BUNDLE, for other programs on the device."
    ),
    "sign": "Sign BUNDLE, a folder, with an ssh key.",
    "sweep": "Convert and validate the models of PLAN, a TOML file, and write one table of all.",
    "tune": "Search for the smallest or fastest artifact of MODEL that passes the verdict.",
    "validate": (
        "Compare the artifacts of BUNDLE with the outputs of Keras, which the bundle contains."
    ),
}


def load_command(name: str) -> click.Command:
    """Import the command ``NAME``, which is ``edgeattn.cli.NAME:command``."""
    command: click.Command = importlib.import_module(f"edgeattn.cli.{name}").command
    return command


class Commands(click.Group):
    """The group of :data:`COMMANDS`."""

    context_class = Context

    def __init__(self, **options: Any) -> None:
        # Placeholders, sufficient to list commands and to suggest one for a misspelt name.
        placeholders = {name: click.Command(name, help=help) for name, help in COMMANDS.items()}
        super().__init__(commands=placeholders, **options)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As in click, but without importing the commands."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, self.commands[name].get_short_help_str(limit))
                    for name in self.list_commands(ctx)
                ]
            )
