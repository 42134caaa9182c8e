"""``edgeattn run``"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.errors import EdgeattnError, UsageError
from edgeattn.printable import counted

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from edgeattn.api.run import RunResult
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.inference.run import RunOptions
    from edgeattn.tensors import Array


@click.command("run", cls=Command)
@click.argument("bundle", type=options.PATH)
@click.option(
    "--input",
    "source",
    type=options.PATH,
    required=True,
    help="Samples: .npz, .npy or .csv, or - for a stream on stdin.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=options.PATH,
    help="Default: INPUT.outputs.npz, in the current folder.",
)
@options.artifact_selection
@options.threads_option
@click.option(
    "--carry-states",
    is_flag=True,
    help="Start each sample from the final states of the one before it; needs convert --states.",
)
@click.option(
    "--allow-non-finite",
    is_flag=True,
    help="Accept NaN and infinity in samples and outputs, which are errors by default.",
)
@click.option(
    "--stop-on-error",
    is_flag=True,
    help="With --input -: end the stream at the first sample with an error.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Print the answers to raw input, as the front end of the bundle describes it.",
)
@click.option(
    "--pcm", is_flag=True, help="With --stream: the input is 16-bit sound without a header."
)
@options.ignore_option
@click.option("--force", is_flag=True, help="Replace an existing output file.")
@options.run_limits_options
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    source: Path,
    target: Path | None,
    selection: options.ArtifactSelection,
    threads: int,
    carry_states: bool,
    allow_non_finite: bool,
    stop_on_error: bool,
    stream: bool,
    pcm: bool,
    ignore: tuple[str, ...],
    force: bool,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run one artifact of BUNDLE on samples and write its outputs to an .npz file.

    Runs the first artifact that matches --format and --scheme, accepts the sequence length of the
    samples, and whose runtime is installed.

    With --input -, samples are read from stdin, one per line (numbers, or JSON) or as consecutive
    .npy arrays. The outputs of each are printed as a line of JSON at once. A sample with an error
    gives a line with "error", and the stream continues; the exit code is then that of the first.

    With --stream, --input is raw: a text or the numbers of a reading per line, or sound (.wav).
    Each answer is printed as a line of JSON: the label, its score and the attention maps.
    """
    from edgeattn.api.run import run
    from edgeattn.inference.run import RunOptions, stream_raw

    run_options = RunOptions(
        **vars(selection),
        threads=threads,
        carry_states=carry_states,
        allow_non_finite=allow_non_finite,
    )
    if pcm and not stream:
        raise UsageError("--pcm requires --stream.", hint="Omit --pcm.")
    if stream or str(source) == "-":
        if target is not None:
            option = "--stream" if stream else "--input -"
            raise UsageError(f"{option} prints to stdout and takes no --output.")
        if ignore:
            raise UsageError("--ignore has no effect on a stream.", hint="Omit --ignore.")
        opened = options.open_bundle(bundle, require_signature)
        with _opened(source) as file:
            if stream:
                results = stream_raw(opened, file, run_options, pcm=pcm, suffix=source.suffix)
            else:
                results = _outputs(opened, file, run_options)
            return _emit_results(results, stop_on_error=stop_on_error)
    if stop_on_error:
        raise UsageError(
            "--stop-on-error requires --input - or --stream.", hint="Omit --stop-on-error."
        )
    target = target or Path(f"{source.stem}.outputs.npz")
    with output.progress(quiet or as_json):
        result = run(
            bundle,
            source,
            target,
            **vars(selection),
            threads=threads,
            carry_states=carry_states,
            allow_non_finite=allow_non_finite,
            ignore=ignore,
            force=force,
            require_signature=require_signature,
        )
    if as_json:
        output.emit_json(result.to_dict())
    else:
        output.echo(*_lines(result, quiet=quiet), f"Wrote {target}")
    return 0


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[io.BufferedReader]:
    """The file, or stdin for ``-``."""
    if str(source) == "-":
        yield cast("io.BufferedReader", sys.stdin.buffer)
        return
    try:
        with source.open("rb") as file:
            yield file
    except IsADirectoryError as error:
        raise UsageError(f"{source} is a folder, not a file.") from error


def _outputs(
    bundle: Bundle, source: io.BufferedReader, run_options: RunOptions
) -> Iterator[dict[str, Any] | EdgeattnError]:
    """The outputs for samples."""
    from edgeattn.inference.run import stream_bundle

    for result in stream_bundle(bundle, source, run_options):
        if isinstance(result, EdgeattnError):
            yield result
        else:
            yield {name: array[0].tolist() for name, array in result.items()}


def _emit_results(results: Iterable[dict[str, Any] | EdgeattnError], *, stop_on_error: bool) -> int:
    """Print each result as a line; returns the exit code of the first error, or 0."""
    code = 0
    for result in results:
        if not isinstance(result, EdgeattnError):
            output.emit_line(result)
        elif stop_on_error:
            raise result
        else:
            code = code or result.exit_code
            error = {"message": result.message, "hint": result.hint, "exit_code": result.exit_code}
            output.emit_line({"error": error})
    return code


def _lines(result: RunResult, *, quiet: bool) -> list[str]:
    rows = [
        [name, "x".join(map(str, array.shape)), str(array.dtype), _first_values(array)]
        for name, array in result.outputs.items()
    ]
    summary = f"{result.artifact.label} in {result.runtime}, {counted(result.samples, 'sample')}"
    table = output.table(["output", "shape", "dtype", "first values"], rows)
    return [table] if quiet else [summary, table]


def _first_values(array: Array) -> str:
    """The first four values of the first sample."""
    flat = array[0].reshape(-1)
    values = " ".join(f"{v:.4g}" if flat.dtype.kind == "f" else str(v) for v in flat[:4])
    return values + (" ..." if flat.size > 4 else "")
