"""``edgeattn serve``"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.cli.values import Integer, Number

if TYPE_CHECKING:
    from edgeattn.serving.server import Server


@click.command("serve", cls=Command)
@click.argument("bundle", type=options.PATH)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. By default, only programs on this machine have access.",
)
@click.option(
    "--port",
    type=Integer(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--max-size",
    type=Number(min=0, min_open=True),
    metavar="MIB",
    default=1.0,
    show_default=True,
    help="Size limit of a request.",
)
@click.option(
    "--max-requests",
    type=Integer(1, 64),
    default=8,
    show_default=True,
    help="Limit of requests that wait or run; others get status 503.",
)
@click.option(
    "--timeout",
    type=Number(min=0, min_open=True, max=86400),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Time limit of a request, and of the runtime for one sample.",
)
@click.option(
    "--memory",
    type=Number(min=options.MIN_MEMORY),
    metavar="MIB",
    help="Memory limit of the process that runs the artifact. Default: that of the machine.",
)
@options.artifact_selection
@options.threads_option
@options.signature_option
@options.quiet_option
def command(
    bundle: Path,
    host: str,
    port: int,
    max_size: float,
    max_requests: int,
    timeout: float,
    memory: float | None,
    selection: options.ArtifactSelection,
    threads: int,
    require_signature: Path | None,
    quiet: bool,
) -> int:
    """Answer raw input over HTTP with one artifact of BUNDLE, for other programs on the device.

    POST {"sample": ...} or {"samples": [...]} to /answer. GET /health, /metrics (for Prometheus) or
    /openapi.json, the description of what the model takes and answers.

    If BUNDLE is a link that moves, such as current of edgeattn deploy, the new bundle is loaded and
    requests in progress are finished by the old one. SIGTERM ends the service after the requests in
    progress.
    """
    from edgeattn.serving.model import ServeOptions
    from edgeattn.serving.server import Server

    serve_options = ServeOptions(
        **vars(selection),
        threads=threads,
        allowed_signers=require_signature,
        seconds=timeout,
        max_bytes=int(max_size * 2**20),
        max_requests=max_requests,
        memory=None if memory is None else int(memory * 2**20),
    )
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    with output.progress(quiet):
        server = Server(bundle, serve_options, host, port, lambda line: output.echo(line, err=True))
    previous = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        _print_address(server, quiet=quiet)
        server.run(stop)
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
    return 0


def _print_address(server: Server, *, quiet: bool) -> None:
    if not server.loopback:
        output.echo("Other machines have access, without authentication or encryption.", err=True)
    if not quiet:
        model = server.service.describe()
        artifact = f"{model['format']} {model['scheme']} in {model['runtime']}"
        output.echo(f"Serving {artifact} at {server.url}")
