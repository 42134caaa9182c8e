"""The command group, and the only place that maps errors to messages and exit codes."""

import contextlib
import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from edgeattn.cli import output
from edgeattn.cli.command import shared_options
from edgeattn.cli.commands import Commands
from edgeattn.cli.terminal import has_color, styled_line
from edgeattn.errors import EdgeattnError, OutputError, internal
from edgeattn.printable import Text, printable
from edgeattn.version import __version__

# Exit codes as shells use them: 128 + SIGINT, 128 + SIGPIPE. After a broken pipe the reader has
# not seen the verdict, so neither 0 nor 1 would be right.
INTERRUPTED = 130
BROKEN_PIPE = 141
DEBUG = "--debug"
# The error of click without any argument, whose message is the help.
NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
# Packages whose versions decide what an artifact computes, or whether it can be made.
RUN_ON = (
    "numpy",
    "ai-edge-litert",
    "tflite-runtime",
    "tflite-micro",
    "onnxruntime",
    "tensorflow",
    "keras",
    "tf-keras",
    "onnx",
)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, value: _print_versions(context) if value else None,
    help="Show the versions of edgeattn and of what it runs on, and exit.",
)
def cli() -> None:
    """Convert Keras attention models for edge devices and validate them against Keras.

    \b
    Exit codes: 0 pass, 1 a check failed, 2 usage error, 3 unsupported model, operation or artifact,
    4 refused as unsafe, 5 device error or no runtime, 6 inconclusive, 7 regression,
    70 internal error, 130 interrupted.
    """


cli.params += shared_options()


def _print_versions(context: click.Context) -> NoReturn:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    output.echo(f"edgeattn, version {__version__}")
    output.echo(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in RUN_ON:
        with contextlib.suppress(PackageNotFoundError):
            output.echo(f"{name} {version(name)}")
    context.exit()


def main() -> NoReturn:
    """Run the command line and exit. Tracebacks are printed with ``--debug`` only."""
    # Exit in the regular way, so that a terminated command removes its temporary files.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _exit_by_signal)
    arguments = sys.argv[1:]
    # At any place, but not among the operands after "--".
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = DEBUG in own
    arguments = [word for word in own if word != DEBUG] + arguments[len(own) :]
    try:
        code = _run(arguments, debug)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None if the parent process closed it
                stream.flush()
    except OSError as error:
        # Python would try to write the rest of the output again at exit.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = BROKEN_PIPE if isinstance(error, BrokenPipeError) else OutputError.exit_code
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    as_json = "--json" in arguments
    stdout = sys.stdout
    try:
        color = True if has_color(sys.stdout) else None  # for the help, which click prints
        return int(
            cli.main(arguments, prog_name="edgeattn", standalone_mode=False, color=color) or 0
        )
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except SystemExit:
        if sys.stdout is stdout:
            raise
        # After a broken pipe click replaces stdout and exits with 1, which would be a verdict.
        sys.stdout = stdout
        raise BrokenPipeError from None
    except (click.Abort, KeyboardInterrupt):
        return _print_error(EdgeattnError("Interrupted."), INTERRUPTED, as_json)
    except click.ClickException as error:
        return _print_usage_error(error, as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            import traceback

            output.echo(*traceback.format_exc().splitlines(), err=True)
        known = _as_edgeattn_error(error)
        return _print_error(known, known.exit_code, as_json)


def _print_usage_error(error: click.ClickException, as_json: bool) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and not as_json:
        if isinstance(error, NO_ARGUMENTS):
            output.echo(Text(context.get_help()), err=True)
            return int(error.exit_code)
        usage = context.get_usage()
        hint = f"Try '{context.command_path} --help' for help."
        output.echo(Text(usage), hint, "", err=True)
    return _print_error(EdgeattnError(error.format_message()), error.exit_code, as_json)


def _as_edgeattn_error(error: Exception) -> EdgeattnError:
    if isinstance(error, EdgeattnError):
        return error
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return OutputError(f"{error.strerror}{name}")
    return internal(error)


def _print_error(error: EdgeattnError, code: int, as_json: bool) -> int:
    message = error.message
    message = message if isinstance(message, Text) else printable(message)
    output.echo(styled_line(Text(f"Error: {message}"), err=True), err=True)
    if error.hint:
        output.echo(error.hint, err=True)
    if as_json:
        document = {"message": error.message, "hint": error.hint, "exit_code": code}
        click.echo(json.dumps({"error": document}, indent=1))
    return code


def _exit_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
