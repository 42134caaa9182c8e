"""The group of commands, and the one place where errors become text and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from edgeattn import __version__
from edgeattn.cli.commands import Commands
from edgeattn.errors import EdgeattnError, OutputError

FAULT = EdgeattnError.exit_code
# What shells give a program that Ctrl-C ended.
INTERRUPTED = 130
# And one whose reader has gone: the verdict was not told, so this is neither 0 nor 1.
UNREAD = 141


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgeattn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Keras attention models on edge devices, and proof that they still look where they looked.

    \b
    Exit codes: 0 pass, 1 a check failed, 2 usage, 3 unsupported model or operation,
    4 refused as unsafe, 5 device or transport, 6 inconclusive, 70 a fault of edgeattn,
    130 interrupted.
    """


def main() -> NoReturn:
    """Run the command line; never returns, never shows a traceback unless asked to."""
    # A terminated conversion cleans up after itself, as an interrupted one does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, _terminated)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments[:1]
    try:
        code = _run(arguments, debug)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever started us
                stream.flush()
    except OSError as error:
        # What is not written yet has nowhere to go, and Python would try again at exit.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = UNREAD if isinstance(error, BrokenPipeError) else OutputError.exit_code
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    as_json = "--json" in arguments
    stdout = sys.stdout
    try:
        return int(cli.main(arguments, prog_name="edgeattn", standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except SystemExit:
        if sys.stdout is stdout:
            raise
        # Where its pipe is closed, click puts another stdout in and ends with a 1: no verdict.
        sys.stdout = stdout
        raise BrokenPipeError from None
    except (click.Abort, KeyboardInterrupt):
        return _tell(EdgeattnError("Interrupted."), INTERRUPTED, as_json)
    except click.ClickException as error:
        if as_json:
            return _tell(EdgeattnError(error.format_message()), error.exit_code, as_json)
        error.show()
        return error.exit_code
    except EdgeattnError as error:
        if debug:
            _show_traceback()
        return _tell(error, error.exit_code, as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            _show_traceback()
        if isinstance(error, OSError) and error.strerror:
            where = f": {error.filename}" if error.filename else ""
            told: EdgeattnError = OutputError(f"{error.strerror}{where}")
            return _tell(told, told.exit_code, as_json)
        told = EdgeattnError(
            f"{type(error).__name__}: {error}",
            hint="This is a fault of edgeattn. Please report it with what edgeattn --debug says.",
        )
        return _tell(told, FAULT, as_json)


def _tell(error: EdgeattnError, code: int, as_json: bool) -> int:
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(error.hint, err=True)
    if as_json:
        document = {"message": error.message, "hint": error.hint, "exit_code": code}
        click.echo(json.dumps({"error": document}, indent=1))
    return code


def _show_traceback() -> None:
    import traceback

    traceback.print_exc()


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
